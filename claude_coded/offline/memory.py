"""What the model keeps from one request to the next: the prompts it has cached, the faults it has had."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import orjson

from claude_coded.offline.request import Conversation, Json, blocks

KEYS_KEPT: Final = 4096


class _Tally:
    """Counts keys, and forgets those that were counted the longest ago."""

    def __init__(self) -> None:
        self._counts: OrderedDict[bytes, int] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._counts

    def add(self, key: bytes) -> int:
        """Count a key once more; return how often it was counted before."""
        before = self._counts.pop(key, 0)
        self._counts[key] = before + 1
        if len(self._counts) > KEYS_KEPT:
            self._counts.popitem(last=False)
        return before


class Faults:
    """Knows how often each fault of each conversation has happened."""

    def __init__(self) -> None:
        self._happened = _Tally()

    def happens(self, conversation: Conversation, index: int, times: int | None) -> bool:
        """Count one more run of the script's step at `index`; tell whether it's still to happen."""
        if times is None:
            return True
        key = orjson.dumps([conversation.body.get("metadata"), conversation.texts, index])
        return self._happened.add(hashlib.blake2b(key, digest_size=16).digest()) < times


class PromptCache:
    """Imitates prompt caching: knows the longest earlier request that a request begins with."""

    def __init__(self) -> None:
        self._known = _Tally()

    def usage(self, body: Json) -> Json:
        """Return the input usage and remember the request as a prefix.

        The newest message is `input_tokens`, what came before it is read from the cache or written to it.
        """
        digest = hashlib.blake2b(digest_size=16)
        total = newest = cached = 0
        for data in _prompt(body):
            digest.update(b"%d:%b" % (len(data), data))
            newest = _tokens(data)
            total += newest
            if digest.digest() in self._known:
                cached = total
        self._known.add(digest.digest())
        fresh = min(newest, total - cached)
        return {
            "input_tokens": fresh,
            "cache_creation_input_tokens": total - cached - fresh,
            "cache_read_input_tokens": cached,
        }


def count_tokens(body: Json) -> int:
    """Return the size of a request's prompt."""
    return sum(map(_tokens, _prompt(body)))


def _tokens(data: bytes) -> int:
    return len(data) // 4


def _prompt(body: Json) -> Iterator[bytes]:
    """Yield the system prompt and each message, as bytes that stay the same when cache marks move."""
    for content in (body.get("system"), *(message.get("content") for message in body["messages"])):
        kept = ({key: block[key] for key in block if key != "cache_control"} for block in blocks(content))
        yield b"".join(map(orjson.dumps, kept))
