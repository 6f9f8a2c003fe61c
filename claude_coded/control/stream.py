"""`GET /v1/events`: what happens, as server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import falcon.asgi
import msgspec

from claude_coded.control import api
from claude_coded.events import Batch, Event, Events

KEEP_ALIVE: Final = 15.0
"""Seconds of quiet after which a comment shows that the stream lives."""


class EventLog:
    """The events that are kept, and with `?follow=true` those to come."""

    def __init__(self, events: Events) -> None:
        self._events = events

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Send the events after `?since=NUMBER` (or Last-Event-ID), by default all that are kept."""
        last = req.get_header("Last-Event-ID") or ""
        since = req.get_param_as_int(
            "since", min_value=0, default=int(last) if last.isdecimal() and len(last) <= api.DIGITS else 0
        )
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-cache")
        follow = bool(req.get_param_as_bool("follow", default=False))
        resp.stream = self._follow(since) if follow else self._kept(since)

    async def _kept(self, since: int) -> AsyncIterator[bytes]:
        yield encode(self._events.since(since))

    async def _follow(self, since: int) -> AsyncIterator[bytes]:
        yield b": events\n\n"
        async for chunk in alive(self._events.follow(since)):
            yield chunk


async def alive(batches: AsyncIterator[Batch]) -> AsyncIterator[bytes]:
    """Yield batches as bytes, and a comment whenever none came for a while."""
    while True:
        following = asyncio.ensure_future(anext(batches, None))
        try:
            while not (await asyncio.wait({following}, timeout=KEEP_ALIVE))[0]:
                yield b": quiet\n\n"
        except BaseException:
            following.cancel()
            raise
        if (batch := following.result()) is None:
            return
        yield encode(batch)


def encode(batch: Batch) -> bytes:
    """Return the events of a batch; the first says how many before it were lost."""
    lost = [batch.missed, *[0] * len(batch.events)]
    return b"".join(_encode(event, missed) for event, missed in zip(batch.events, lost, strict=False))


def _encode(event: Event, missed: int) -> bytes:
    data = msgspec.json.encode(api.Event(event.number, event.at, event.kind, dict(event.fields), missed))
    return server_sent(event.kind, data, str(event.number))


def server_sent(kind: str, data: bytes, number: str = "") -> bytes:
    """Return a server-sent event; the data has no line ends."""
    name = f"id: {number}\nevent: {kind}\n" if number else f"event: {kind}\n"
    return b"%sdata: %s\n\n" % (name.encode(), data)
