"""Point-in-time retrieval: ours against Feast's own engines, on the same definitions and rows.

    python -m benchmarks.retrieval --rows 10000 100000 1000000

Three views (user, item, pair) with a time-to-live and late corrections; twice as many source rows per view as entity
rows. Each cell runs in a process of its own; seconds are of the retrieval alone, without imports and without reading
the definitions; peak memory is of the whole process. Answers are compared with ours, row by row.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

START = datetime(2024, 1, 1, tzinfo=UTC)
N_DAYS = 60
KEYS = {"users": ["user_id"], "items": ["item_id"], "pairs": ["user_id", "item_id"]}
ENGINES = ("ours", "duckdb", "dask")
ROW = "lrm_row"
VIEWS = """
import os
from datetime import timedelta
from pathlib import Path
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32
from lrm.schema import dense

DATA = Path(os.environ["LRM_DATA_DIR"])
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)


def view(name, entities):
    path = str(DATA / f"{name}.parquet")
    source = FileSource(name=name, path=path, timestamp_field="event_time", created_timestamp_column="created_time")
    fields = [Field(name=f"{name}_{k}", dtype=Float32, tags=dense("candidate", "pair")) for k in range(3)]
    return FeatureView(name=name, source=source, entities=entities, ttl=timedelta(days=7), schema=fields)


users, items, pairs = view("users", [user]), view("items", [item]), view("pairs", [user, item])
service = FeatureService(name="benchmark", features=[users, items, pairs])
"""
YAML = """
project: benchmark
provider: local
registry: registry.db
online_store: {{type: sqlite, path: online.db}}
offline_store: {{type: {engine}}}
entity_key_serialization_version: 3
"""


def write_world(folder: Path, n_rows: int) -> None:
    """Entity rows, three sources with a tenth of late corrections, and a feature repo for each of Feast's engines."""
    rng = np.random.default_rng(0)
    n_users, n_items = max(10, n_rows // 100), 200
    draw = {"user_id": n_users, "item_id": n_items}
    rows = {key: rng.integers(0, n, n_rows) for key, n in draw.items()}
    pl.DataFrame(rows | {"event_time": _instants(rng, n_rows)}).write_parquet(folder / "rows.parquet")
    for name, keys in KEYS.items():
        n = 2 * n_rows
        table = pl.DataFrame({key: rng.integers(0, draw[key], n) for key in keys} | {"event_time": _instants(rng, n)})
        late = np.where(rng.random(n) < 0.1, rng.integers(1, 72, n), 0)
        created = pl.col("event_time") + pl.duration(hours=pl.Series(late))
        values = {f"{name}_{k}": rng.normal(size=n).astype(np.float32) for k in range(3)}
        table = table.with_columns(created_time=created, **{column: pl.Series(v) for column, v in values.items()})
        table.unique([*keys, "event_time", "created_time"], keep="first").write_parquet(folder / f"{name}.parquet")
    for engine in ("duckdb", "dask"):
        repo = folder / engine
        repo.mkdir()
        (repo / "views.py").write_text(VIEWS)
        (repo / "feature_store.yaml").write_text(YAML.format(engine=engine))


def _instants(rng: np.random.Generator, n: int) -> pl.Series:
    micros = int(START.timestamp()) * 1_000_000 + rng.integers(0, N_DAYS * 86_400, n) * 1_000_000
    return pl.Series(micros).cast(pl.Datetime("us", "UTC"))


def retrieve(engine: str, folder: Path) -> dict[str, Any]:
    """One cell: retrieve in this process, leave the answer beside the world, and say what it took."""
    from lrm.features import feast_repo, store
    from lrm.features.join import point_in_time
    from lrm.features.sources import read_view

    repo = folder / (engine if engine != "ours" else "duckdb")
    rows = pl.read_parquet(folder / "rows.parquet", glob=False)
    views = feast_repo.declarations(repo, folder).joined
    names = [signal.name for view in views for signal in view.signals]
    if engine == "ours":
        start = time.perf_counter()
        answer = pl.concat(
            [point_in_time(rows, "event_time", view, read_view(view)) for view in views], how="horizontal"
        )
        seconds = time.perf_counter() - start
    else:
        feast = store.applied(repo, folder, folder / f"state-{engine}")
        entities = rows.rename({"event_time": "event_timestamp"}).with_row_index(ROW).to_pandas()
        features = [f"{view.name}:{signal.name}" for view in views for signal in view.signals]
        start = time.perf_counter()
        job = feast.get_historical_features(entity_df=entities, features=features, filter_by_created_timestamp=True)
        found = job.to_arrow()
        seconds = time.perf_counter() - start
        table = pl.DataFrame(pl.from_arrow(found)).cast({ROW: pl.UInt32})
        answer = rows.with_row_index(ROW).select(ROW).join(table, on=ROW, how="inner").sort(ROW).select(ROW, *names)
    answer.write_parquet(folder / f"answer-{engine}.parquet")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak, "rows": answer.height}


def compare(folder: Path, engine: str) -> str:
    """How an engine's answer differs from ours."""
    ours = pl.read_parquet(folder / "answer-ours.parquet", glob=False)
    theirs = pl.read_parquet(folder / f"answer-{engine}.parquet", glob=False)
    if engine == "ours":
        return ""
    kept = ours[theirs[ROW].to_list()] if theirs.height < ours.height else ours
    same = "equal" if kept.equals(theirs.drop(ROW).cast(dict(kept.schema))) else "different values"
    lost = ours.height - theirs.height
    return same if not lost else f"{same}, {lost} rows lost"


def cell(engine: str, folder: Path, timeout_s: float) -> dict[str, Any] | None:
    """Run one cell in a process of its own, in the folder, where a query engine may spill; None if it took too long."""
    command = [sys.executable, str(Path(__file__).resolve()), "--cell", engine, str(folder.resolve())]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return None
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="entity rows")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="always with ours")
    parser.add_argument("--timeout", type=float, default=420.0, help="seconds after which a cell is given up")
    parser.add_argument("--cell", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        print(json.dumps(retrieve(given.cell[0], Path(given.cell[1]))))
        return
    print("| entity rows | engine | seconds | peak memory, MB | rows back | against ours |")
    print("|---|---|---|---|---|---|")
    for n_rows in given.rows:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write_world(folder, n_rows)
            for engine in dict.fromkeys(["ours", *given.engines]):
                label = "this project" if engine == "ours" else f"Feast, {engine}"
                found = cell(engine, folder, given.timeout)
                if found is None:
                    print(f"| {n_rows:,} | {label} | over {given.timeout:.0f} | | | |", flush=True)
                    continue
                numbers = f"{found['seconds']:.2f} | {found['peak_mb']:.0f} | {found['rows']:,}"
                print(f"| {n_rows:,} | {label} | {numbers} | {compare(folder, engine)} |", flush=True)


if __name__ == "__main__":
    main()
