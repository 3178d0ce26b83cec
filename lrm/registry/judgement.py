"""What the gate said of a registered version: read from the evaluation that its bundle digests, never from a tag.

Anybody who may write to the registry can edit a tag; the tags here only say which files were registered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lrm import formats
from lrm.content_digest import WEIGHTS
from lrm.errors import RegistryError
from lrm.registry import bundle as bundles

CONTENT, PARENT, VERDICT, EVALUATED = "content_sha256", "parent_version", "verdict", "evaluation_sha256"
PROMOTE, KEEP, REJECT, INCONCLUSIVE = "promote", "keep", "reject", "inconclusive"
REASON = "--reason 'why, for those who will read the history'"


class Judgement(NamedTuple):
    """What is known of a version, from its files."""

    verdict: str
    reasons: list[str]
    compared_with: str
    """The sha256 of the weights of the champion that it was compared with; "" where the evaluation names none."""
    facts: dict[str, str]
    """What the ledger keeps of it."""


def judgement(name: str, number: str, folder: Path, tags: Mapping[str, str]) -> Judgement:
    """Read what the gate said of a version.

    Args:
        name: the registered model.
        number: the version.
        folder: its bundle.
        tags: what the registry says of it.

    Raises:
        RegistryError: the bundle is not the one that was registered, or its evaluation has another format.
    """
    manifest = bundles.verify(folder)
    content = (folder / bundles.EVALUATION).read_bytes()
    seen = {CONTENT: manifest["content_sha256"], EVALUATED: hashlib.sha256(content).hexdigest()}
    for key, value in seen.items():
        if value != tags.get(key):
            raise RegistryError(
                f"{name} version {number}: {folder} is not what was registered: its {key} is {value}, and the "
                f"registry's tag of that name {tags.get(key)}; restore the files, or the tag, as they were"
            )
    found: dict[str, Any] = json.loads(content)
    if odd := formats.difference(found, formats.EVALUATION):
        raise RegistryError(
            f"{name} version {number}: {folder / bundles.EVALUATION} {odd}; evaluate and register the model again"
        )
    lineage = manifest.get("lineage", {})
    return Judgement(
        verdict=str(found.get("verdict", "")),
        reasons=[str(reason) for reason in found.get("reasons", [])],
        compared_with=str(found.get("about", {}).get("champion", {}).get("weights_sha256", "")),
        facts={
            "verdict": str(found.get("verdict", "")),
            EVALUATED: seen[EVALUATED],
            "policy_sha256": str(found.get("policy", {}).get("sha256", "")),
            "data_sha256": str(lineage.get("data_sha256", "")),
            "code_version": str(lineage.get("code_version", "")),
            "weights_sha256": weights_of(manifest),
        },
    )


def check_tags(name: str, number: str, found: Judgement, tags: Mapping[str, str]) -> None:
    """Refuse a version whose tags say another verdict than its evaluation.

    Raises:
        RegistryError: they do.
    """
    if (told := tags.get(VERDICT)) != found.verdict:
        raise RegistryError(
            f"{name} version {number}: its evaluation says {found.verdict!r}, and the registry's tag `{VERDICT}` "
            f"{told!r}: somebody edited the tag; set it to {found.verdict!r} again, and ask who did"
        )


def weights_of(manifest: dict[str, Any]) -> str:
    """The sha256 of the weights that a bundle lists; "" where it lists none."""
    return str(manifest["files"].get(WEIGHTS, ""))


def next_step(name: str, version: str, verdict: str) -> str:
    """What a person can do about a version that was not promoted, in words; "" for one that is."""
    approval = f"python pipeline.py approve {version} --name {name} {REASON}"
    if verdict == KEEP:
        return (
            f"The champion stays. Nothing has to be done: the next run on newer data is judged anew. To put version "
            f"{version} in service all the same, by a person's decision: {approval}"
        )
    if verdict == INCONCLUSIVE:
        return (
            "The champion stays: the reasons say what is missing to decide (more users, newer data, a champion that "
            f"can be scored); mend that and run again. To put version {version} in service undecided, by a person's "
            f"decision: {approval}"
        )
    if verdict == REJECT:
        return (
            f"The champion stays, and nobody can put version {version} in service: it is unfit to serve. Mend what "
            "the reasons name, then run again."
        )
    return ""
