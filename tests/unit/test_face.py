"""Who is let in, how often and with how many turns at once, by the app with no workers behind it."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from claude_coded.errors import CodedError, UpstreamError
from claude_coded.planning import Located
from claude_coded.turn import AnswerEvent, TurnFailed
from tests.support.face import Face

JOE = {"Authorization": "Bearer key-of-joe"}
ANN = {"Authorization": "Bearer key-of-ann"}
KEYS = {"joe": "key-of-joe", "ann": "key-of-ann"}
CHAT = {"model": "claude-code", "messages": [{"role": "user", "content": "hi"}]}
RESPONSE = {"model": "claude-code", "input": "hi"}
ENDPOINTS = [("/v1/chat/completions", CHAT), ("/v1/responses", RESPONSE)]


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as loop:
        yield loop


def code(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["code"]


def headers(answer: httpx.Response) -> Mapping[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit-")}


# Requests a minute -----------------------------------------------------------------------------------------


def test_a_key_may_send_so_many_requests_a_minute(loop: asyncio.Runner, tmp_path: Path) -> None:
    face = Face(loop, tmp_path, KEYS, CLAUDE_CODED_KEY_RATE="2")
    answers = [face.post(JOE) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [headers(answer)["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    refused = answers[-1]
    assert refused.json()["error"]["type"] == "requests"
    assert code(refused) == (429, "rate_limit_exceeded")
    assert 25 <= int(refused.headers["retry-after"]) <= 30
    assert 0 < float(headers(refused)["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    assert len(face.service.asked) == 2
    assert face.post(ANN).status_code == 200


def test_neither_who_is_not_let_in_nor_who_asks_for_health_costs_a_key_anything(
    loop: asyncio.Runner, tmp_path: Path
) -> None:
    face = Face(
        loop, tmp_path, KEYS, CLAUDE_CODED_KEY_RATE="1", CLAUDE_CODED_ALLOWED_ORIGINS="https://a.example"
    )
    page = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    before = [
        loop.run(face.request("OPTIONS", "/v1/chat/completions", headers={**JOE, **page})),
        loop.run(face.request("GET", "/v1/models", headers={"Authorization": "Bearer other"})),
        loop.run(face.request("GET", "/v1/models", headers={**JOE, "Host": "evil.example"})),
        loop.run(face.request("POST", "/health", headers=JOE)),
    ]
    assert [answer.status_code for answer in before] == [204, 401, 403, 405]
    assert not any(headers(answer) for answer in before)
    assert face.post(JOE).status_code == 200
    assert face.post(JOE).status_code == 429


def test_without_a_limit_nothing_is_told_of_one(loop: asyncio.Runner, tmp_path: Path) -> None:
    answer = Face(loop, tmp_path, KEYS).post(JOE)
    assert answer.status_code == 200
    assert not headers(answer)


def test_with_no_keys_all_callers_are_one(loop: asyncio.Runner, tmp_path: Path) -> None:
    face = Face(loop, tmp_path, CLAUDE_CODED_KEY_RATE="1")
    assert [face.post(JOE).status_code, face.post(ANN).status_code] == [200, 429]


# Turns at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("named", [False, True], ids=["", "with an idempotency key"])
def test_a_key_has_so_many_turns_at_once(
    loop: asyncio.Runner, tmp_path: Path, path: str, body: dict[str, object], stream: bool, named: bool
) -> None:
    face = Face(loop, tmp_path, KEYS, CLAUDE_CODED_KEY_CONCURRENCY="1")
    kept = {"Idempotency-Key": "first"} if named else {}
    body = {**body, "stream": stream}

    async def test() -> None:
        face.service.gate.clear()
        first = asyncio.ensure_future(face.request("POST", path, json=body, headers={**JOE, **kept}))
        await face.service.reached.wait()
        refused = await face.request("POST", path, json=body, headers=JOE)
        assert code(refused) == (429, "concurrency_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
        others = [asyncio.ensure_future(face.request("POST", path, json=body, headers=ANN))]
        if named:  # who follows a turn begins none
            others.append(
                asyncio.ensure_future(face.request("POST", path, json=body, headers={**JOE, **kept}))
            )
        await asyncio.sleep(0.01)
        face.service.gate.set()
        assert [answer.status_code for answer in await asyncio.gather(first, *others)] == [200] * (
            1 + len(others)
        )
        for _ in range(3):
            assert (await face.request("POST", path, json=body, headers=JOE)).status_code == 200

    loop.run(test())


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
def test_a_turn_that_never_began_or_lost_its_client_counts_no_more(
    loop: asyncio.Runner, tmp_path: Path, path: str, body: dict[str, object]
) -> None:
    face = Face(loop, tmp_path, KEYS, CLAUDE_CODED_KEY_CONCURRENCY="1")
    face.service.failure = UpstreamError("down")
    assert face.send(path, body, JOE).status_code == 502
    face.service.failure = None

    async def leave(streamed: bool) -> None:
        face.service.gate.clear()
        face.service.reached.clear()
        asking = asyncio.ensure_future(
            face.request("POST", path, json={**body, "stream": streamed}, headers=JOE)
        )
        await face.service.reached.wait()
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        face.service.gate.set()

    for streamed in (False, True):
        loop.run(leave(streamed))
        assert face.send(path, body, JOE).status_code == 200


def test_other_limits_count_from_the_next_request_on(loop: asyncio.Runner, tmp_path: Path) -> None:
    face = Face(loop, tmp_path, KEYS)
    assert face.post(JOE).status_code == 200
    limited = Face(loop, tmp_path, KEYS, CLAUDE_CODED_KEY_RATE="1").service.settings
    face.app.configure(limited, KEYS)
    assert [face.post(JOE).status_code for _ in range(2)] == [200, 429]
    face.app.configure(face.service.settings, KEYS)
    assert face.post(JOE).status_code == 200


# What is ignored -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
def test_what_is_ignored_is_named_in_a_short_header(
    loop: asyncio.Runner, tmp_path: Path, path: str, body: dict[str, object]
) -> None:
    unknown = {"x" * 100_000: 1, **{f"y{n}": 1 for n in range(10_000)}}
    answer = Face(loop, tmp_path).send(path, {**body, "store": False, **unknown}, {})
    assert answer.status_code == 200
    named = answer.headers["x-claude-coded-ignored"]
    assert "x" * 64 in named
    assert "y0" in named
    assert len(named) < 1000


# What fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
def test_nothing_of_a_request_is_left_with_the_error_that_it_met(
    loop: asyncio.Runner, tmp_path: Path, path: str, body: dict[str, object]
) -> None:
    """The collector counts objects, not bytes: some large bodies would wait for it."""
    face, met = Face(loop, tmp_path), list[weakref.ref[CodedError]]()

    async def fails(_: Located) -> AsyncIterator[list[AnswerEvent]]:
        error = UpstreamError("it fails")
        met.append(weakref.ref(error))
        yield [TurnFailed(error)]

    face.service.run = fails  # type: ignore[method-assign, assignment]
    gc.disable()
    try:
        assert face.send(path, {**body, "store": False}, {}).status_code == 502
        loop.run(asyncio.sleep(0))
        assert [error() for error in met] == [None]
    finally:
        gc.enable()
