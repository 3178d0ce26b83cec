"""Presets: the named configurations of a run.

A preset of this project stands in one of the modules of this folder. A preset of another package is a `Preset` that the
package names as an entry point of the group `lrm.presets`:

    [project.entry-points."lrm.presets"]
    my-preset = "my_package.presets:MINE"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points

from lrm.config import RunConfig
from lrm.errors import SchemaError
from lrm.parts import check_part
from lrm.presets import ablations, ours, published
from lrm.presets.preset import Preset as Preset

PRESETS: dict[str, Callable[[], RunConfig]] = {**ours.PRESETS, **published.PRESETS, **ablations.PRESETS}
"""The presets of this project by name; each is a `Preset`."""


def preset_names() -> list[str]:
    """List all presets: those of this project, then those of installed packages."""
    return [*PRESETS, *sorted({point.name for point in entry_points(group=__name__)} - set(PRESETS))]


def find_preset(name: str) -> Callable[[], RunConfig]:
    """Find a preset of this project or of an installed package.

    Raises:
        SchemaError: no preset has that name.
    """
    if name in PRESETS:
        return PRESETS[name]
    for point in entry_points(group=__name__, name=name):
        outside: Preset = point.load()
        return outside
    raise SchemaError(
        f"no preset is called {name!r}; there are {', '.join(preset_names())}. "
        "`python pipeline.py run --preset list` explains them"
    )


def preset(name: str) -> RunConfig:
    """Return the configuration of that name.

    Raises:
        SchemaError: no preset has that name.
    """
    return replace(find_preset(name)(), name=name)


def check_parts(config: RunConfig) -> None:
    """Check that the parts which a configuration names are installed, without importing them.

    Raises:
        ConfigError: a variant, a block, an item head or an objective is not installed.
    """
    check_part("lrm.tokens.makers", config.tokens.variant)
    check_part("lrm.model.blocks", config.model.block)
    check_part("lrm.model.heads", config.model.head)
    for name in config.training.objectives:
        check_part("lrm.training.objectives", name)
