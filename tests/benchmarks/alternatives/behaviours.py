"""What happens: each behaviour is asked for, and judged by what came back and by what the model got."""

import base64
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import orjson

from tests.benchmarks.alternatives.client import FAILURES, Json, Reply, said
from tests.benchmarks.alternatives.running import until
from tests.benchmarks.alternatives.servers import Server
from tests.benchmarks.alternatives.trial import LINE, Seen, Trial, fault, no, partly, shown, yes
from tests.support.daemon import Model, dialogue

WATCH_SECONDS: Final = 6.0
"""How long a turn without a client is watched."""

GONE_SECONDS: Final = 2.0
"""A turn whose client left has to have ended by then."""

IMAGE: Final = Path(__file__).parents[2] / "data" / "images" / "square.png"
ORIGIN: Final = "https://evil.example"


# History -----------------------------------------------------------------------------------------------


def history(trial: Trial) -> Seen:
    """Send a history that the server has never seen."""
    first, answer, question = (f"{word}-{trial.mark}" for word in ("ant", "bee", "cow"))
    talk = trial.asker.converse()
    talk.said += [said("user", first), said("assistant", answer)]
    talk.ask(f"{question} [[say good]]")
    return judge_history(trial.newest(question), first, answer, question)


def judge_history(body: Json, first: str, answer: str, question: str) -> Seen:
    """Judge what the model got of a question, an answer and a question."""
    got = [(role, text) for role, text in dialogue(body) if role != "system"]  # the CLI's own
    what = ", ".join(role for role, _ in got)
    asked = [at for at, (_, text) in enumerate(got) if first in text]
    answered = [at for at, (role, text) in enumerate(got) if role == "assistant" and answer in text]
    if not asked:
        return no(f"the model got the last question alone ({what})")
    if any(question in got[at][1] for at in asked):
        return no("pasted into one prompt")
    if len(asked) == len(answered) == 1 and asked < answered and got[answered[0]][1].strip() == answer:
        return yes(f"the model got {what}")
    return partly(f"the model got {what}, not each once")


def another(trial: Trial) -> Seen:
    """Have one client tell something, and another ask in a new conversation."""
    trial.asker.converse().ask(f"my secret is {trial.mark}-pearl [[say I keep it]]")
    reply = trial.asker.converse().ask("what do you know? [[recall]]")
    if f"{trial.mark}-pearl" in reply.text:
        return no("the second conversation has the first one's messages")
    return yes("it knows nothing of the other")


def restart(trial: Trial) -> Seen:
    """Stop the server after a turn, start it again, and go on."""
    talk = trial.asker.converse()
    first, answer, question = (f"{word}-{trial.mark}" for word in ("dog", "elk", "fox"))
    talk.ask(f"{first} [[say {answer}]]")
    trial.stop()
    trial.start()
    talk.asker = trial.asker
    talk.ask(f"{question} [[say good]]")
    return judge_history(trial.newest(question), first, answer, question)


# What a client may wish for ----------------------------------------------------------------------------

WEATHER: Final[Json] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def tool(trial: Trial) -> Seen:
    """Offer a function, have the model call it, and send its result."""
    talk = trial.asker.converse()
    reply = talk.ask(f"weather {trial.mark}? {trial.server.call} [[result]]", tools=[WEATHER])
    if not reply.calls:
        return no(f"no call came back: {shown(reply)}")
    call = reply.calls[0]
    arguments = _json(call["function"]["arguments"])
    if (call["function"]["name"], arguments) != ("get_weather", {"city": "Oslo"}):
        return no(f"another call came back: {call['function']}")
    result = f"7 degrees {trial.mark}-oslo"
    talk.said.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    talk.ask(None, tools=[WEATHER])
    got = orjson.dumps(trial.newest(result)["messages"]).decode()
    if '"tool_result"' in got:
        return yes("the call came back, and its result reached the model as one")
    return partly("calls are asked for in words; the result is pasted into the prompt")


