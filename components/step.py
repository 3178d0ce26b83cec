"""What every pipeline step shares: one image, nothing installed at run time, and how its numbers reach the UI."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp import dsl

IMAGE = os.environ.get("LRM_IMAGE", "token-factory:dev")
"""The image of every step, unless `pipeline.py compile --image` names another."""


def step(body: Callable[..., Any]) -> Any:
    """Make a pipeline step of a function; only its source travels, so it imports what it needs inside its body."""
    return dsl.component(body, base_image=IMAGE, install_kfp_package=False)


def uncached(task: Any) -> Any:
    """Run a task every time: it reads or changes the outside world."""
    return task.set_caching_options(False)


def log_metrics(metrics: dsl.Metrics, values: Mapping[str, Any]) -> None:
    """Log the finite numbers among a door's values, and write all of them to the artifact's path.

    Without a file at that path the local runner takes the step for one that never ran, and does not reuse it.
    """
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(dict(values), indent=1, default=str) + "\n")
