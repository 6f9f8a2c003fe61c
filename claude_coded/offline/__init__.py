"""A scripted Anthropic Messages API, so that the real Claude Code CLI runs with no key and no network.

`python -m claude_coded.offline --port 4000` serves it alone, `claude-coded serve --offline` together with a
daemon in front of it. The newest user message is the script: its directives, run in order, say what the
model answers. Text around them is ignored, and a message without any is repeated: `You said: ...`.

    Directive                       What the model does
    ------------------------------  --------------------------------------------------------------------------
    [[say TEXT]]                    says the text, one delta a word
    [[words N]]                     says `w0 w1 w2 ...`, N deltas
    [[think TEXT]]                  thinks the text, in a block of its own
    [[tool NAME JSON]]              calls a tool with a JSON object, `{}` if there's none; what follows is for
                                    the reply to its result. Calls with mere space between them share a reply.
                                    `get` also finds `mcp__client__get`, if no other tool ends like that

    [[delay MS]]                    waits so long between the deltas that follow in this reply
    [[pause MS]]                    waits so long, once
    [[hang]]                        waits until the client leaves; pings go out, as in any pause
    [[stop max_tokens]]             ends the reply with this stop reason, or `refusal`; what follows is for
                                    the next reply, should the CLI ask to go on
    [[cut]]                         breaks the connection
    [[error STATUS]]                fails: with this HTTP status (400 to 599), or with an error event if the
                                    reply streams and has begun
    [[error STATUS saying TEXT]]    fails with this message

    [[result]]                      says the results of the newest calls
    [[recall]]                      says the user's messages so far, as a JSON list
    [[history]]                     says all messages so far, as a JSON list with one entry a block
    [[system]]                      says the system prompt
    [[offered]]                     says the names of the tools on offer, as a JSON list
    [[images]]                      says how many images the history holds
    [[model]], [[max_tokens]]       says this field of the request

`[[cut times 2]]` and `[[error 529 times 2 saying TEXT]]` happen that often in a conversation and are skipped
from then on, so that a repeated request gets through. A directive ends at the first `]]`, but for the JSON of
a tool, which may hold some. One that's misspelt is said: `unknown directive: ...`.

A key that contains `refused` is refused with 401, `GET /v1/models` lists some models.

`GET /_offline/requests` returns the requests that came, `DELETE` forgets them, and `GET /_offline/stats`
counts requests, running replies, and clients that left before the end.
"""

from claude_coded.offline.app import OfflineModel
from claude_coded.offline.request import read_conversation
from claude_coded.offline.script import parse_script

__all__ = ["OfflineModel", "parse_script", "read_conversation"]
