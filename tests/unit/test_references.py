"""Items that stand for those of a kept response: it is read once, and they are so much in all."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from claude_coded.kept import KeptResponse
from claude_coded.openai.responses.items import kept_items, page
from claude_coded.turn import ConversationKey, Message, Role
from tests.support.face import Face, FullStore

SERIAL = "0" * 32
LONG = "x" * 10_000
GIVEN = [
    {"type": "message", "role": "user", "content": text, "id": f"msg_{SERIAL}_i{number}"}
    for number, text in enumerate(("short", LONG))
]
ANSWER = {"type": "message", "role": "assistant", "content": "so", "id": f"msg_{SERIAL}_0"}
BODY = json.dumps({"id": "r", "output": [ANSWER]}).encode()


class OneKept(FullStore):
    """A store that holds one response."""

    reads = 0

    async def response(self, _tenant: str, id_: str) -> KeptResponse | None:
        self.reads += 1
        if SERIAL not in id_:
            return None
        key = ConversationKey("default", "c")
        return KeptResponse(id_, key, 1, "", BODY, json.dumps(GIVEN).encode(), 0.0)


def ask(directory: Path, *ids: str) -> tuple[httpx.Response, OneKept, Face]:
    items: list[Any] = [{"type": "item_reference", "id": id_} for id_ in ids]
    items.append({"role": "user", "content": "more"})
    with asyncio.Runner() as loop:
        face = Face(loop, directory, CLAUDE_CODED_MAX_BODY_BYTES="1000000")
        face.service.store = store = OneKept()
        body = {"model": "claude-code", "input": items, "store": False}
        return face.send("/v1/responses", body, {}), store, face


def test_a_response_is_read_once_however_many_items_refer_to_it(tmp_path: Path) -> None:
    ids = [f"msg_{SERIAL}_i0", f"msg_{SERIAL}_0"] * 500
    answer, store, face = ask(tmp_path, *ids)
    assert answer.status_code == 200
    assert store.reads == 1
    messages = face.service.asked[-1].messages
    assert messages[:2] == (Message.of(Role.USER, "short"), Message.of(Role.ASSISTANT, "so"))
    assert len(messages) == len(ids) + 1


def test_what_items_refer_to_is_no_longer_than_a_request_may_be(tmp_path: Path) -> None:
    answer, _, face = ask(tmp_path, *[f"msg_{SERIAL}_i1"] * 150)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input[99]"
    assert not face.service.asked


def test_an_item_that_is_not_there_is_named(tmp_path: Path) -> None:
    answer, _, _ = ask(tmp_path, f"msg_{SERIAL}_i0", f"msg_{SERIAL}_i7")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input[1].id"


def test_only_the_items_that_are_wanted_are_decoded() -> None:
    text = json.dumps(GIVEN).encode()
    assert list(kept_items(BODY, text, {f"msg_{SERIAL}_i0"})) == [f"msg_{SERIAL}_i0"]


def test_items_come_in_pages() -> None:
    given = json.dumps([{"id": f"i{n}"} for n in range(5)]).encode()

    def ids(limit: int, *, newest_first: bool = False, after: str | None = None) -> tuple[list[str], bool]:
        told = json.loads(page(given, limit, newest_first=newest_first, after=after))
        shown = [item["id"] for item in told["data"]]
        assert (told["first_id"], told["last_id"]) == ((shown[0], shown[-1]) if shown else (None, None))
        return shown, told["has_more"]

    assert ids(2) == (["i0", "i1"], True)
    assert ids(2, newest_first=True) == (["i4", "i3"], True)
    assert ids(2, after="i1") == (["i2", "i3"], True)
    assert ids(2, after="i2") == (["i3", "i4"], False)
    assert ids(9, newest_first=True, after="i1") == (["i0"], False)
    assert ids(2, after="elsewhere") == ([], False)
