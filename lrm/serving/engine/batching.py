"""Micro-batching: questions that wait at the same time are answered together, and no more wait than can be answered.

Questions are of two classes, light and heavy, each with a queue of its own. A batch holds one class: as many light ones
as may be, or heavy ones up to one unit of work. A heavy question with work left then waits again, before those that are
not begun. While both classes wait, each gets half of the time (start-time fair queueing, Goyal et al. 1996): a light
question never waits for more than one unit of heavy work and what is light before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from lrm.serving.engine.rust_panics import EXIT_EXCEPTIONS, RustPanic

Q = TypeVar("Q")
A = TypeVar("A")
PACE_OF = 8
"""Measured units of heavy work of which the quickest says how long one takes, so that a pause tells nothing."""
PACE_S = 10.0
"""Seconds after which that is not known any more, so that a server that was slow once tries again."""
LEAST_MEASURED = 0.5
"""Units from which on work is measured: what is asked once a batch would make less look slow."""


class Overloaded(Exception):  # noqa: N818 - says what happened
    """As many questions wait as may, or as can be answered in time."""


class DeadlineExceeded(Exception):  # noqa: N818 - says what happened
    """The answer was not there in time, or could not have been."""


class Unfinished(NamedTuple, Generic[Q]):
    """What is left of a heavy question after one unit of work."""

    request: Q


class _Waiting(NamedTuple, Generic[Q, A]):
    request: Q
    future: asyncio.Future[A]
    deadline: float


class Batcher(Generic[Q, A]):
    """Bounded queues in front of a function that answers many questions at once.

    While one batch is being answered the next one gathers, so waiting costs nothing under load. Answers never depend on
    which questions shared a batch; an error is every sharer's error.
    """

    def __init__(
        self,
        answer: Callable[[list[Q]], Awaitable[Sequence[A | Unfinished[Q]]]],
        *,
        max_size: int = 32,
        max_batch_delay_s: float = 0.0,
        max_queue: int = 64,
        deadline_s: float | None = 2.0,
        cost_of: Callable[[Q], float] = lambda _: 0.0,
    ) -> None:
        """Prepare; nothing is answered before `run`.

        Args:
            answer: gives one answer for each question of a batch; for a heavy one maybe what is left of it.
            max_size: questions answered together at most.
            max_wait_s: latency budget: how long the first question of a batch waits for company.
            max_waiting: light questions that may wait; of heavy ones half as many may.
            within_s: seconds after which a question is given up; None: never.
            work_of: units of work that a question has left; 0: it is light.
        """
        self._answer, self._max_size, self._max_wait_s = answer, max_size, max_batch_delay_s
        self._max_waiting, self._within_s, self._work_of = max_queue, deadline_s, cost_of
        self._light: deque[_Waiting[Q, A]] = deque()
        self._heavy: deque[_Waiting[Q, A]] = deque()
        self._came = asyncio.Event()
        self._spent = {False: 0.0, True: 0.0}
        """Seconds for which light (False) and heavy questions were answered, or would have been while none waited."""
        self._turn_began = 0.0
        self._paces: deque[float] = deque(maxlen=PACE_OF)
        self._paced_at = float("-inf")
        self.began: float | None = None
        """When the batch that is being answered was begun, in seconds of the event loop; None: there is none."""

    @property
    def n_waiting(self) -> int:
        """Questions in the queues."""
        return len(self._light) + len(self._heavy)

    @property
    def is_full(self) -> bool:
        """Whether the next request would be rejected, even a light one."""
        return len(self._light) >= self._max_waiting

    async def submit(self, request: Q) -> A:
        """Wait for this question's answer.

        Raises:
            Overloaded: too many wait already.
            TooLate: there was no answer in time.
        """
        return (await self.submit_all([request]))[0]

    async def submit_all(self, requests: Sequence[Q]) -> list[A]:
        """Wait for the answers to some questions, of which all are let in or none.

        Raises:
            Overloaded: too many would wait, or heavy ones with more work than can be done in time.
            TooLate: some answer was not there in time.
        """
        loop = asyncio.get_running_loop()
        work = [self._work_of(request) for request in requests]
        n_heavy = sum(one > 0 for one in work)
        if len(self._light) + len(work) - n_heavy > self._max_waiting:
            raise Overloaded
        if n_heavy and not self._has_room(n_heavy, sum(work)):
            raise Overloaded
        deadline = float("inf") if self._within_s is None else loop.time() + self._within_s
        futures: list[asyncio.Future[A]] = [loop.create_future() for _ in requests]
        for request, future, units in zip(requests, futures, work, strict=True):
            self._put(_Waiting(request, future, deadline), is_heavy=units > 0)
        try:
            async with asyncio.timeout(self._within_s):
                return await asyncio.gather(*futures)
        except TimeoutError as error:
            raise DeadlineExceeded from error

    async def run(self) -> None:
        """Answer until cancelled; nothing else ends it."""
        loop = asyncio.get_running_loop()
        while True:
            is_heavy, batch = await self._gather()
            if not batch:
                continue
            self.began = loop.time()
            try:
                self._give(batch, await self._answer([one.request for one in batch]))
            except EXIT_EXCEPTIONS:
                raise
            except BaseException as error:  # it belongs to those who asked, and must not end the loop
                if isinstance(error, asyncio.CancelledError) and (task := asyncio.current_task()) and task.cancelling():
                    raise
                told = error if isinstance(error, Exception) else RustPanic(f"{type(error).__name__}: {error}")
                for one in batch:
                    if not one.future.done():
                        one.future.set_exception(told)
            finally:
                self._account(batch, loop.time() - self.began, is_heavy=is_heavy)
                self.began = None

    def _give(self, batch: Sequence[_Waiting[Q, A]], answers: Sequence[A | Unfinished[Q]]) -> None:
        for one, given in zip(batch, answers, strict=True):
            if one.future.done():  # its caller may have hung up
                continue
            if isinstance(
                given, Unfinished
            ):  # of heavy questions in a batch, which fill one unit together, only the last
                self._put(one._replace(request=given.request), is_heavy=True, is_begun=True)
            else:
                one.future.set_result(given)

    def _put(self, waiting: _Waiting[Q, A], *, is_heavy: bool, is_begun: bool = False) -> None:
        queue = self._heavy if is_heavy else self._light
        if not queue:  # who did not wait saved nothing up
            self._spent[is_heavy] = max(self._spent[is_heavy], self._turn_began)
        if is_begun:
            queue.appendleft(waiting)
        else:
            queue.append(waiting)
        self._came.set()

    async def _gather(self) -> tuple[bool, list[_Waiting[Q, A]]]:
        """Whether heavy questions are next, and the batch, without those who gave up; it may be empty."""
        while not self.n_waiting:
            self._came.clear()
            await self._came.wait()
        if self._max_wait_s and self.n_waiting < self._max_size:
            await asyncio.sleep(self._max_wait_s)
        is_heavy = not self._light or (bool(self._heavy) and self._spent[True] < self._spent[False])
        self._turn_began = self._spent[is_heavy]
        return is_heavy, self._heavy_batch() if is_heavy else self._light_batch()

    def _light_batch(self) -> list[_Waiting[Q, A]]:
        taken = [self._light.popleft() for _ in range(min(self._max_size, len(self._light)))]
        return [one for one in taken if not one.future.done()]

    def _heavy_batch(self) -> list[_Waiting[Q, A]]:
        """Up to one unit of work; what cannot be done before its deadline is told so, and not begun."""
        now, units = asyncio.get_running_loop().time(), 0.0
        batch: list[_Waiting[Q, A]] = []
        while self._heavy and len(batch) < self._max_size:
            one = self._heavy[0]
            left = self._work_of(one.request)
            if batch and units + min(left, 1.0) > 1.0:
                break
            self._heavy.popleft()
            if one.future.done():
                continue
            if now + left * self._seconds_a_unit(now) > one.deadline:
                one.future.set_exception(DeadlineExceeded())
                continue
            batch.append(one)
            units += min(left, 1.0)
        return batch

    def _has_room(self, n_heavy: int, work: float) -> bool:
        """Whether so many more heavy questions may wait, and can be answered in time. A lone one is always tried."""
        if not self._heavy:
            return True
        if len(self._heavy) + n_heavy > max(1, self._max_waiting // 2):
            return False
        waiting = sum(self._work_of(one.request) for one in self._heavy if not one.future.done())
        seconds_a_unit = self._seconds_a_unit(asyncio.get_running_loop().time())
        return self._within_s is None or (waiting + work) * seconds_a_unit <= self._within_s

    def _account(self, batch: Sequence[_Waiting[Q, A]], seconds: float, *, is_heavy: bool) -> None:
        """Remember what a batch took."""
        self._spent[is_heavy] += seconds
        units = sum(min(self._work_of(one.request), 1.0) for one in batch) if is_heavy else 0.0
        if units >= LEAST_MEASURED:
            self._paces.append(seconds / units)
            self._paced_at = asyncio.get_running_loop().time()

    def _seconds_a_unit(self, now: float) -> float:
        """That a unit of heavy work takes at least, while light questions have their share; 0 where it is not known."""
        if not self._paces or now - self._paced_at > PACE_S:
            return 0.0
        return min(self._paces) * (2.0 if self._light else 1.0)
