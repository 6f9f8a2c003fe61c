"""`POST /v1/conversations/{id}/attach`: a conversation in a person's hands, at Claude Code's own terminal.

Its worker is released and everybody else kept out for as long as the response's connection lives. What was
said at the terminal is then read from the CLI's transcript and recorded as a turn: it adds to the
conversation, and changes nothing of the history that clients tell, so that they go on from there.
"""

import asyncio
import contextlib
import logging
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from claude_coded import transcripts
from claude_coded.claude.launch import SECRETS, terminal_arguments
from claude_coded.claude.transcript import Added, read_added
from claude_coded.control import api
from claude_coded.control.peers import connected_users
from claude_coded.control.stream import KEEP_ALIVE, server_sent
from claude_coded.errors import CodedError, NotFound
from claude_coded.history import Conversation, Span
from claude_coded.operations import Operations
from claude_coded.planning import launch_of
from claude_coded.rows import Record
from claude_coded.service import TurnService
from claude_coded.turn import ConversationKey, Usage
from claude_coded.worker import Cli

log = logging.getLogger(__name__)

OWN: Final = (
    *("ANTHROPIC_", "CLAUDE_", "DISABLE_", "IS_SANDBOX", "HOME", "TMPDIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "NODE_EXTRA_CA_CERTS"),
)
"""What a terminal's CLI needs of a worker's environment, by how the names begin."""


class NothingToAttach(CodedError):
    """The conversation has no session that a person could go on with now."""

    status, code = 409, "nothing_to_attach"


class Terminals:
    """Hands conversations to people. `projects` is where the CLI keeps its transcripts."""

    def __init__(
        self, service: TurnService, operations: Operations, cli: Cli, projects: Path, socket: str
    ) -> None:
        self._service = service
        self._operations = operations
        self._cli = cli
        self._projects = projects
        self._socket = socket
        self._closing = asyncio.Event()

    async def begin(self, key: ConversationKey, *, now: bool) -> "Terminal":
        """Take a conversation from everybody else, once its turn has ended, or `now`.

        Raises NotFound, Held, and NothingToAttach where its last turn is not whole.
        """
        stack = contextlib.AsyncExitStack()
        await stack.enter_async_context(self._operations.holding(key, now=now))
        try:
            known = self._able(key, await self._service.store.load(key))
            transcript = self._transcript(known.session)
            return Terminal(self, known, transcript, stack)
        except BaseException:
            await stack.aclose()
            raise

    def close(self) -> None:
        """Let go of all of them: the daemon ends."""
        self._closing.set()

    async def closing_within(self, seconds: float) -> bool:
        """Wait so long for the daemon's end; return whether it comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()

    def introduce(self, known: Conversation) -> api.Attached:
        """Return what to run. Keys go to those only who could read them in the daemon's memory as well."""
        launch = launch_of(known.profile, self._service.settings, root=known.workspace)
        uid = os.getuid()
        trusted = bool(users := connected_users(self._socket)) and users <= {uid, 0}
        return api.Attached(
            command=[str(self._cli.binary), *terminal_arguments(launch, known.session, known.profile.model)],
            directory=str(known.workspace),
            environment=_environment(self._cli.environment, secrets=trusted),
            user=user_name(uid),
            uid=uid,
            session=known.session,
        )

    async def record(self, known: Conversation, added: Added) -> None:
        """Record what was said at a terminal as a turn after the head, at the same place of the history."""
        assert known.head is not None
        span = Span(added.first, added.last)
        tools = known.head.tools + added.tools
        record = Record(added.said, Usage(), span, added.answer, known.head.digest, tools)
        await self._service.store.add(known.key, record, self._service.now())

    def _able(self, key: ConversationKey, known: Conversation | None) -> Conversation:
        if known is None:
            raise NotFound(f"there is no conversation {key.id!r}")
        if known.head is None:
            raise NothingToAttach("no turn of this conversation has finished yet")
        if not known.head.whole:
            raise NothingToAttach("its last turn waits for its client's tools, or was cut short")
        if not known.workspace.is_dir():
            raise NothingToAttach(f"its workspace {known.workspace} does not exist any more")
        return known

    def _transcript(self, session: str) -> Path:
        if (path := transcripts.find(self._projects, session)) is None:
            raise NothingToAttach(
                "Claude Code's transcript of it is gone; the next request rebuilds the session"
            )
        return path


@dataclass(slots=True)
class Terminal:
    """The response: what to run, then comments; Falcon iterates over it, and closes it whatever happens."""

    _terminals: Terminals
    _known: Conversation
    _transcript: Path
    _stack: contextlib.AsyncExitStack
    _size: int = -1

    def __aiter__(self) -> "Terminal":
        return self

    async def __anext__(self) -> bytes:
        """Return the introduction, and later a comment now and then."""
        if self._size < 0:
            self._size = self._transcript.stat().st_size
            return server_sent("attached", msgspec.json.encode(self._terminals.introduce(self._known)))
        if await self._terminals.closing_within(KEEP_ALIVE):
            raise StopAsyncIteration
        return b": attached\n\n"

    async def close(self) -> None:
        """Record what was said, and give the conversation back."""
        try:
            if self._size >= 0:
                await self._record()
        finally:
            await self._stack.aclose()

    async def _record(self) -> None:
        conversation = self._known.key.id
        try:
            added = await asyncio.to_thread(_added, self._transcript, self._size)
            if added is not None:
                await self._terminals.record(self._known, added)
                log.info("recorded what was said at a terminal", extra={"conversation": conversation})
        except (OSError, CodedError) as error:
            log.warning(
                "what was said at a terminal could not be recorded",
                extra={"conversation": conversation, "error": str(error)},
            )


def _added(transcript: Path, size: int) -> Added | None:
    """Return what a transcript has gained; for a thread: it may have become very long."""
    with transcript.open("rb") as file:
        file.seek(size)
        return read_added(file.read())


def user_name(uid: int) -> str:
    """Return a user's name, or number where it has none, as in a container: sudo takes that as `#1000`."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _environment(environment: Mapping[str, str], *, secrets: bool) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.upper().startswith(OWN) and (secrets or name not in SECRETS)
    }
