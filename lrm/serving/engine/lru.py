"""A bounded memory of what was used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """Values by key, within a bound of bytes: the one unused for longest goes first. Not for several threads."""

    def __init__(self, max_bytes: int, size: Callable[[V], int]) -> None:
        self._max_bytes, self._size = max_bytes, size
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> V | None:
        """The value, which then counts as used; None where there is none."""
        found = self._held.get(key)
        if found is None:
            return None
        self._held.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V) -> None:
        """Hold a value; one that is larger than the bound is not held."""
        self.drop(key)
        size = self._size(value)
        if size > self._max_bytes:
            return
        self._held[key] = (value, size)
        self.n_bytes += size
        while self.n_bytes > self._max_bytes:
            _, (_, freed) = self._held.popitem(last=False)
            self.n_bytes -= freed

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self.n_bytes = 0

    def drop(self, key: K) -> None:
        """Forget a key, if it is held."""
        found = self._held.pop(key, None)
        if found is not None:
            self.n_bytes -= found[1]
