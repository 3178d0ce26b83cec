"""Keep what was used last, within a bound of bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """Hold values by key: the value that is unused for longest is removed first. Not for several threads.

    `LRUCache` raises an error when a value is larger than the bound, and keeps the old value of its key. Here such a
    value is not held, and the old one is removed.
    """

    def __init__(self, max_bytes: int, size: Callable[[V], int]) -> None:
        self._cache: Any = LRUCache(max_bytes, getsizeof=size)

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def n_bytes(self) -> int:
        """Size of all values together."""
        size: int = self._cache.currsize
        return size

    def get(self, key: K) -> V | None:
        """Return the value, which then counts as used; None if the key is not held."""
        value: V | None = self._cache.get(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Hold a value; a value that is larger than the bound is not held."""
        self.drop(key)
        try:
            self._cache[key] = value
        except ValueError:  # larger than the bound
            return

    def clear(self) -> None:
        """Remove all values."""
        self._cache.clear()

    def drop(self, key: K) -> None:
        """Remove a key if it is held."""
        self._cache.pop(key, None)
