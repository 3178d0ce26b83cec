"""`run_manifest.json`: all that a run's outcome rests on, so that it can be run again and compared.

The command line writes it before the first step; the exit step completes it from what the steps kept, and on a cluster,
where no command line came before, it writes all of it. Either way it is replaced whole.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from lrm.errors import DataError
from lrm.storage import write_json

RUN_MANIFEST = "run_manifest.json"
IMAGE = "LRM_IMAGE"
"""The image that steps run in, best by digest; unset where there is none."""
STARTED = "started"
Json = dict[str, Any]


def begin(run_dir: Path, *, arguments: Json, configuration: Json, declarations_sha256: str, code: Json) -> None:
    """Write what is known before the first step.

    Args:
        run_dir: the run's folder.
        arguments: the workflow's.
        configuration: the preset, resolved.
        declarations_sha256: of the feature definitions.
        code: `sha256` of the sources that reused steps run, `commit`, and whether the tree is `dirty`.
    """
    facts = _skeleton(run_dir)
    asked = {"name": arguments["model_name"], "folder": arguments["data"], "sha256": arguments["data_version"]}
    facts["data"] |= asked | {"asked_as_of": arguments["as_of"]}
    facts["features"] |= {"folder": arguments["feature_repo"], "declarations_sha256": declarations_sha256}
    facts |= {"preset": arguments["preset"], "configuration": configuration, "seed": arguments["seed"], "code": code}
    _write(run_dir, facts)


def complete(run_dir: Path, *, state: str) -> None:
    """Add what the steps found: the snapshot, the feature service, the champion compared with, and the outcome.

    The environment becomes this process's: in a container, the exit step's is that of all steps.

    Args:
        run_dir: the run's folder.
        state: how the run ended, `succeeded` or `failed`.
    """
    facts = read(run_dir) if (run_dir / RUN_MANIFEST).is_file() else _skeleton(run_dir)
    examples = _kept(run_dir, "retrieve_features/manifest.json")
    champion = _kept(run_dir, "find_champion/champion.json")
    evaluation = _kept(run_dir, "evaluate_model/evaluation.json")
    registered = _kept(run_dir, "register_model/record.json").get("metrics", {})
    trained = _kept(run_dir, "train_lrm/config.json")
    if examples:
        read_from = examples.get("data", {})
        facts["data"] |= {key: read_from[key] for key in ("name", "sha256") if key in read_from}
        facts["data"] |= {key: examples.get(key) for key in ("as_of", "snapshot_id")}
        facts["features"] |= {key: examples.get(key) for key in ("service", "service_version")}
    if trained:
        facts |= {"preset": trained.get("name"), "configuration": trained}
    if champion:
        facts["parent"] = {key: champion.get(key) for key in ("version", "content_sha256")}
    if evaluation:
        facts["seed"] = evaluation.get("settings", {}).get("seed", facts["seed"])
        facts["outcome"] = {
            "verdict": evaluation.get("verdict"),
            "weights_sha256": evaluation.get("about", {}).get("challenger", {}).get("weights_sha256"),
            "metrics": _metrics(evaluation),
            "version": registered.get("version", ""),
        }
    ended = {"state": state, "ended": datetime.now(UTC).isoformat(), "environment": _environment()}
    _write(run_dir, facts | ended)


def read(run_dir: Path) -> Json:
    """Read a run's manifest.

    Raises:
        DataError: the run has none, or it is damaged.
    """
    path = run_dir / RUN_MANIFEST
    try:
        facts: Json = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {run_dir} is no run, or one of before runs had a manifest") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); restore it, or take another run") from error
    return facts


def packages() -> dict[str, str]:
    """The version of every installed package, by name."""
    found = {one.metadata["Name"].lower().replace("_", "-"): one.version for one in distributions()}
    return dict(sorted(found.items()))


def _skeleton(run_dir: Path) -> Json:
    """Every key, with what this process knows by itself."""
    return {
        "run_id": run_dir.name,
        "state": STARTED,
        "started": datetime.now(UTC).isoformat(),
        "ended": None,
        "data": dict.fromkeys(("name", "folder", "sha256", "asked_as_of", "as_of", "snapshot_id")),
        "features": dict.fromkeys(("folder", "declarations_sha256", "service", "service_version")),
        "preset": None,
        "configuration": None,
        "seed": None,
        "code": dict.fromkeys(("sha256", "commit", "dirty")),
        "environment": _environment(),
        "parent": None,
        "outcome": None,
    }


def _environment() -> Json:
    return {
        "image": os.environ.get(IMAGE),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": os.environ.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0))),
        "packages": packages(),
    }


def _metrics(evaluation: Json) -> dict[str, float | None]:
    """What the challenger reached, as {"task.metric": value}."""
    tasks = evaluation.get("models", {}).get("challenger", {})
    return {f"{task}.{name}": cell.get("value") for task, cells in tasks.items() for name, cell in cells.items()}


def _kept(run_dir: Path, name: str) -> Json:
    """A file that a step kept; empty where the step did not get that far."""
    path = run_dir / "steps" / name
    try:
        content: Json = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content


def _write(run_dir: Path, facts: Json) -> None:
    write_json(run_dir / RUN_MANIFEST, facts)
