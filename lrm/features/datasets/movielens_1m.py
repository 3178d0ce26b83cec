"""MovieLens 1M.

From the published archive (`ratings.dat`, `users.dat`, `movies.dat`): ratings with instants, cut in time, with the
rating task. From `ml1m_ordered.parquet` (user_id, movie_id, pos): the order of the published sequential-recommendation
split alone, each user's last movie held out.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import polars as pl

from lrm.features.datasets.leave_one_out import START, build_order
from lrm.features.datasets.movielens import TERMS, Ratings, build_rating_task, read_dat, separated, with_times
from lrm.features.datasets.sources import given_folder, member, members, verified

OBTAIN = "Obtain ml-1m.zip from https://grouplens.org/datasets/movielens/1m/ and leave it zipped or unpack it."
SHA256 = {
    "ml1m_ordered.parquet": "43a320b7929e556a824ddc51536228e4549c35b757fdb1dc8fd6f38f35e4d3b4",
    "movies.dat": "0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9",
    "users.dat": "1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3",
}
OFFICIAL = ("ratings.dat", "users.dat", "movies.dat")
FEATURE_REPO = "examples/ml-1m/feature_repo"


def build(data_root: Path | None, folder: Path) -> dict[str, Any]:
    """Write the data folder; return what belongs into dataset.json."""
    source = given_folder(data_root, "ml-1m", obtain=OBTAIN)
    if member(source, OFFICIAL[0], obtain=OBTAIN) is None:
        return _build_ordered(source, folder)
    files = members(source, OFFICIAL, obtain=OBTAIN)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return build_rating_task(read_official(files), folder) | {"source_sha256": sums}


def read_official(files: dict[str, bytes]) -> Ratings:
    """Read the published files, whose fields are separated by double colons."""
    rated = separated(files["ratings.dat"], "::", ("user_id", "item_id", "rating", "seconds"))
    users, items = read_dat(files)
    return Ratings(
        rated.cast({"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float32, "seconds": pl.Int64}), users, items
    )


def _build_ordered(source: Path, folder: Path) -> dict[str, Any]:
    sums = verified(source, SHA256, obtain=OBTAIN)
    files = members(source, SHA256, obtain=OBTAIN)
    ordered = pl.read_parquet(io.BytesIO(files["ml1m_ordered.parquet"]), glob=False)
    users, items = read_dat(files)
    with_times(users, START).write_parquet(folder / "users.parquet")
    order = ordered.rename({"movie_id": "item_id"}).cast(pl.Int64)
    items = items.join(order, on="item_id", how="semi", maintain_order="left")
    with_times(items, START).write_parquet(folder / "items.parquet")
    about = {
        "description": (__doc__ or "").strip(),
        "terms": TERMS,
        "source_sha256": sums,
        "feature_repo": FEATURE_REPO,
    }
    return build_order(order, folder) | about
