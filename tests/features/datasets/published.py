"""Small extracts in the formats of the published archives. All names and ratings are made up."""

import zipfile
from pathlib import Path

GENRE_FLAGS = {"Comedy": 5, "Drama": 8, "Sci-Fi": 15}

U_USER = "1|24|M|technician|85711\n2|53|F|other|T8H1N\n"
RATED = [
    # user, movie, rating, unix seconds: ten distinct instants, the last two ratings at one
    *((1, 1, 5, 881250000), (2, 1, 3, 881250010), (1, 2, 4, 881250020), (2, 3, 2, 881250030), (1, 3, 1, 881250040)),
    *((2, 2, 4, 881250050), (1, 4, 5, 881250060), (2, 4, 4, 881250070), (1, 5, 2, 881250080), (2, 5, 3, 881250090)),
    *((2, 6, 5, 881250090),),
]
MOVIES = [
    (1, "Toy Case (1995)", ["Comedy"]),
    (2, "Amélie's Café (1996)", ["Comedy", "Drama"]),
    (3, "Star Dust", ["Sci-Fi"]),
    (4, "Rain (1994)", ["Drama"]),
    (5, "Snow (1993)", ["Drama", "Sci-Fi"]),
    (6, "Fog (1992)", ["Comedy"]),
]


def _item_line(number: int, title: str, genres: list[str]) -> str:
    flags = ["0"] * 19
    for genre in genres:
        flags[GENRE_FLAGS[genre]] = "1"
    return "|".join([str(number), title, "01-Jan-1995", "", "http://example.org", *flags])


def ml_100k_files() -> dict[str, bytes]:
    """u.data in the order of no order, as it is published."""
    rows = [RATED[i] for i in (3, 0, 7, 1, 10, 5, 2, 9, 4, 8, 6)]
    return {
        "u.data": "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in rows).encode(),
        "u.user": U_USER.encode(),
        "u.item": "".join(_item_line(*movie) + "\n" for movie in MOVIES).encode("latin-1"),
    }


def ml_1m_files() -> dict[str, bytes]:
    """ratings.dat, users.dat, movies.dat."""
    return {
        "ratings.dat": "".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in RATED).encode(),
        "users.dat": b"1::F::1::10::48067\n2::M::56::16::70072\n",
        "movies.dat": "".join(f"{n}::{title}::{'|'.join(genres)}\n" for n, title, genres in MOVIES).encode("latin-1"),
    }


def unpacked(files: dict[str, bytes], folder: Path) -> Path:
    """The files in a folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def zipped(files: dict[str, bytes], path: Path) -> Path:
    """The files in an archive, inside a folder of its name, as GroupLens packs them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{path.stem}/{name}", content)
    return path
