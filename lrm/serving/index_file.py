"""The file of a release's index: what was worked out when the release was built.

It holds the plan alone, as arrays. The lists are filled when a server starts: it encodes the catalogue anyway, filling
takes a third of a second for a million items, and so an index never holds other vectors than those that give the
scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lrm.errors import DataError, ServingError
from lrm.model.heads import Head, Indexed
from lrm.serving.release import INDEX, Release
from lrm.storage import sha256_of


def write_index(plan: Mapping[str, Tensor], release: Release) -> str:
    """Keep a plan in a release's folder, and return the digest of its file."""
    save_file(dict(plan), release.folder / INDEX)
    return sha256_of(release.folder / INDEX)


def open_index_of(release: Release, head: Head, catalogue: Any, *, effort: int | None = None) -> Any:
    """The catalogue by which a release is served: with the release's index, where it has one and the machine needs it.

    Args:
        release: the release.
        head: the item head of its model.
        catalogue: the release's items, as the head prepared them.
        effort: lists searched for a request; None: as the release was measured; 0: no index.

    Raises:
        ServingError: the effort is negative, or the index is not of this catalogue or cannot be read.
    """
    if effort is not None and effort < 0:
        raise ServingError(f"the search effort must be at least 0, got {effort}; 0 scores every item")
    if release.catalogue_index is None or effort == 0 or not isinstance(head, Indexed):
        return catalogue
    path = release.folder / INDEX
    try:
        return head.open_index(catalogue, load_file(path), effort=effort or release.catalogue_index["effort"])
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        raise ServingError(f"{path} cannot be read ({error}); roll the version out again") from error
    except DataError as error:
        raise ServingError(f"{path} {error}; roll the version out again") from error


def index_facts(effort: int | None, release: Release) -> dict[str, Any] | None:
    """What `/v1/model` says of the index in use, given the lists it searches; None where there is none."""
    if effort is None or release.catalogue_index is None:
        return None
    measured = {name: value for name, value in release.catalogue_index.items() if name != "sha256"}
    return measured | {"effort": effort, "measured_effort": release.catalogue_index["effort"]}
