"""Questions that arrive together are answered together."""

import asyncio
import selectors
from typing import NamedTuple

import polars as pl
import pytest

from lrm.serving.engine.batching import PACE_S, Batcher, DeadlineExceeded, Overloaded, Unfinished
from lrm.serving.engine.rust_panics import RustPanic


def run(answer, *, requests, max_size=32):
    """What each question got, and the batches they came in."""
    batches = []

    async def counted(batch):
        batches.append(batch)
        return await answer(batch)

    async def everything():
        batcher = Batcher(counted, max_size=max_size, max_batch_delay_s=0.05)
        loop = asyncio.create_task(batcher.run())
        got = await asyncio.gather(*(batcher.submit(request) for request in requests), return_exceptions=True)
        loop.cancel()
        return got

    return asyncio.run(everything()), batches


async def doubled(batch):
    return [2 * request for request in batch]


def test_each_asker_gets_the_own_answer_from_one_batch():
    assert run(doubled, requests=[1, 2, 3]) == ([2, 4, 6], [[1, 2, 3]])


def test_a_batch_is_never_larger_than_asked():
    got, batches = run(doubled, requests=[1, 2, 3], max_size=2)
    assert (got, batches) == ([2, 4, 6], [[1, 2], [3]])


def test_an_error_reaches_all_who_shared_it_and_the_next_batch_is_answered():
    async def odd_fails(batch):
        if 1 in batch:
            raise ValueError("one is too few")
        return await doubled(batch)

    got, _ = run(odd_fails, requests=[1, 2, 3, 4], max_size=2)
    assert [str(one) for one in got[:2]] == ["one is too few"] * 2
    assert got[2:] == [6, 8]


def test_an_asker_who_hangs_up_does_not_stop_the_others():
    async def everything():
        batcher = Batcher(doubled, max_batch_delay_s=0.05)
        loop = asyncio.create_task(batcher.run())
        impatient = asyncio.create_task(batcher.submit(1))
        patient = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        answer = await patient
        loop.cancel()
        return answer

    assert asyncio.run(everything()) == 4


def test_more_than_may_wait_are_turned_away_at_once_and_the_others_are_answered():
    async def everything():
        batcher = Batcher(doubled, max_queue=2)
        waiting = [asyncio.create_task(batcher.submit(request)) for request in (1, 2)]
        await asyncio.sleep(0)
        assert (batcher.n_waiting, batcher.is_full) == (2, True)
        with pytest.raises(Overloaded):
            await batcher.submit(3)
        loop = asyncio.create_task(batcher.run())
        answers = await asyncio.gather(*waiting)
        loop.cancel()
        return answers

    assert asyncio.run(everything()) == [2, 4]


def test_a_question_is_given_up_when_its_time_is_over_and_is_not_answered_later():
    answered = []

    async def slow(batch):
        answered.extend(batch)
        await asyncio.sleep(0.1)
        return batch

    async def everything():
        batcher = Batcher(slow, max_size=1, deadline_s=0.05)
        loop = asyncio.create_task(batcher.run())
        got = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
        await asyncio.sleep(0.1)
        loop.cancel()
        return [type(one) for one in got]

    assert asyncio.run(everything()) == [DeadlineExceeded, DeadlineExceeded]
    assert answered == [1]


