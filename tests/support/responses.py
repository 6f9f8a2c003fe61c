"""A client of the Responses API: every response and every event fits the schemas."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final

import httpx

from tests.support.daemon import REQUEST_SECONDS, Answer, Daemon, Json
from tests.support.schemas import check, check_event

PATH: Final = "/v1/responses"


def respond(daemon: Daemon, given: str | list[Json], **more: Any) -> Answer:
    """Return the answer to a request that is not streamed."""
    headers = more.pop("headers", {})
    answer = daemon.request("POST", PATH, json=body(given, **more), headers=headers)
    if answer.ok:
        check("Response", answer.body, exact=False)
    return answer


def body(given: str | list[Json], **more: Any) -> Json:
    return {"model": "claude-code", "input": given, **more}


def text_of(response: Json) -> str:
    """Return the text of a response's messages."""
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"])


def said(answer: Answer) -> Any:
    """Return a response's text, read as JSON: what `[[recall]]` and the like say."""
    assert answer.ok, answer.body
    return json.loads(text_of(answer.body))


def calls_of(response: Json) -> list[Json]:
    return [item for item in response["output"] if item["type"].endswith("_call")]


class Events:
    """A streamed response on its way."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.read: list[Json] = []
        self.ended = False
        self._lines = response.iter_lines()

    def __iter__(self) -> Iterator[Json]:
        kind = ""
        for line in self._lines:
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line == "data: [DONE]":
                self.ended = True
            elif line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                assert event["type"] == kind
                assert event["sequence_number"] == len(self.read)
                check_event(event)
                self.read.append(event)
                yield event

    def until(self, text: str) -> None:
        """Read until the answer contains a text."""
        told = ""
        for event in self:
            told += event["delta"] if event["type"] == "response.output_text.delta" else ""
            if text in told:
                return
        raise AssertionError(f"the stream ended before {text!r}: {told!r}")

    def last(self) -> Json:
        """Read to the end; return the response that the last event tells."""
        for _ in self:
            pass
        assert self.ended
        response: Json = self.read[-1]["response"]
        return response


@contextlib.contextmanager
def streaming(daemon: Daemon, given: str | list[Json], **more: Any) -> Iterator[Events]:
    """Ask for a streamed response on a connection of its own."""
    headers = {**daemon.headers, **more.pop("headers", {})}
    url = daemon.base_url + PATH
    with (
        httpx.Client(timeout=REQUEST_SECONDS, trust_env=False) as client,
        client.stream("POST", url, json=body(given, stream=True, **more), headers=headers) as response,
    ):
        yield Events(response)
