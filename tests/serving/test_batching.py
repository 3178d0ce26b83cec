"""Questions that arrive together are answered together."""

import asyncio

import pytest

from lrm.serving.batching import Batcher, Overloaded, TooLate


def run(answer, *, questions, max_size=32):
    """What each question got, and the batches they came in."""
    batches = []

    async def counted(batch):
        batches.append(batch)
        return await answer(batch)

    async def everything():
        batcher = Batcher(counted, max_size=max_size, max_wait_s=0.05)
        loop = asyncio.create_task(batcher.run())
        got = await asyncio.gather(*(batcher.ask(question) for question in questions), return_exceptions=True)
        loop.cancel()
        return got

    return asyncio.run(everything()), batches


async def doubled(batch):
    return [2 * question for question in batch]


def test_each_asker_gets_the_own_answer_from_one_batch():
    assert run(doubled, questions=[1, 2, 3]) == ([2, 4, 6], [[1, 2, 3]])


def test_a_batch_is_never_larger_than_asked():
    got, batches = run(doubled, questions=[1, 2, 3], max_size=2)
    assert (got, batches) == ([2, 4, 6], [[1, 2], [3]])


def test_an_error_reaches_all_who_shared_it_and_the_next_batch_is_answered():
    async def odd_fails(batch):
        if 1 in batch:
            raise ValueError("one is too few")
        return await doubled(batch)

    got, _ = run(odd_fails, questions=[1, 2, 3, 4], max_size=2)
    assert [str(one) for one in got[:2]] == ["one is too few"] * 2
    assert got[2:] == [6, 8]


def test_an_asker_who_hangs_up_does_not_stop_the_others():
    async def everything():
        batcher = Batcher(doubled, max_wait_s=0.05)
        loop = asyncio.create_task(batcher.run())
        impatient = asyncio.create_task(batcher.ask(1))
        patient = asyncio.create_task(batcher.ask(2))
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
        batcher = Batcher(doubled, max_waiting=2)
        waiting = [asyncio.create_task(batcher.ask(question)) for question in (1, 2)]
        await asyncio.sleep(0)
        assert (batcher.n_waiting, batcher.is_full) == (2, True)
        with pytest.raises(Overloaded):
            await batcher.ask(3)
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
        batcher = Batcher(slow, max_size=1, within_s=0.05)
        loop = asyncio.create_task(batcher.run())
        got = await asyncio.gather(batcher.ask(1), batcher.ask(2), return_exceptions=True)
        await asyncio.sleep(0.1)
        loop.cancel()
        return [type(one) for one in got]

    assert asyncio.run(everything()) == [TooLate, TooLate]
    assert answered == [1]
