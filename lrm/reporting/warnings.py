"""What a person should look at whatever the verdict: what the steps found odd and did not stop for."""

from __future__ import annotations

from collections.abc import Iterator

from lrm.reporting.run_files import Json, RunFiles
from lrm.reporting.wording import is_number

EXPIRED_SHARE = 0.1
"""Share of the values known online beyond which those that have expired are worth a warning: their source may have
stopped. Data that end long before a run, as a public data set does, are checked in staging at their own end."""


def warnings(files: RunFiles) -> list[Json]:
    """Every warning of a run, in the order of its steps: `step`, `kind`, `what` in a sentence, `value` and `bar`."""
    return [*_expectations(files), *_drift(files), *_expired(files), *_leaks(files)]


def _expectations(files: RunFiles) -> Iterator[Json]:
    for check in files.validation.get("checks", []):
        if check.get("success") or check.get("severity") == "critical":
            continue  # a critical one has stopped the run, and is its error
        where = ".".join(filter(None, (check["table"], check["column"])))
        seen, asked = (str(check.get(side)) for side in ("observed", "expected"))
        what = f"{where}: {check['name']}: {seen}, expected {asked}."
        yield _warning("validate_data", "expectation", what, seen, asked)


def _drift(files: RunFiles) -> Iterator[Json]:
    for row in files.validation.get("drift", []):
        if row.get("drifted"):
            moved, bar = row.get("distance"), row.get("threshold")
            said = f" ({row['measure']} {moved:.3f}, above {bar:.3f})" if is_number(moved) and is_number(bar) else ""
            what = f"{row['table']}.{row['signal']} has drifted from what the champion was trained on{said}."
            yield _warning("validate_data", "drift", what, moved, bar)


def _expired(files: RunFiles) -> Iterator[Json]:
    by_signal, n_known = files.staging.get("expired") or {}, files.staging.get("n_ever_known")
    share = sum(by_signal.values()) / n_known if n_known else 0.0
    if share > EXPIRED_SHARE:
        named = ", ".join(f"{name} {n:,}" for name, n in by_signal.items())
        what = f"{share:.0%} of the values known online have expired, so null: {named}."
        yield _warning("check_in_staging", "expired", what, share, EXPIRED_SHARE)


def _leaks(files: RunFiles) -> Iterator[Json]:
    odd = [row for row in files.feature_report.get("signals", []) if row.get("verdict") == "suspicious"]
    said = files.feature_report.get("warnings", [])
    alone = [row.get("alone_auc") for row in odd] if len(odd) == len(said) else [None] * len(said)
    for what, value in zip(said, alone, strict=True):
        yield _warning("evaluate_model", "leak", what, value, None)


def _warning(step: str, kind: str, what: str, value: object, bar: object) -> Json:
    return {"step": step, "kind": kind, "what": what, "value": value, "bar": bar}
