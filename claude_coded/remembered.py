"""What is kept in memory of what was used last: so many values, and so much of them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SHARE: Final = 16
"""A value that would take more than this part of the room is not kept: it would push out too many."""


class Remembered(Generic[K, V]):
    """Values by key, up to a `count` and a `size`; `size_of` tells what one takes of that.

    Those that were put or used the longest ago make room.
    """

    def __init__(self, size_of: Callable[[V], int], *, count: int, size: int) -> None:
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size_of = size_of
        self._count = count
        self._size = size
        self._taken = 0

    def __iter__(self) -> Iterator[tuple[K, V]]:
        """Yield the keys and values."""
        return iter([(key, value) for key, (value, _) in self._values.items()])

    def look(self, key: K) -> V | None:
        """Return a value; None where there is none."""
        found = self._values.get(key)
        return found[0] if found is not None else None

    def use(self, key: K) -> V | None:
        """Return a value, which was used now; None where there is none."""
        if key in self._values:
            self._values.move_to_end(key)
        return self.look(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value, unless it is too large."""
        self.drop(key)
        size = self._size_of(value)
        if size > self._size // SHARE:
            return
        self._values[key] = value, size
        self._taken += size
        while len(self._values) > self._count or self._taken > self._size:
            _, (_, left) = self._values.popitem(last=False)
            self._taken -= left

    def drop(self, key: K) -> None:
        """Forget a value, if it is there."""
        _, size = self._values.pop(key, (None, 0))
        self._taken -= size
