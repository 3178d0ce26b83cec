"""One thing that must hold of one table: as an expectation, and in words."""

from __future__ import annotations

from dataclasses import dataclass

import great_expectations.expectations as gxe
import polars as pl
from great_expectations.expectations.metadata_types import FailureSeverity

CRITICAL = FailureSeverity.CRITICAL
"""Stops the run: the examples are not what the declarations promise."""
WARNING = FailureSeverity.WARNING
"""Annotates the run: the data is usable, yet not as it used to be, or not as one would wish."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation on one table, with what a person needs to read its outcome.

    `column` names the column or columns it is about, separated by ", ", and is empty for a rule on the whole table.
    `values` are the columns that the expectation reads, as expressions over the table; a name stands for one expression
    in all rules of a table. `of_rows` is false where they are figures of the whole column: one row.
    """

    name: str
    table: str
    column: str
    expected: str
    expectation: gxe.Expectation
    values: tuple[pl.Expr, ...]
    of_rows: bool = True


def holds(name: str, table: str, column: str, expected: str, claim: pl.Expr) -> Rule:
    """A rule on single rows that no expectation has in store: `claim` must be true wherever it is not null."""
    probe = f"{column}: {name}"
    expectation = gxe.ExpectColumnValuesToBeInSet(column=probe, value_set=[True], severity=CRITICAL)
    return Rule(name, table, column, expected, expectation, (claim.fill_null(True).alias(probe),))


def figure(
    name: str,
    table: str,
    column: str,
    expected: str,
    value: pl.Expr,
    *,
    severity: FailureSeverity,
    minimum: float | None = None,
    maximum: float | None = None,
    strict: bool = False,
) -> Rule:
    """A rule on one number computed over the whole column: `minimum` <= `value` <= `maximum`, or < where `strict`."""
    probe = value.meta.output_name()
    expectation = gxe.ExpectColumnMaxToBeBetween(
        column=probe,
        min_value=minimum,
        max_value=maximum,
        strict_min=strict,
        strict_max=strict,
        severity=severity,
    )
    return Rule(name, table, column, expected, expectation, (value,), of_rows=False)
