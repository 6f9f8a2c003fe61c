"""The requests for permission that wait for an operator, in mode `ask`.

A request is open from Claude's question until it is answered, expires, or is withdrawn because nobody needs
the answer any more. The Desk asks nobody: who shows its requests calls `decide`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from typing import Any, Final, Protocol

from claude_coded.claude.permits import Permit, allowed, denied
from claude_coded.errors import CodedError, InvalidRequest, NotFound
from claude_coded.events import EventKind
from claude_coded.scheduler import worker_name
from claude_coded.turn import ConversationKey

log = logging.getLogger(__name__)

REFUSED: Final = "The operator of this machine does not allow this."
"""What Claude is told of a denial that says no more."""

Tell = Callable[[EventKind, Mapping[str, Any]], None]
"""Gets the kind of an event (`permission.requested`, `.allowed`, `.denied`, `.expired`, `.withdrawn`) and its
fields: request, tenant, conversation, worker, tool; with `requested` also summary and expires_at,
with `allowed` also always, and by: `operator`, or `rule` for what an earlier "always" covers."""


class Rules(Protocol):
    """Where the rules of conversations are kept."""

    async def rules(self, key: ConversationKey) -> frozenset[str]:
        """Return what is always allowed in a conversation."""

    async def add_rule(self, key: ConversationKey, rule: str) -> None:
        """Keep one more."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An operator's answer.

    Claude is told the message of a denial; it is the answer where Claude asks a question. With `always` the
    request's rule holds for its conversation from now on.
    """

    allow: bool
    message: str = ""
    always: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """An open request. Times are Unix seconds; `always` is what "always" would allow, empty if nothing."""

    id: str
    conversation: ConversationKey
    worker: int
    tool: str
    summary: str
    input: Mapping[str, Any]
    always: tuple[str, ...]
    asked_at: float
    expires_at: float


@dataclass(slots=True)
class _Held:
    """A question and who waits for its answer. It has no request before the rules were looked at."""

    id: str
    permit: Permit
    conversation: ConversationKey
    worker: int
    reply: Callable[[Mapping[str, Any]], None] = field(repr=False)
    request: Request | None = None
    timer: asyncio.TimerHandle | None = None


class Desk:
    """Holds the open requests. `timeout` returns seconds, asked anew for each; `wall` Unix seconds."""

    def __init__(
        self,
        rules: Rules,
        *,
        timeout: Callable[[], float],
        wall: Callable[[], float],
        tell: Tell = lambda kind, fields: None,
    ) -> None:
        self._rules = rules
        self._timeout = timeout
        self._wall = wall
        self._tell = tell
        self._numbers = count(1)
        # An answer meant for a request of a daemon before this one must not hit one of this.
        self._mark = token_hex(2)
        self._held: dict[str, _Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> list[Request]:
        """Return the open requests, the oldest first."""
        return [held.request for held in self._held.values() if held.request is not None]

    def ask(
        self, permit: Permit, key: ConversationKey, worker: int, reply: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """Take a worker's question; `reply` gets the answer, once, unless the question is withdrawn."""
        held = _Held(f"{next(self._numbers)}-{self._mark}", permit, key, worker, reply)
        self._held[held.id] = held
        task = asyncio.get_running_loop().create_task(self._consider(held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def decide(self, request_id: str, decision: Decision) -> Request:
        """Answer a request, and return it.

        Raises NotFound if it is not open; InvalidRequest and NotRecorded if "always" cannot be had, and it
        stays open.
        """
        held = self._held.get(request_id)
        if held is None or (request := held.request) is None:
            raise _unknown(request_id)
        if decision.always and not (decision.allow and request.always):
            raise InvalidRequest("this can be answered for this once only, not for always", param="always")
        if not decision.allow:
            self._conclude(held, "denied", denied(decision.message or REFUSED))
            return request
        if decision.always:
            await self._remember(held, request)
        answer = allowed(held.permit, decision.message)
        self._conclude(held, "allowed", answer, by="operator", always=decision.always)
        if decision.always:
            self._allow_equal(held)
        return request

    def withdraw(self, worker: int, asked: str | None = None) -> None:
        """Forget the requests of a worker, or the one that it asked by a control request."""
        for held in list(self._held.values()):
            if held.worker == worker and asked in {None, held.permit.asked}:
                self._conclude(held, "withdrawn", None)

    async def settle(self) -> None:
        """Wait until everything that was begun in the background is done."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Questions -----------------------------------------------------------------------------------------

    async def _consider(self, held: _Held) -> None:
        """Answer a question by what was always allowed, else open a request."""
        covered = bool(held.permit.rule) and held.permit.rule in await self._known(held.conversation)
        if held.id not in self._held:
            return
        if covered:
            self._allow_by_rule(held)
        else:
            self._open(held)

    async def _known(self, key: ConversationKey) -> frozenset[str]:
        try:
            return await self._rules.rules(key)
        except CodedError as error:
            log.warning("rules cannot be read", extra={"conversation": key.id, "error": error.message})
            return frozenset()

    def _open(self, held: _Held) -> None:
        seconds, now, permit = self._timeout(), self._wall(), held.permit
        held.request = Request(
            held.id,
            held.conversation,
            held.worker,
            permit.tool,
            permit.summary,
            permit.input,
            (permit.rule,) if permit.rule else (),
            asked_at=now,
            expires_at=now + seconds,
        )
        held.timer = asyncio.get_running_loop().call_later(seconds, self._expire, held, seconds)
        self._announce(held, "requested", summary=permit.summary, expires_at=now + seconds)

    def _expire(self, held: _Held, seconds: float) -> None:
        why = f"Nobody answered the request to allow this within {seconds:g} seconds."
        self._conclude(held, "expired", denied(why))

    async def _remember(self, held: _Held, request: Request) -> None:
        """Keep the rule; the request is nobody else's meanwhile, and open again if that fails."""
        held.request = None
        try:
            await self._rules.add_rule(held.conversation, held.permit.rule)
        except BaseException:
            held.request = request
            raise
        if held.id not in self._held:
            raise _unknown(held.id)

    # Answers -------------------------------------------------------------------------------------------

    def _allow_equal(self, to: _Held) -> None:
        for held in list(self._held.values()):
            covered = (held.conversation, held.permit.rule) == (to.conversation, to.permit.rule)
            if covered and held.request is not None:
                self._allow_by_rule(held)

    def _allow_by_rule(self, held: _Held) -> None:
        self._conclude(held, "allowed", allowed(held.permit), by="rule", always=True)

    def _conclude(self, held: _Held, how: str, answer: Mapping[str, Any] | None, **more: object) -> None:
        del self._held[held.id]
        if held.timer is not None:
            held.timer.cancel()
        elif answer is None:
            return  # nobody has heard of it
        if answer is not None:
            held.reply(answer)
        self._announce(held, how, **more)

    def _announce(self, held: _Held, how: str, **more: object) -> None:
        key = held.conversation
        fields = {
            "conversation": key.id,
            "worker": worker_name(held.worker),
            "request": held.id,
            "tool": held.permit.tool,
        }
        log.info("permission %s", how, extra=fields)
        self._tell(EventKind(f"permission.{how}"), {"tenant": key.tenant, **fields, **more})


def _unknown(request_id: str) -> NotFound:
    return NotFound(f"no permission request {request_id!r} waits for an answer", param="id")
