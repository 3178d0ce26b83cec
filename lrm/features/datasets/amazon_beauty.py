"""Amazon 2014 Beauty, 5-core: each user's items in order, and item attributes (category and brand ids).

The order alone is known (ties within a day are as published), so each user's last item is held out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from lrm.errors import DataError
from lrm.features.datasets.leave_one_out import START, build_order
from lrm.features.datasets.movielens import with_times
from lrm.features.datasets.sources import given_folder, members, verified

OBTAIN = "Obtain Beauty.txt and Beauty_item2attributes.json from the data folder of https://github.com/RUCAIBox/CIKM2020-S3Rec."
SHA256 = {
    "Beauty.txt": "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
    "Beauty_item2attributes.json": "129e40f67486f6877eff0f5318cfa8530ee8ac23d8b0d1de04e1bb7a2ba0b2d4",
}


def build(data_root: Path | None, folder: Path) -> dict[str, Any]:
    """Write the data folder; return what belongs into dataset.json."""
    source = given_folder(data_root, "amazon-beauty", obtain=OBTAIN)
    sums = verified(source, SHA256, obtain=OBTAIN)
    files = members(source, SHA256, obtain=OBTAIN)
    with_times(read_attributes(files["Beauty_item2attributes.json"]), START).write_parquet(folder / "items.parquet")
    return build_order(read_order(files["Beauty.txt"]), folder) | {
        "description": (__doc__ or "").strip(),
        "terms": "Amazon review data (McAuley et al.), research use.",
        "source_sha256": sums,
        "feature_repo": "examples/amazon-beauty/feature_repo",
    }


def read_order(content: bytes) -> pl.DataFrame:
    """Lines of a user id and its item ids in order, as rows of user_id, item_id, pos.

    Raises:
        DataError: a line names no item, or something that is not a number.
    """
    users: list[int] = []
    items: list[int] = []
    places: list[int] = []
    for number, line in enumerate(content.decode().splitlines(), start=1):
        fields = line.split()
        if len(fields) < 2 or not all(field.isdigit() for field in fields):
            raise DataError(
                f"line {number} of Beauty.txt must be a user and its items as numbers, got {line[:60]!r}. {OBTAIN}"
            )
        users += [int(fields[0])] * (len(fields) - 1)
        items += [int(field) for field in fields[1:]]
        places += range(len(fields) - 1)
    return pl.DataFrame({"user_id": users, "item_id": items, "pos": places}, schema_overrides={"pos": pl.Int64})


def read_attributes(content: bytes) -> pl.DataFrame:
    """The JSON object {item: [attribute, ...]}, as rows of item_id, attributes."""
    attributes = {int(item): [str(value) for value in values] for item, values in json.loads(content).items()}
    table = pl.DataFrame({"item_id": list(attributes), "attributes": list(attributes.values())})
    return table.cast({"attributes": pl.List(pl.String)}).sort("item_id")
