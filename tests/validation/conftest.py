"""A world whose declarations say something that every kind of expectation can judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lrm.schema import Signal, write_signals
from tests.worlds import COLOURS, SIGNALS, write_examples

DECLARED = {
    "age": {"max_null_rate": 0.3},
    "spent": {"maximum": 1e6},
    "colour": {"categories": COLOURS, "max_null_rate": 0.5},
    "tags": {"categories": tuple(f"t{number}" for number in range(8))},
}


def declared_signals() -> tuple[Signal, ...]:
    return tuple(replace(signal, **DECLARED.get(signal.name, {})) for signal in SIGNALS)


def write_world(folder: Path, *, n_users: int = 60, seed: int = 0) -> Path:
    examples = write_examples(folder, n_users=n_users, seed=seed)
    write_signals(declared_signals(), examples / "signals.json")
    return examples


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound examples folder: read it, never write it."""
    return write_world(tmp_path_factory.mktemp("world") / "examples")