class PlantedTime(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while everybody waits, and then at once: what takes how long is planted."""

    def __init__(self):
        super().__init__(Jumping())
        self._selector.loop, self.now = self, 0.0

    def time(self):
        return self.now


class Jumping(selectors.SelectSelector):
    def select(self, timeout=None):
        assert timeout is not None, "everybody waits for ever"
        self.loop.now += timeout
        return super().select(0)


def in_planted_time(everything):
    with asyncio.Runner(loop_factory=PlantedTime) as runner:
        return runner.run(everything)


class PreparedRequest(NamedTuple):
    name: str
    units: float = 0.0
    """Of heavy work that is left."""


LIGHT_S, UNIT_S = 0.01, 0.1
"""What a batch of light questions takes, and a unit of heavy work."""


class Server:
    """A batcher before planted work, and what it was given to do, in order."""

    def __init__(self, **options):
        self.done = []
        self.batcher = Batcher(self.answer, cost_of=lambda asked: asked.units, **options)
        self.loop = asyncio.create_task(self.batcher.run())

    async def answer(self, batch):
        units = sum(min(one.units, 1.0) for one in batch)
        self.done.append([one.name for one in batch])
        await asyncio.sleep(UNIT_S * units if units else LIGHT_S)
        return [Unfinished(one._replace(units=one.units - 1)) if one.units > 1 else one.name for one in batch]

    async def ask(self, name, units=0.0):
        """What became of a question, and how long that took."""
        begun = asyncio.get_running_loop().time()
        try:
            became = await self.batcher.submit(PreparedRequest(name, units))
        except (Overloaded, DeadlineExceeded) as error:
            became = type(error)
        return became, asyncio.get_running_loop().time() - begun

    def ask_many(self, n, name, units=0.0):
        return [asyncio.create_task(self.ask(f"{name}{at}", units)) for at in range(n)]


@pytest.mark.parametrize("n_heavy", [1, 4, 16])
def test_a_light_question_waits_for_one_unit_of_heavy_work_at_most_however_much_there_is(n_heavy):
    async def everything():
        server = Server(deadline_s=None)
        heavy = server.ask_many(n_heavy, "heavy", units=4)
        waits = []
        for at in range(40):
            await asyncio.sleep(0.013)
            became, waited = await server.ask(f"light{at}")
            assert became == f"light{at}"
            waits.append(waited)
        assert max(waits) <= UNIT_S + LIGHT_S + 1e-9
        assert [became for became, _ in await asyncio.gather(*heavy)] == [f"heavy{at}" for at in range(n_heavy)]

    in_planted_time(everything())


def test_while_both_wait_each_gets_half_of_the_time():
    async def everything():
        server = Server(max_size=1, max_queue=1000, deadline_s=None)
        asked = [*server.ask_many(200, "light"), *server.ask_many(5, "heavy", units=4)]
        await asyncio.gather(*asked)
        until_last_light = server.done[: server.done.index(["light199"]) + 1]
        heavy_s = UNIT_S * sum(name.startswith("heavy") for (name,) in until_last_light)
        assert heavy_s == pytest.approx(200 * LIGHT_S, abs=UNIT_S)

    in_planted_time(everything())


def test_alone_a_class_has_all_the_time():
    async def everything():
        server = Server(deadline_s=None)
        await asyncio.gather(*server.ask_many(5, "heavy", units=4))
        assert asyncio.get_running_loop().time() == pytest.approx(5 * 4 * UNIT_S)
        await asyncio.gather(*server.ask_many(64, "light"))
        assert server.done[20:] == [[f"light{at}" for at in range(first, first + 32)] for first in (0, 32)]

    in_planted_time(everything())


def test_heavy_questions_share_a_batch_up_to_one_unit():
    async def everything():
        server = Server(deadline_s=None)
        await asyncio.gather(*server.ask_many(5, "heavy", units=0.4))
        assert server.done == [["heavy0", "heavy1"], ["heavy2", "heavy3"], ["heavy4"]]

    in_planted_time(everything())


def test_what_cannot_meet_its_deadline_is_not_begun():
    async def everything():
        server = Server(deadline_s=2.05)
        became = await asyncio.gather(*server.ask_many(16, "heavy", units=4))  # 6.4 s of work
        answered = [told for told, _ in became if isinstance(told, str)]
        assert answered == [f"heavy{at}" for at in range(5)]
        assert {told for told, _ in became[5:]} == {DeadlineExceeded}
        assert {name for (name,) in server.done} == set(answered)

    in_planted_time(everything())


def test_heavy_questions_are_let_in_as_far_as_they_can_be_answered_and_light_ones_go_on():
    async def everything():
        server = Server(deadline_s=2.0)
        await server.ask("first", units=1)  # now it is known what a unit takes
        heavy = server.ask_many(16, "heavy", units=4)
        light = server.ask_many(64, "light")
        await asyncio.sleep(0)
        told = {became for became, waited in await asyncio.gather(*heavy) if waited == 0}
        assert told == {Overloaded}
        assert all(isinstance(became, str) for became, _ in await asyncio.gather(*light))
        assert sum(isinstance(became, str) for became, _ in await asyncio.gather(*heavy)) == 4

    in_planted_time(everything())


def test_heavy_questions_take_half_of_the_places_at_most_and_a_slow_moment_is_forgotten():
    async def everything():
        server = Server(max_queue=8, deadline_s=2.0)
        asked = server.ask_many(9, "heavy", units=0.9)
        await asyncio.sleep(0)
        assert (server.batcher.n_waiting, server.batcher.is_full) == (4, False)
        await asyncio.gather(*asked)
        server.batcher._paces.append(1e9)
        server.batcher._paces.extend([1e9] * 8)
        await asyncio.sleep(PACE_S + 1)
        assert (await server.ask("again", units=4))[0] == "again"

    in_planted_time(everything())


@pytest.mark.parametrize("raised", [pl.exceptions.PanicException, BaseException, asyncio.CancelledError, ValueError])
def test_whatever_a_batch_raises_is_its_askers_error_and_the_loop_goes_on(raised):
    async def first_fails(batch):
        if "bad" in batch:
            raise raised("of its own")
        return batch

    async def everything():
        batcher = Batcher(first_fails)
        loop = asyncio.create_task(batcher.run())
        with pytest.raises(ValueError if raised is ValueError else RustPanic, match="of its own"):
            await batcher.submit("bad")
        assert await batcher.submit("good") == "good"
        assert (loop.done(), batcher.began) == (False, None)
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop

    asyncio.run(everything())


def test_an_answer_too_few_is_an_error_of_its_askers():
    async def nothing(batch):
        return []

    async def everything():
        batcher = Batcher(nothing)
        loop = asyncio.create_task(batcher.run())
        for _ in range(2):
            with pytest.raises(ValueError, match="shorter"):
                await batcher.submit(1)
        loop.cancel()

    asyncio.run(everything())
