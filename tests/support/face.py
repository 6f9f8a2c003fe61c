"""The API with no sockets and no workers: a service behind it that answers at once, or when it is told."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx

from claude_coded.aside import Aside
from claude_coded.errors import NotRecorded
from claude_coded.history import read
from claude_coded.http.app import Api
from claude_coded.http.resources import About
from claude_coded.kept import KeptResponse, Stand
from claude_coded.metrics import Metrics
from claude_coded.models import Models
from claude_coded.planning import Located
from claude_coded.service import TurnService
from claude_coded.settings import Settings, load
from claude_coded.turn import AnswerEvent, Options, TextDelta, TurnFinished, TurnRequest


class FullStore:
    """A store that holds nothing, and whose disk is full."""

    async def keep_response(self, _: KeptResponse) -> None:
        raise NotRecorded("database or disk is full")

    async def stand(self, _tenant: str, _id: str) -> Stand | None:
        return None

    async def response(self, _tenant: str, _id: str) -> KeptResponse | None:
        return None


@dataclass
class Service:
    """Answers every turn with its number while `gate` is open, and notes what it was asked."""

    models: Models
    settings: Settings
    asked: list[TurnRequest] = field(default_factory=list)
    store: FullStore = field(default_factory=FullStore)
    aside: Aside = field(default_factory=Aside)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    async def locate(self, request: TurnRequest) -> Located:
        self.asked.append(request)
        self.reached.set()
        if self.failure is not None:
            raise self.failure
        return Located(request, read(request))

    def is_ready(self, _: Located) -> bool:
        return self.gate.is_set()

    async def run(self, located: Located) -> AsyncIterator[list[AnswerEvent]]:
        text = f"turn {len(self.asked)} of {located.request.key.tenant}"
        await self.gate.wait()
        yield []
        yield [TextDelta(text), TurnFinished()]

    def now(self) -> float:
        return 7.5


class Face:
    """The app in front of such a service, on one loop; `keys` are clients' by tenant."""

    def __init__(
        self,
        loop: asyncio.Runner,
        workspace: Path,
        keys: Mapping[str, str] | None = None,
        **environment: str,
    ) -> None:
        self._loop = loop
        settings = load({}, {"WORKSPACE_DIR": str(workspace), **environment})
        self.service = Service(Models(), settings)
        about = About("1", "2", 0.0, lambda: 0.0)
        self.app = Api(cast("TurnService", self.service), keys or {}, about, Metrics("1", "2", lambda: 0.0))

    def post(self, headers: Mapping[str, str], **more: Any) -> httpx.Response:
        body = {"model": "claude-code", "messages": [{"role": "user", "content": "hi"}], **more}
        return self.send("/v1/chat/completions", body, headers)

    def send(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Response:
        return self._loop.run(self.request("POST", path, json=body, headers=headers))

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=cast("Any", self.app))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    @property
    def options(self) -> Options:
        return self.service.asked[-1].options
