"""The list of presets as a table, for the command line."""

from __future__ import annotations

from lrm.config import BUDGETS, NONE, RunConfig
from lrm.presets import find_preset, preset, preset_names
from lrm.presets.preset import Preset

HEADER = ("preset", "what it is for", "source", "time on 2 cores", "block", "item head", "objectives", "tokens")


def preset_table() -> str:
    """Write one line for each preset."""
    rows = [HEADER, *(_row(name) for name in preset_names())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _row(name: str) -> tuple[str, ...]:
    found, config = find_preset(name), preset(name)
    about = found if isinstance(found, Preset) else Preset(make=found, purpose="", source="", time="")
    objectives = " + ".join(
        objective if weight == 1 else f"{weight:g} {objective}"
        for objective, weight in config.training.objectives.items()
    )
    return (
        name,
        about.purpose,
        about.source,
        about.time,
        config.model.block,
        config.model.head,
        objectives,
        _tokens(config),
    )


def _tokens(config: RunConfig) -> str:
    tokens = config.tokens
    words = [
        tokens.variant,
        f"items by {tokens.item_identity}" if tokens.item_identity != "both" else "items by id+content",
    ]
    if tokens.memory != NONE:
        words.append(f"{tokens.memory} memory")
    if tokens.elastic:
        words.append(f"{min(BUDGETS)}-{max(BUDGETS)} tokens")
    return ", ".join(words)
