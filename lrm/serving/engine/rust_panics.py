"""A panic of a library that is written in Rust (Polars, safetensors) is a `BaseException`, which no loop expects.

Here it becomes an `Exception`: it ends the call that met it, and never the thread or the loop that called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
EXIT_EXCEPTIONS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What is raised to end a program or a generator."""


class RustPanic(Exception):  # noqa: N818 - says what happened
    """A library found itself in a state that it took for impossible; the message is its own."""


def without_panics(work: Callable[..., T], *arguments: Any) -> T:
    """What a call returns; whatever it raises that is not meant to end the program is an `Exception`.

    Raises:
        Panicked: a library panicked.
    """
    try:
        return work(*arguments)
    except (Exception, *EXIT_EXCEPTIONS):
        raise
    except BaseException as error:
        raise RustPanic(f"{type(error).__name__}: {error}") from error
