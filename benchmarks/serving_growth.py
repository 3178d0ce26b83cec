"""How serving grows with the catalogue: every item scored, against the index of large catalogues.

    python -m benchmarks.serving_growth [--sizes 10000 100000 1000000 --seconds 10 --page growth.html]

For each size a made-up shop is released with a model of random weights (`benchmarks.serving_world`), its index is built
as a roll-out builds it, whatever the size, and two servers answer the same clients in turn: one searches the index, the
other takes the exact product. Recall at 20 and the error of a score are those of the release. `--page` draws the CPU
time of an answer. Each million items needs 1 GB of memory and half a minute.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.command import positive, run
from benchmarks.common import keep_table, machine, markdown
from benchmarks.curves import curves_page
from benchmarks.serving_load import closed
from benchmarks.serving_servers import OURS, measured, request_of, served
from benchmarks.serving_world import made_release
from lrm.serving.engine.index_builder import with_index
from lrm.serving.release import read_release, write_release

EXACT, INDEXED = "every item", "index"
ARMS = {EXACT: ("--search-effort", "0"), INDEXED: ()}
HEADER = (
    "items",
    "search",
    "answers a second",
    "CPU ms each",
    "p50 ms alone",
    "MB",
    "build s",
    "recall at 20",
    "score error",
)


def sized(folder: Path, size: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One release, served both ways."""
    place = made_release(
        folder, n_items=size, n_users=options.users, preset=options.preset, exact_up_to=None, only_users=True
    )
    start = time.perf_counter()
    release = with_index(read_release(place))
    seconds = time.perf_counter() - start
    write_release(release)
    facts, found = release.catalogue_index, []
    for arm, arguments in ARMS.items():
        if arm == INDEXED and facts is None:
            continue
        with served(OURS, place, *arguments) as server:
            load, cpu = measured(OURS, server, options)
            lone = closed(server.port, *request_of(OURS, n_users=options.users), clients=1, seconds=options.seconds / 2)
            cell = {"items": size, "search": arm, "answers": load.goodput, "cpu_ms": 1000 * cpu, "p50_ms": lone.ms(50)}
            found.append(cell | {"mb": server.memory_mb()})
        if arm == INDEXED and facts is not None:
            found[-1] |= {"build_s": seconds, "recall": facts["recall_at_20"], "error": facts["score_error"]}
    return found


def row(cell: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    measured_of = (
        [f"{cell['build_s']:.1f}", f"{cell['recall']:.3f}", f"{cell['error']:.4f}"] if "recall" in cell else []
    )
    speed = (f"{cell['answers']:,.0f}", f"{cell['cpu_ms']:.2f}", f"{cell['p50_ms']:.1f}", f"{cell['mb']:,.0f}")
    return (f"{cell['items']:,}", cell["search"], *speed, *(measured_of or ("", "1", "0")))


def main() -> None:
    """Print the table, and draw the page."""
    options, began, cells = parsed(), time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="growth-") as place:
        for size in options.sizes:
            cells += sized(Path(place, str(size)), size, options)
    print(markdown(HEADER, [row(cell) for cell in cells]))
    keep_table("serving_growth", {"cells": cells})
    told = (
        f"{options.users} users of 50 events, {options.clients} clients, {options.seconds} s, preset {options.preset}"
    )
    print(f"\n{told}; {machine()}; {time.monotonic() - began:.0f} s")
    if options.page:
        curves = {arm: [(c["items"], c["cpu_ms"]) for c in cells if c["search"] == arm] for arm in ARMS}
        page = curves_page("Growth with the catalogue", curves, across="items", up="CPU ms an answer", by_decade=True)
        options.page.write_text(page)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=positive, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--users", type=positive, default=500)
    parser.add_argument("--clients", type=positive, default=32)
    parser.add_argument("--seconds", type=positive, default=10, help="of each measurement")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--page", type=Path, help="where to draw the curves, an HTML page")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
