"""MovieLens 100K, from `ml-100k.inter`, `.user` and `.item` or from the published `u.data`, `u.user` and `u.item`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import polars as pl

from lrm.features.datasets.movielens import Ratings, build_rating_task, items_table, separated, users_table
from lrm.features.datasets.sources import given_folder, member, members, verified

OBTAIN = "Obtain ml-100k.zip from https://grouplens.org/datasets/movielens/100k/ and leave it zipped or unpack it."
SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
OFFICIAL = ("u.data", "u.user", "u.item")
GENRES = (
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The genre flags of `u.item`, in their order."""


def build(data_root: Path | None, folder: Path) -> dict[str, Any]:
    """Write the data folder; return what belongs into dataset.json."""
    source = given_folder(data_root, "ml-100k", obtain=OBTAIN)
    if member(source, OFFICIAL[0], obtain=OBTAIN) is not None:
        files = members(source, OFFICIAL, obtain=OBTAIN)
        ratings = read_official(files)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    else:
        sums = verified(source, SHA256, obtain=OBTAIN)
        ratings = read_typed(members(source, SHA256, obtain=OBTAIN))
    return build_rating_task(ratings, folder) | {"source_sha256": sums}


def read_official(files: dict[str, bytes]) -> Ratings:
    """Read `u.data` (tab-separated), `u.user` and `u.item` (separated by bars, Latin-1)."""
    rated = separated(files["u.data"], "\t", ("user_id", "item_id", "rating", "seconds"))
    users = separated(files["u.user"], "|", ("user_id", "age", "gender", "occupation", "zip_code"))
    about = ("item_id", "title", "released", "video_released", "url")
    items = separated(files["u.item"], "|", (*about, *GENRES), encoding="latin-1")
    flagged = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES]
    return Ratings(
        ratings=_numbers(rated),
        users=users_table(users),
        items=items_table(items.select("item_id", "title", genres=pl.concat_list(flagged).list.drop_nulls())),
    )


def read_typed(files: dict[str, bytes]) -> Ratings:
    """Read `ml-100k.inter`, `.user` and `.item`: tab-separated, with a header of typed names."""
    rated, users, items = (_typed(files[f"ml-100k.{part}"]) for part in ("inter", "user", "item"))
    year = pl.col("release_year").replace("", None)
    titled = pl.format("{} ({})", "movie_title", year).fill_null(pl.col("movie_title"))
    return Ratings(
        ratings=_numbers(rated.rename({"timestamp": "seconds"})),
        users=users_table(users),
        items=items_table(items.select("item_id", titled.alias("title"), genres=pl.col("class").str.split(" "))),
    )


def _typed(content: bytes) -> pl.DataFrame:
    header, _, rows = content.partition(b"\n")
    columns = tuple(name.split(":")[0] for name in header.decode().strip().split("\t"))
    return separated(rows, "\t", columns)


def _numbers(rated: pl.DataFrame) -> pl.DataFrame:
    types = {"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float32, "seconds": pl.Int64}
    return rated.select(pl.col(name).cast(kind) for name, kind in types.items())
