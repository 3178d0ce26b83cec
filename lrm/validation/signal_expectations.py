"""The declared part of the suite: what the feature repo says of each signal, in every table where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import great_expectations.expectations as gxe
import polars as pl

from lrm.features.tables import Tables
from lrm.schema import BAG, DENSE, EMBEDDING, SPARSE, Signal
from lrm.validation.columns import Placed, inhabited
from lrm.validation.rule import CRITICAL, WARNING, Rule, figure, holds

NULL_RATE_CHANGE = 0.05
"""How far a signal's share of nulls may move against the champion's data, beyond sampling noise."""
ROUNDING = 1e-9
"""By how much a share may fall short of its bound: 1 - 0.7 is a little more than 0.3."""
Z_999 = 3.2905
"""Standard normal quantile of a two-sided test at 0.001."""


def declared(
    tables: Tables, placed: Placed, *, statistics: Mapping[str, Any], reference: Mapping[str, Any] | None
) -> list[Rule]:
    """Values and nulls of each signal, and its null rate against the champion's `reference` statistics."""
    rules: list[Rule] = []
    for table in inhabited(tables):
        known = (reference or {}).get(table, {}).get("signals", {})
        for signal in placed.get(table, ()):
            now = statistics[table]["signals"][signal.name]
            found = [*_values(table, signal), *_nulls(table, signal, now["null_rate"])]
            if signal.name in known:
                found.append(_null_rate_as_before(table, signal, now, known[signal.name]))
            rules += map(_milder, found) if signal.retired else found
    return rules


def _milder(rule: Rule) -> Rule:
    """The same as a warning: nothing is trained on a retired signal."""
    return replace(rule, expectation=rule.expectation.copy(update={"severity": WARNING}))


def _fast(signal: Signal) -> pl.Expr:
    """The column in a form that Great Expectations judges without a Python call per value."""
    value = pl.col(signal.name)
    if signal.kind == DENSE:
        return value.cast(pl.Float64)
    if signal.kind == SPARSE:
        return value.cast(pl.Categorical)
    return pl.when(value.is_not_null()).then(pl.lit(1.0)).alias(signal.name)


def _values(table: str, signal: Signal) -> Iterator[Rule]:
    name, value = signal.name, pl.col(signal.name)
    if signal.kind == DENSE:
        yield holds("finite", table, name, "no NaN, no infinity", value.is_finite())
        if signal.minimum is not None or signal.maximum is not None:
            low, high = signal.stored_range
            between = gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high, severity=CRITICAL)
            yield Rule("in range", table, name, signal.range_in_words, between, (_fast(signal),))
    if signal.categories is not None:
        listed, categories = signal.categories_in_words, list(signal.categories)
        if signal.kind == SPARSE:
            among = gxe.ExpectColumnValuesToBeInSet(column=name, value_set=categories, severity=CRITICAL)
            yield Rule("declared category", table, name, listed, among, (_fast(signal),))
        elif signal.kind == BAG:
            undeclared = value.list.set_difference(categories).list.len()
            yield holds("declared category", table, name, listed, undeclared == 0)
    if signal.kind == EMBEDDING:
        finite = value.list.eval(pl.element().is_finite().fill_null(False)).list.all()
        yield holds("finite", table, name, "no null, no NaN, no infinity inside", finite)
        yield holds("width", table, name, f"{signal.dim} numbers", value.list.len() == signal.dim)


def _nulls(table: str, signal: Signal, null_rate: float) -> Iterator[Rule]:
    """Items stand as known at one late instant, where values may rightly have expired: no more than a warning there."""
    name = signal.name
    if signal.max_null_rate < 1.0:
        severity = WARNING if table == "items" else CRITICAL
        known = max(0.0, 1 - signal.max_null_rate - ROUNDING)
        mostly = gxe.ExpectColumnValuesToNotBeNull(column=name, mostly=known, severity=severity)
        yield Rule("null rate", table, name, f"at most {signal.max_null_rate:.1%} null", mostly, (_fast(signal),))
    if table == "items":
        return
    share, expected = _null_share(name), "share of nulls below 1"
    yield figure("not all null", table, name, expected, share, severity=WARNING, maximum=1, strict=True)
    if null_rate < 1.0:
        values = pl.col(name).drop_nulls().n_unique().alias(f"{name}: values")
        expected = "at least 2 different values"
        yield figure("not constant", table, name, expected, values, severity=WARNING, minimum=2)


def _null_share(name: str) -> pl.Expr:
    return pl.col(name).is_null().mean().alias(f"{name}: share of nulls")


def _null_rate_as_before(table: str, signal: Signal, now: Mapping[str, Any], before: Mapping[str, Any]) -> Rule:
    rate, share = before["null_rate"], _null_share(signal.name)
    pooled = (rate + now["null_rate"]) / 2
    noise = Z_999 * (pooled * (1 - pooled) * (1 / before["n_effective"] + 1 / now["n_effective"])) ** 0.5
    low, high = max(0.0, rate - NULL_RATE_CHANGE - noise), min(1.0, rate + NULL_RATE_CHANGE + noise)
    expected = f"share of nulls {low:.3g} to {high:.3g} (the champion's data had {rate:.3g})"
    return figure(
        "null rate as before", table, signal.name, expected, share, severity=WARNING, minimum=low, maximum=high
    )
