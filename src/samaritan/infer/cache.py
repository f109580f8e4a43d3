"""A cache that forgets what was used longest ago once its contents exceed a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteCache(Generic[T]):
    """Values by key, at most `limit` bytes in all.

    One value larger than the limit is still handed out, but not kept, unless it is among the `least` newest.
    """

    def __init__(self, limit: int, size_of: Callable[[T], int], *, least: int = 0) -> None:
        self.limit, self.least = limit, least
        self.bytes = 0
        self._size_of = size_of
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Hand out the value under `key`, making it where it is not kept."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        self._values[key] = value
        self.bytes += self._size_of(value)
        while self.bytes > self.limit and len(self._values) > self.least:
            self.bytes -= self._size_of(self._values.popitem(last=False)[1])
        return value

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def drop(self, wanted: Callable[[Hashable], bool]) -> None:
        """Forget every value whose key is wanted gone."""
        for key in [key for key in self._values if wanted(key)]:
            self.bytes -= self._size_of(self._values.pop(key))