def schema(trial: Trial) -> Seen:
    """Ask for an object by a schema."""
    note = f"shape-{trial.mark}"
    shape = {
        "type": "object",
        "description": note,
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    wished = {"type": "json_schema", "json_schema": {"name": "place", "schema": shape, "strict": True}}
    reply = trial.asker.converse().ask(
        'which town? [[tool StructuredOutput {"city": "Oslo"}]]', response_format=wished
    )
    if _json(reply.text) == {"city": "Oslo"}:
        return yes("an object that fits came back")
    if any(note in orjson.dumps(body).decode() for body in trial.model.requests()):
        return partly(f"the model was told of the schema, but {shown(reply)}")
    return no(f"the model never sees the schema; {shown(reply)}")


def stop(trial: Trial) -> Seen:
    """Ask for an answer that ends before a word."""
    reply = trial.asker.converse().ask("[[say one two END three]]", stop=["END"])
    kept = reply.text.strip() == "one two" and reply.finish == "stop"
    return yes("it ends there") if kept else no(shown(reply))


def limit(trial: Trial) -> Seen:
    """Ask for five tokens of fifty."""
    reply = trial.asker.converse().ask("[[words 50]]", max_tokens=5)
    words = len(reply.text.split())
    what = f"{words} of 50 words came, finish_reason {reply.finish}"
    return yes(what) if reply.finish == "length" and words <= 5 else no(what)


def image(trial: Trial) -> Seen:
    """Show an image."""
    url = {"url": f"data:image/png;base64,{base64.b64encode(IMAGE.read_bytes()).decode()}"}
    content = [
        {"type": "text", "text": f"look {trial.mark}-eye [[say good]]"},
        {"type": "image_url", "image_url": url},
    ]
    reply = trial.asker.converse().ask(content)
    bodies = trial.received(f"{trial.mark}-eye")
    if any('"image","source"' in orjson.dumps(body["messages"]).decode() for body in bodies):
        return yes("the model got the image")
    if any(re.search(r"\.(png|img)\b", text) for body in bodies for _, text in dialogue(body)):
        return partly("the model got the path of a file, to read it by a tool")
    return no(f"the model got no image; {shown(reply)}")


def plain(trial: Trial) -> Seen:
    """Send prompts that a command line or Claude Code would take for more than text."""
    secret = trial.directory / "outside.txt"
    secret.write_text(f"sesame-{trial.mark}")
    trial.model.forget()
    option = trial.asker.converse().ask("--version")
    if not trial.received("--version"):
        return no(f"the prompt --version never reaches the model; {shown(option)}")
    trial.asker.converse().ask(f"see @{secret} [[say good]]")
    if trial.received(f"sesame-{trial.mark}"):
        return no(f"@{secret.name} in a prompt brings the file to the model")
    return yes("the model got them as they were")


def agent(trial: Trial) -> Seen:
    """Have Claude run a command in its workspace; if it may not, have it read a file there."""
    assert trial.running is not None
    made = trial.running.spot.work / f"made-{trial.mark}"
    told = shown(_uses(trial, "Bash", command=f"touch {made}", description="touch"))
    if made.exists():
        return yes("it ran a command in the workspace")
    made.write_text("it is there")
    if "it is there" in _uses(trial, "Read", file_path=str(made)).text:
        return partly(f"it reads files; a command: {told}")
    return no(told)


def _uses(trial: Trial, name: str, **arguments: str) -> Reply:
    call = orjson.dumps(arguments).decode()
    return trial.asker.converse().ask(f"[[tool {name} {call}]] [[result]]")


def responses(trial: Trial) -> Seen:
    """Ask by OpenAI's newer API."""
    word = f"good-{trial.mark}"
    reply = trial.asker.post("responses", {"model": trial.server.model, "input": f"[[say {word}]]"})
    told = f"{reply.status} {reply.raw[:LINE].decode(errors='replace')}"
    return yes("answered") if reply.status == 200 and word.encode() in reply.raw else no(told)


def foreign_name(trial: Trial) -> Seen:
    """Ask for a model of OpenAI's, as a client that can't be told of others does."""
    reply = trial.asker.converse().ask(f"{trial.mark}-name [[say good]]", model="gpt-4o")
    got = {str(body["model"]) for body in trial.received(f"{trial.mark}-name")}
    if reply.text == "good" and all("claude" in name for name in got):
        return yes(f"the model's API was asked for {', '.join(sorted(got))}")
    return no(f"the model's API was asked for {', '.join(sorted(got)) or 'nothing'}; {shown(reply)}")


# What goes wrong ---------------------------------------------------------------------------------------


LIMITED: Final = re.compile(r"(?i)429|limit|too many")
UNKNOWN: Final = re.compile(r"(?i)401|api.?key|authent|credential|log.?in")
"""What an error says of its cause, in whatever words."""


def busy(trial: Trial) -> Seen:
    """Have the model's API say 429."""
    return _failure(trial, 429, LIMITED, lambda reply: reply.status == 429)


def key(trial: Trial) -> Seen:
    """Have the model's API say 401."""
    return _failure(trial, 401, UNKNOWN, lambda reply: reply.status >= 400)


def _failure(trial: Trial, status: int, cause: re.Pattern[str], fits: Callable[[Reply], bool]) -> Seen:
    """Judge two answers, one of them streamed: whether the status fits and the error tells the cause."""
    judged, told = [], []
    for stream in (False, True):
        try:
            reply = trial.asker.converse().ask(f"[[error {status}]]", stream=stream)
            clear = reply.error is not None and cause.search(reply.error) is not None
            judged.append((clear, clear and fits(reply)))
            told.append(shown(reply))
        except FAILURES as error:
            judged.append((False, False))
            told.append(fault(trial, error))
    what = f"{told[0]}; streamed: {told[1]}"
    if all(full for _, full in judged):
        return yes(what)
    # A stream may have begun; then an error event is all that is left.
    return (partly if any(clear for clear, _ in judged) else no)(what)


def deltas(trial: Trial) -> Seen:
    """Have the model speak for a second."""
    reply = trial.asker.converse().ask("[[delay 100]] [[words 11]]")
    if reply.first is None:
        return no(shown(reply))
    spread = reply.total - reply.first
    what = f"{len(reply.contents)} pieces over {spread:.1f} s"
    return yes(what) if spread > 0.5 and len(reply.contents) > 5 else no(what)


def leaves(trial: Trial) -> Seen:
    """Leave in the middle of an answer, and look whether the model goes on."""
    before = trial.model.stats()["active"]
    with trial.asker.converse().open("[[delay 50]] [[words 600]]") as exchange:
        if until(lambda: trial.model.stats()["active"] > before, 20) is None:
            return no("the turn never began")
        exchange.glance(exchange.now + 0.5)
    seconds = until(lambda: trial.model.stats()["active"] <= before, WATCH_SECONDS)
    if seconds is None:
        return no(f"the turn runs on: after {WATCH_SECONDS:g} s the model still answers")
    what = f"the turn ended after {seconds:.1f} s"
    return (yes if seconds <= GONE_SECONDS else partly)(what)


def origin(trial: Trial) -> Seen:
    """Ask as a browser does for a page of somebody else's."""
    status, allowed = trial.asker.preflight(ORIGIN)
    if status < 300 and allowed in {"*", ORIGIN}:
        return no(f"any page may ask: the preflight allows {allowed}")
    headers = {"Content-Type": "text/plain", "Origin": ORIGIN}
    reply = trial.asker.converse().ask("[[say hello]]", headers)
    if reply.status < 300:
        return partly("the preflight is refused, but a page's plain POST is answered")
    return yes(f"refused: {reply.status}")


# All of them -------------------------------------------------------------------------------------------

BEHAVIOURS: Final[Mapping[str, Callable[[Trial], Seen]]] = {
    "streams as the model speaks": deltas,
    "a foreign history as true messages": history,
    "a new conversation knows no other": another,
    "goes on after a restart of the server": restart,
    "function tools are called for real": tool,
    "`response_format` json_schema": schema,
    "`stop`": stop,
    "`max_tokens`": limit,
    "images": image,
    "a prompt is text and nothing more": plain,
    "Claude's own tools work in the workspace": agent,
    "the Responses API": responses,
    "a model name of OpenAI's is taken": foreign_name,
    "upstream 429 is a 429": busy,
    "upstream 401 is a clear error": key,
    "another page's Origin is refused": origin,
    "a turn ends when its client goes": leaves,
}
LEAVES_NOTHING: Final = "no process outlives the server"


def watch(
    server: Server, program: Path, directory: Path, model: Model, tell: Callable[[str], None]
) -> dict[str, Seen]:
    """Watch a server do all of it."""
    trial = Trial(server, program, directory, model)
    seen: dict[str, Seen] = {}
    with closing(trial):
        trial.start()
        for name, look in BEHAVIOURS.items():
            tell(f"behaviour of {server.name}: {name}")
            seen[name] = _look(look, trial)
        left = trial.stop()
        seen[LEAVES_NOTHING] = no(f"{left} lived on") if left else yes("none did")
    return seen


def _look(look: Callable[[Trial], Seen], trial: Trial) -> Seen:
    """Look, and take a failure for what it is; a server that has died is started again."""
    trial.model.forget()
    try:
        return look(trial)
    except FAILURES as error:
        return no(fault(trial, error))


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
