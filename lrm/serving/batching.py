"""Micro-batching: questions that wait at the same time are answered together, and no more wait than can be answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Overloaded(Exception):  # noqa: N818 - says what happened
    """As many questions wait as may."""


class TooLate(Exception):  # noqa: N818 - says what happened
    """The answer was not there in time."""


class Batcher(Generic[Q, A]):
    """A bounded queue in front of a function that answers many questions at once.

    While one batch is being answered the next one gathers, so waiting costs nothing under load. Answers never depend on
    which questions shared a batch; an error is every sharer's error.
    """

    def __init__(
        self,
        answer: Callable[[list[Q]], Awaitable[list[A]]],
        *,
        max_size: int = 32,
        max_wait_s: float = 0.0,
        max_waiting: int = 64,
        within_s: float | None = 2.0,
    ) -> None:
        """Prepare; nothing is answered before `run`.

        Args:
            answer: gives one answer for each question of a batch.
            max_size: questions answered together at most.
            max_wait_s: latency budget: how long the first question of a batch waits for company.
            max_waiting: questions that may wait.
            within_s: seconds after which a question is given up; None: never.
        """
        self._answer, self._max_size, self._max_wait_s = answer, max_size, max_wait_s
        self._max_waiting, self._within_s = max_waiting, within_s
        self._waiting: asyncio.Queue[tuple[Q, asyncio.Future[A]]] = asyncio.Queue()

    @property
    def n_waiting(self) -> int:
        """Questions in the queue."""
        return self._waiting.qsize()

    @property
    def is_full(self) -> bool:
        """Whether another question would be turned away."""
        return self.n_waiting >= self._max_waiting

    async def ask(self, question: Q) -> A:
        """Wait for this question's answer.

        Raises:
            Overloaded: too many wait already.
            TooLate: there was no answer in time.
        """
        return (await self.ask_all([question]))[0]

    async def ask_all(self, questions: Sequence[Q]) -> list[A]:
        """Wait for the answers to some questions, of which all are let in or none.

        Raises:
            Overloaded: too many would wait.
            TooLate: some answer was not there in time.
        """
        if self.n_waiting + len(questions) > self._max_waiting:
            raise Overloaded
        futures: list[asyncio.Future[A]] = [asyncio.get_running_loop().create_future() for _ in questions]
        for asked in zip(questions, futures, strict=True):
            self._waiting.put_nowait(asked)
        try:
            async with asyncio.timeout(self._within_s):
                return await asyncio.gather(*futures)
        except TimeoutError as error:
            raise TooLate from error

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            batch = await self._gather()
            if not batch:
                continue
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
        """The next batch, without those who gave up; it may be empty."""
        batch = [await self._waiting.get()]
        if self._max_wait_s and self.n_waiting < self._max_size - 1:
            await asyncio.sleep(self._max_wait_s)
        while len(batch) < self._max_size and self.n_waiting:
            batch.append(self._waiting.get_nowait())
        return [(question, future) for question, future in batch if not future.done()]
