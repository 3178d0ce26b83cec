"""The file of a release's index: what was worked out when the release was built.

It holds the plan alone, as arrays. The lists are filled when a server starts: it encodes the catalogue anyway, filling
takes a third of a second for a million items, and so an index never holds other vectors than those that give the
scores.
"""

from __future__ import annotations

from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lrm.content_digest import sha256_of
from lrm.errors import ServingError
from lrm.model.index import Index, Plan, open_index
from lrm.serving.release import INDEX, Release


def write_index(plan: Plan, release: Release) -> str:
    """Keep a plan in a release's folder, and return the digest of its file."""
    save_file(plan._asdict(), release.folder / INDEX)
    return sha256_of(release.folder / INDEX)


def open_index_of(release: Release, vectors: Tensor, *, effort: int | None = None) -> Index | None:
    """The index by which a release is served; None where that is the exact product.

    Args:
        release: the release.
        vectors: (V, D) of its catalogue. On a GPU the product is the quicker way at any size that fits there.
        effort: lists searched for a request; None: as the release was measured; 0: the exact product.

    Raises:
        ServingError: the effort is negative, or the index is not of this catalogue or cannot be read.
    """
    if effort is not None and effort < 0:
        raise ServingError(f"the search effort must be at least 0, got {effort}; 0 scores every item")
    if release.catalogue_index is None or effort == 0 or vectors.device.type != "cpu":
        return None
    path = release.folder / INDEX
    try:
        plan = Plan(**load_file(path))
    except (OSError, TypeError, SafetensorError) as error:
        raise ServingError(f"{path} cannot be read ({error}); roll the version out again") from error
    if len(plan.list_V) != len(vectors):
        raise ServingError(
            f"{path} is of another catalogue: it has {len(plan.list_V):,} items, the release {len(vectors):,}; roll "
            "the version out again"
        )
    return open_index(plan, vectors, effort=effort or release.catalogue_index["effort"])


def index_facts(index: Index | None, release: Release) -> dict[str, Any] | None:
    """What `/v1/model` says of the index in use; None where there is none."""
    if index is None or release.catalogue_index is None:
        return None
    measured = {name: value for name, value in release.catalogue_index.items() if name != "sha256"}
    return measured | {"effort": index.effort, "measured_effort": release.catalogue_index["effort"]}
