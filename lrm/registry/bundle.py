"""A bundle: the model folder, its evaluation, the statistics of its data, and `bundle.json`, which digests every file.

The content of a bundle is its files. Who built it, when and from what is its *lineage*, which stands in `bundle.json`
and is no part of the content: the same files built twice are the same bundle.
"""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lrm import formats
from lrm.content_digest import BUNDLE, NOT_CONTENT, content_sha256, digest
from lrm.errors import RegistryError

EVALUATION = "evaluation.json"
STATISTICS = "statistics.json"
"""What the next run's drift is measured against."""
PACKAGES = ("numpy", "polars", "pyarrow", "torch")
"""What a bundle needs in order to score, besides this project."""


def build(model: Path, evaluation: Path, validation: Path, bundle: Path, *, lineage: dict[str, Any]) -> dict[str, Any]:
    """Copy a model folder, its `evaluation.json` and its data's `statistics.json` to `bundle`, and digest them.

    Returns:
        What `bundle.json` holds: `format`, `content_sha256`, `files` ({path: sha256}) and `lineage`.

    Raises:
        RegistryError: the model folder is empty, or there is no evaluation or statistics.
    """
    sources = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
    sources = {name: path for name, path in sources.items() if path.name not in NOT_CONTENT and name[0] != "."}
    if not sources:
        raise RegistryError(f"there is no model in {model}; run the training step first")
    sources |= {EVALUATION: evaluation / EVALUATION, STATISTICS: validation / STATISTICS}
    for path in (sources[EVALUATION], sources[STATISTICS]):
        if not path.is_file():
            raise RegistryError(f"{path} is missing; only an evaluated model of validated data can be registered")
    partial = bundle.with_name(f".{bundle.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, path in sorted(sources.items()):
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, partial / name)
    files = digest(partial)
    manifest = {
        formats.FORMAT: formats.BUNDLE,
        "content_sha256": content_sha256(files),
        "files": files,
        "lineage": lineage,
    }
    (partial / BUNDLE).write_text(json.dumps(manifest, indent=1) + "\n")
    shutil.rmtree(bundle, ignore_errors=True)
    partial.rename(bundle)
    return manifest


def verify(bundle: Path) -> dict[str, Any]:
    """Compare every file of a bundle with its digest.

    Returns:
        What `bundle.json` holds.

    Raises:
        RegistryError: a file is missing, changed, or not listed, or the bundle has another format.
    """
    if not (bundle / BUNDLE).is_file():
        raise RegistryError(f"{bundle} is no bundle: it has no {BUNDLE}; name a folder that register_model built")
    manifest: dict[str, Any] = json.loads((bundle / BUNDLE).read_text())
    if odd := formats.difference(manifest, formats.BUNDLE):
        raise RegistryError(
            f"bundle {bundle}: {BUNDLE} {odd}; register the model again, or use the version of the code that wrote it"
        )
    expected, seen = manifest["files"], digest(bundle)
    for name in sorted(expected.keys() | seen.keys()):
        if expected.get(name) != seen.get(name):
            state = "is missing" if name not in seen else "was added" if name not in expected else "was changed"
            raise RegistryError(
                f"bundle {bundle}: {name} {state} since it was registered (expected sha256 {expected.get(name)}, seen "
                f"{seen.get(name)}); restore the file, or roll back to another version"
            )
    if manifest["content_sha256"] != content_sha256(expected):
        raise RegistryError(f"bundle {bundle}: {BUNDLE} was changed: its content_sha256 is not that of its files")
    return manifest


def packages() -> dict[str, str]:
    """The installed version of each package that a bundle needs; those that are absent are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            continue
    return found


def lineage_of(model: Path, *, code_version: str, run_id: str, parent: str) -> dict[str, Any]:
    """Where a model came from: data, feature service, code, configuration, environment and parent version.

    Raises:
        RegistryError: the model folder does not say which data it was trained on.
    """
    manifest, config = _read(model, "manifest.json"), _read(model, "config.json")
    metrics = json.loads((model / "metrics.json").read_text()) if (model / "metrics.json").is_file() else {}
    return {
        "data": manifest["data"]["name"],
        "data_sha256": manifest["data"]["sha256"],
        "snapshot_id": manifest["snapshot_id"],
        "as_of": manifest["as_of"],
        "feature_service": manifest["service"],
        "feature_service_version": manifest["service_version"],
        "code_version": code_version,
        "run_id": run_id,
        "parent_version": parent,
        "config": config,
        "seed": metrics.get("seed"),
        "environment": {"python": platform.python_version(), "packages": packages()},
    }


def _read(model: Path, name: str) -> dict[str, Any]:
    if not (model / name).is_file():
        raise RegistryError(f"{model / name} is missing, so the model has no lineage; run the training step again")
    content: dict[str, Any] = json.loads((model / name).read_text())
    return content
