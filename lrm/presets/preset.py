"""What a preset is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lrm.config import RunConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A configuration with what a reader of the list of presets wants to know."""

    make: Callable[[], RunConfig]
    purpose: str
    """What it is for, in a few words."""
    source: str = "this project"
    """Where its design was published: a paper's number on arXiv, or this project."""
    time: str
    """How long it takes to train on two cores, with the data that it is meant for."""

    def __call__(self) -> RunConfig:
        """Make the configuration."""
        return self.make()
