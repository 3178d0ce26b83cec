"""Where tensors live: the processor, or one GPU.

Arrays become tensors by `torch.as_tensor`, which puts them on the default device; so choosing that device once, where a
step or the server begins, moves all of the model's work. A bundle written on one kind of machine is read on another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lrm.errors import SchemaError

DEVICE = "LRM_DEVICE"
"""Environment variable: `auto` (a GPU where there is one), `cpu` or `cuda`."""


def use_device(*, tf32: bool = False) -> torch.device:
    """Choose the default device of this thread, as `LRM_DEVICE` says.

    Args:
        tf32: whether products on a GPU may round to eleven bits, for training: three more digits than bfloat16, eight
            times float32's speed. Scores that are compared with one another are not rounded.

    Raises:
        SchemaError: the variable holds something else, or asks for a GPU where there is none.
    """
    asked = os.environ.get(DEVICE, "auto")
    if asked not in ("auto", "cpu", "cuda"):
        raise SchemaError(f"{DEVICE} must be auto, cpu or cuda; got {asked!r}")
    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise SchemaError(
            f"{DEVICE} asks for a GPU, but torch {torch.__version__} sees none; install a CUDA build of torch and see "
            f"that the container was given a GPU, or set {DEVICE}=cpu"
        )
    if has_gpu and asked != "cpu":
        torch.set_default_device("cuda")
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
    return torch.get_default_device()


def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers on the default device."""
    return torch.Generator(device=torch.get_default_device()).manual_seed(seed)


@contextmanager
def repeatable() -> Iterator[None]:
    """Within it the same work on the same number of threads gives the same numbers to the last bit, on a processor.

    Otherwise the gradients of rows that were read more than once are added up in the order in which threads come to
    them. One thread of a process may be within it at a time: what it sets is the whole process'. On a GPU nothing is
    changed: what it would cost there is not known.
    """
    memory: Any = torch.utils.deterministic
    was, filled = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if torch.get_default_device().type == "cpu":
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warns)
        memory.fill_uninitialized_memory = filled
