"""Run rules through Great Expectations, and find the rows that broke them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import great_expectations as gx
import polars as pl
from great_expectations.data_context.types.base import ProgressBarsConfig

from lrm.features.tables import Tables
from lrm.progress import progress
from lrm.schema import EVENT_TIME, ITEM_ID, REQUEST_ID, USER_ID
from lrm.validation.columns import ROW_ID, row_id
from lrm.validation.rule import Rule

N_EXAMPLES = 3
"""Rows shown of a broken rule; the quarantine has them all."""
QUARANTINE_ROWS = 50_000
"""Rows turned into text at a time."""
LOCATE = {"result_format": "COMPLETE", "return_unexpected_index_query": False}


class Judgement(NamedTuple):
    """One rule's outcome."""

    check: dict[str, Any]
    """As in `validation.json`."""
    bad: pl.Series
    """Positions in the table of the rows that broke the rule: empty where it held, or is not about single rows."""


def judge(tables: Tables, rules: Sequence[Rule], *, what: str) -> list[Judgement]:
    """Judge every rule, in their order.

    The rules of one column are one suite on one batch, which holds the columns they read and nothing else: Great
    Expectations copies and fingerprints whole batches. All rules on figures of a table share a batch of one row.

    Args:
        tables: the examples.
        rules: what must hold.
        what: a word for the progress bar.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("examples")
    column_of_table = source.add_dataframe_asset("column").add_batch_definition_whole_dataframe("column")
    suites: dict[tuple[str, str], list[int]] = {}
    for index, rule in enumerate(rules):
        rule.expectation.meta = {"rule": index}  # results come in an order of their own
        suites.setdefault((rule.table, rule.column if rule.of_rows else ""), []).append(index)
    judgements: dict[int, Judgement] = {}
    for (name, column), indices in progress(suites.items(), what=what, unit="column"):
        table: pl.DataFrame = getattr(tables, name)
        values = {value.meta.output_name(): value for index in indices for value in rules[index].values}
        batch = column_of_table.get_batch({"dataframe": table.select(values.values()).to_pandas()})
        suite = gx.ExpectationSuite(f"{name}.{column}", expectations=[rules[index].expectation for index in indices])
        for result in batch.validate(suite, result_format="BASIC").results:
            config: Any = result.expectation_config
            index = config.meta["rule"]
            if not result.success:
                result = batch.validate(rules[index].expectation, result_format=LOCATE)
            judgements[index] = _judgement(rules[index], result, table)
    return [judgements[index] for index in range(len(rules))]


def _judgement(rule: Rule, result: Any, table: pl.DataFrame) -> Judgement:
    located = rule.of_rows and not result.success
    positions = (result.result.get("unexpected_index_list") or []) if located else []
    bad = pl.Series("position", positions, dtype=pl.UInt32)
    check = {
        "name": rule.name,
        "table": rule.table,
        "column": rule.column,
        "severity": rule.expectation.severity.value,
        "success": bool(result.success),
        "observed": _observed(result, table.height),
        "expected": rule.expected,
        "n_bad": len(bad),
        "examples": list(_examples(rule, table[bad.head(N_EXAMPLES)])),
    }
    return Judgement(check, bad)


def _observed(result: Any, n_rows: int) -> str:
    """What was seen, in words."""
    seen = result.result
    if not seen:
        return f"not judged: {_raised(result.exception_info)}"
    if "observed_value" not in seen:
        return f"{seen['unexpected_count']:,} bad of {n_rows:,} rows"
    if seen.get("missing_count"):
        return f"no {_listed(seen['partial_missing_list'])}"
    if seen.get("unexpected_count"):
        return _listed(seen["partial_unexpected_list"])
    return "as expected" if seen["observed_value"] is None else _plain(seen["observed_value"])


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(_plain(value) for value in values)


def _raised(info: dict[str, Any]) -> str:
    nested = [info, *(value for value in info.values() if isinstance(value, dict))]
    return next((str(one["exception_message"]) for one in nested if one.get("exception_message")), "no result")


def _plain(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _examples(rule: Rule, rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of a table, cut to the columns that say which row it is and what is wrong with it."""
    keys = [*ROW_ID[rule.table], REQUEST_ID, USER_ID, ITEM_ID, EVENT_TIME]
    wanted = dict.fromkeys([*keys, *rule.column.split(", ")])
    for row in rows.select([name for name in wanted if name in rows.columns]).iter_rows(named=True):
        yield {name: _jsonable(value) for name, value in row.items()}


def _jsonable(value: Any) -> Any:
    """JSON has no NaN, no infinity and no instants: those as text."""
    if isinstance(value, list):
        return [_jsonable(one) for one in value]
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    return value if value is None or isinstance(value, int | str) else value.isoformat()


def quarantine(tables: Tables, judgements: Iterable[Judgement]) -> Iterator[pl.DataFrame]:
    """The rows that broke a rule, some at a time: `table`, `row_id`, `column`, `reason`, `row` (JSON text).

    They are copies: the tables keep every row. NaN and infinity, which JSON has not, are null inside `row` and spelled
    out in `reason`.
    """
    for check, bad in judgements:
        table: pl.DataFrame = getattr(tables, check["table"])
        columns = [name for name in check["column"].split(", ") if name in table.columns]
        why = pl.lit(f"{check['name']}: expected {check['expected']}; seen ")
        for start in range(0, len(bad), QUARANTINE_ROWS):
            yield table[bad.slice(start, QUARANTINE_ROWS)].select(
                table=pl.lit(check["table"]),
                row_id=row_id(check["table"]).fill_null("null"),
                column=pl.lit(check["column"]),
                reason=pl.concat_str(why, pl.concat_str([_text(table, name) for name in columns], separator=", ")),
                row=pl.struct(pl.all()).struct.json_encode(),
            )


def _text(table: pl.DataFrame, column: str) -> pl.Expr:
    value = pl.col(column)
    if isinstance(table.schema[column], pl.List):
        value = value.list.eval(pl.element().cast(pl.String).fill_null("null")).list.join(" ")
    return value.cast(pl.String).fill_null("null")
