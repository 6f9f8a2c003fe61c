"""An operator, who answers what Claude asks to be allowed, over the control socket."""

from pathlib import Path
from typing import Any

import httpx

from tests.support.daemon import Json, eventually


class Operator:
    """Sees and answers permission requests."""

    def __init__(self, socket: Path) -> None:
        transport = httpx.HTTPTransport(uds=str(socket))
        self._http = httpx.Client(transport=transport, base_url="http://localhost", timeout=30)

    def close(self) -> None:
        self._http.close()

    def open(self, conversation: str | None = None) -> list[Json]:
        """Return the open requests, of one conversation or all."""
        requests: list[Json] = self._http.get("/v1/requests").raise_for_status().json()
        return [it for it in requests if conversation in {None, it["conversation"]}]

    def asked(self, conversation: str, count: int = 1) -> list[Json]:
        """Wait until a conversation has so many open requests; return them."""
        return eventually(lambda: found if len(found := self.open(conversation)) == count else [])

    def gone(self, conversation: str) -> None:
        """Wait until a conversation has none."""
        eventually(lambda: not self.open(conversation))

    def answer(self, request: Json, decision: str, **more: Any) -> int:
        """Answer a request; return the status."""
        body = {"decision": decision, **more}
        return self._http.post(f"/v1/requests/{request['id']}", json=body).status_code

    def interrupt(self, conversation: str) -> bool:
        """Interrupt a conversation's turn; return whether one ran."""
        answer = self._http.post(f"/v1/conversations/{conversation}/interrupt").raise_for_status()
        return bool(answer.json()["interrupted"])

    def allow(self, conversation: str, **more: Any) -> Json:
        """Wait for a conversation's only request, and allow it."""
        (request,) = self.asked(conversation)
        assert self.answer(request, "allow", **more) == 200
        return request

    def deny(self, conversation: str, **more: Any) -> Json:
        """Wait for a conversation's only request, and deny it."""
        (request,) = self.asked(conversation)
        assert self.answer(request, "deny", **more) == 200
        return request
