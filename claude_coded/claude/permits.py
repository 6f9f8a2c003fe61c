"""What Claude asks leave for: the CLI's question, what "always" would cover, and the answers. Pure.

Facts checked on Claude Code 2.1.331, launched in its mode `default` with `--permission-prompt-tool stdio`:
- It asks (`can_use_tool`) for Edit, Write, WebFetch, WebSearch, tools of MCP servers, Bash commands that it
  does not know to be read-only, and whatever reads outside the workspace. It does not ask for reading within,
  commands like `ls`, `git status` or `sleep`, skills, subagents, timers, a new git worktree, what its own
  settings allow, or what it refuses anyway (by its settings' `deny`, or a write through a link).
- Of several calls in one reply it asks one after the other; a subagent asks beside the main thread, and goes
  on asking after the turn that began it.
- While a question is open its session state is `requires_action`. An interrupt or a rewind of the turn takes
  the question back (`control_cancel_request`); an answer that comes later is ignored.
- Its own suggestions for "always" are not used. That for an edit is to accept all edits; that for `touch *`
  matches every `touch`; those for Bash are to be written into the workspace's settings, where they hold for
  all conversations; a rule given by `--allowedTools` may be more than one (`Bash(echo ),Bash(*)`). None of
  them outlives the process otherwise. So the daemon answers by rules of its own, which match equal questions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from claude_coded.claude.translate import summarize
from claude_coded.claude.wire import ControlRequest

RULE_LIMIT: Final = 2000
"""Longest rule in characters: nobody reads a longer one before agreeing to it for good."""

QUESTION: Final = "AskUserQuestion"

_SUBJECT: Final[Mapping[str, str]] = {
    "Read": "file_path",
    "Edit": "file_path",
    "Write": "file_path",
    "NotebookEdit": "notebook_path",
}
"""Tools whose rule is for a file, whatever is read or written there."""

_COMMANDS: Final = frozenset({"Bash", "Monitor"})
_INCIDENTAL: Final = frozenset({"description", "timeout"})
"""Tools whose rule is for a command, and what of their input does not change what that does."""

_ORIGIN: Final = re.compile(r"(https?://[A-Za-z0-9.-]+(?::[0-9]+)?)(?=[/?#]|\Z)")


@dataclass(frozen=True, slots=True)
class Permit:
    """A question of the CLI: whether a tool may be used so.

    `asked` is the control request's id. `rule` says what else an "always" would cover: the questions that
    have an equal one. It is empty where each question has to be answered by itself.
    """

    asked: str
    tool: str
    input: Mapping[str, Any]
    summary: str
    rule: str


def read(message: ControlRequest) -> Permit | None:
    """Return the question that a control request asks; None if it is another, or none that makes sense."""
    request = message.request
    tool, given = request.get("tool_name"), request.get("input")
    if request.get("subtype") != "can_use_tool" or not isinstance(tool, str) or not isinstance(given, dict):
        return None
    return Permit(message.request_id, tool, given, summarize(given), _rule(tool, given, request))


def allowed(permit: Permit, message: str = "") -> dict[str, Any]:
    """Return the answer that lets it be done; where Claude asks a question, the message is what it gets."""
    given = dict(permit.input)
    if permit.tool == QUESTION and message:
        given["answers"] = dict.fromkeys(_questions(given), message)
    return {"behavior": "allow", "updatedInput": given}


def denied(message: str) -> dict[str, Any]:
    """Return the answer that forbids it. Claude is told the message as the tool's failure, and goes on."""
    return {"behavior": "deny", "message": message}


def _questions(given: Mapping[str, Any]) -> list[str]:
    questions = given.get("questions")
    asked = questions if isinstance(questions, list) else []
    texts = [question.get("question") for question in asked if isinstance(question, dict)]
    return [text for text in texts if isinstance(text, str)]


def _rule(tool: str, given: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """Return the rule: tool and what of its input counts, and the path that made the CLI ask.

    That path is where links lead to: a link that leads elsewhere later makes another question.
    """
    if request.get("requires_user_interaction"):
        return ""
    counts = _counts(tool, given, request)
    text = tool if counts is None else f"{tool} {_json(counts)}"
    if isinstance(path := request.get("blocked_path"), str):
        text += f" at {_json(path)}"
    return text if len(text) <= RULE_LIMIT else ""


def _counts(tool: str, given: Mapping[str, Any], request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what of a tool's input has to be equal; None for nothing, where the CLI would allow the tool."""
    if (subject := _SUBJECT.get(tool)) is not None:
        return {subject: given[subject]} if subject in given else given
    if tool in _COMMANDS:
        return {name: value for name, value in given.items() if name not in _INCIDENTAL}
    if tool == "WebFetch" and (origin := _ORIGIN.match(str(given.get("url")))) is not None:
        return {"origin": origin[1]}
    return None if _suggests_tool(tool, request.get("permission_suggestions")) else given


def _suggests_tool(tool: str, suggestions: object) -> bool:
    """Return whether the CLI suggests to allow a tool whatever its input is, as it does for MCP servers'."""
    some = suggestions if isinstance(suggestions, list) else []
    added = [it for it in some if isinstance(it, dict) and it.get("type") == "addRules"]
    return any(it.get("behavior") == "allow" and it.get("rules") == [{"toolName": tool}] for it in added)


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
