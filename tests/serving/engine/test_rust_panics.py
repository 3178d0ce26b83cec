"""A panic of a library in Rust ends the call that met it, and nothing else."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

from lrm.serving.engine.batching import Batcher
from lrm.serving.engine.rust_panics import RustPanic, without_panics


def panic(message="index out of bounds"):
    raise pl.exceptions.PanicException(message)


def test_a_panic_becomes_an_error_that_says_what_it_was():
    with pytest.raises(RustPanic, match="PanicException: index out of bounds"):
        without_panics(panic)
    assert without_panics(max, 1, 2) == 2


@pytest.mark.parametrize("meant", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_is_meant_to_end_a_program_and_every_error_pass_unchanged(meant):
    def end():
        raise meant

    with pytest.raises(meant):
        without_panics(end)


def test_a_batch_that_panics_is_its_askers_error_and_the_next_one_is_answered():
    async def ask_twice():
        with ThreadPoolExecutor(1) as pool:

            async def answer(batch):
                work = panic if batch == ["bad"] else list
                return await asyncio.get_running_loop().run_in_executor(pool, without_panics, work, batch)

            batcher = Batcher(answer)
            loop = asyncio.create_task(batcher.run())
            with pytest.raises(RustPanic):
                await batcher.submit("bad")
            answered = await batcher.submit("good")
            loop.cancel()
            return answered

    assert asyncio.run(ask_twice()) == "good"
