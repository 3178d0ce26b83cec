"""DuckDB over polars frames."""

from __future__ import annotations

import polars as pl


def query(text: str, **tables: pl.DataFrame) -> pl.DataFrame:
    """Run one query over frames, each under its argument's name."""
    import duckdb

    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table.to_arrow())
        answer: pl.DataFrame = connection.sql(text).pl()
    return answer
