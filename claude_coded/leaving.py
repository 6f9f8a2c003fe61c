"""What a turn that has ended leaves: its records, and what of its session they are about. Pure.

What was seeded before a turn is a turn of its own, to go on with, or to branch after.
"""

from dataclasses import dataclass

from claude_coded import history
from claude_coded.ask import Turn
from claude_coded.history import Plan, Span, Way
from claude_coded.rows import Record
from claude_coded.turn import Message, ToolCall, Usage


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn leaves its session and its worker.

    The session is `whole` if it can be gone on with after the turn; `left` is to be taken back from it,
    should it be resumed from disk. `keep` is None while that is not known.
    """

    whole: bool = True
    left: tuple[Span, ...] = ()
    keep: bool | None = None
    parked: bool = False


def keep_seeds(plan: Plan, turn: Turn) -> None:
    """Leave what was seeded before the turn, should that be taken back: it is a turn of its own by then.

    A call that was seeded goes with its outcome: no cut parts the two.
    """
    if plan.way is not Way.ANSWER and not _ends_in_calls(plan.seeds):
        turn.keep_seeds(len(plan.seeds))


def records(
    plan: Plan, turn: Turn, answer: Message, usage: Usage, tools: int, *, whole: bool
) -> list[Record]:
    """Return what is to be stored of a turn; each record follows the one before it, its own is the last.

    `tools` is how many of Claude's own the turn has used, `whole` whether its session can be gone on with.
    """
    lead = plan.said[: len(plan.said) - len(plan.asked)]
    said = (*plan.asked, answer)
    before = history.last_digest(plan.digest, lead)
    own = Record(
        said,
        usage,
        _span(plan, turn),
        turn.answer,
        history.last_digest(before, said),
        plan.tools + (tools if whole or turn.open_calls else 0),
        whole=whole,
    )
    return [*_before(plan, lead, Span(turn.ask.uuid_of(plan.own), own.span.first), before), own]


def _before(plan: Plan, lead: tuple[Message, ...], span: Span, digest: bytes) -> list[Record]:
    """Return the records of what a session holds before a turn: what a fork has, and what was seeded."""
    # What a fork holds ends with the message that it was made at: it can be forked there again.
    held, seeded = lead[: len(lead) - len(plan.seeds)], lead[-len(plan.seeds) :] if plan.seeds else ()
    if plan.base is not None or plan.way is not Way.FORK:
        held, seeded = (), lead
    found = []
    if held:
        at_fork = history.last_digest(plan.digest, held)
        found.append(Record(held, Usage(), span, plan.at, at_fork, plan.tools))
    if seeded:
        whole = not _ends_in_calls(seeded)
        found.append(Record(seeded, Usage(), span, "", digest, plan.tools, whole=whole))
    return found


def _span(plan: Plan, turn: Turn) -> Span:
    """Return what the turn wrote, with a call of which it asked the outcome."""
    if plan.way is Way.ANSWER and plan.base is not None:
        return Span(plan.base.span.first, turn.ask.span.last)
    if _ends_in_calls(plan.seeds):
        return turn.ask.span
    return Span(turn.ask.uuid_of(len(plan.seeds)), turn.ask.span.last)


def _ends_in_calls(messages: tuple[Message, ...]) -> bool:
    return bool(messages) and any(isinstance(part, ToolCall) for part in messages[-1].parts)
