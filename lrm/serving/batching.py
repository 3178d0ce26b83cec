"""Micro-batching: questions that arrive within a few milliseconds of each other are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """A queue in front of a function that answers many questions at once.

    While one batch is being answered the next one gathers, so waiting costs nothing under load. Answers never depend on
    which questions shared a batch; an error is every sharer's error.
    """

    def __init__(
        self, answer: Callable[[list[Q]], Awaitable[list[A]]], *, max_size: int = 32, max_wait_s: float = 0.002
    ) -> None:
        self._answer, self._max_size, self._max_wait_s = answer, max_size, max_wait_s
        self._waiting: asyncio.Queue[tuple[Q, asyncio.Future[A]]] = asyncio.Queue()

    async def ask(self, question: Q) -> A:
        """Wait for this question's answer."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        await self._waiting.put((question, future))
        return await future

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            batch = await self._gather()
            try:
                answers = await self._answer([question for question, _ in batch])
            except Exception as error:  # it belongs to those who asked, and must not end the loop
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), one in zip(batch, answers, strict=True):
                if not future.done():  # its caller may have hung up
                    future.set_result(one)

    async def _gather(self) -> list[tuple[Q, asyncio.Future[A]]]:
        batch = [await self._waiting.get()]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._max_wait_s
        while len(batch) < self._max_size:
            try:
                batch.append(await asyncio.wait_for(self._waiting.get(), max(0.0, deadline - loop.time())))
            except TimeoutError:
                break
        return batch
