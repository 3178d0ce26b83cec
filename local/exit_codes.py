"""How a run ended, as the exit code that a scheduler reads."""

from __future__ import annotations

from typing import Any

SUCCEEDED, FAILED, KEPT, SUSPECT, INTERRUPTED = 0, 1, 3, 4, 130
"""2 is wrong usage, as of any command."""
ENDED = (SUCCEEDED, KEPT, SUSPECT)
"""The whole workflow ran, and what was in service is served."""
WORDS = {
    SUCCEEDED: "well",
    FAILED: "in a failure",
    KEPT: "well, and the champion stays",
    SUSPECT: "whole, and a person should look at what it found",
    INTERRUPTED: "when it was interrupted",
}
HELP = """exit codes:
  0    the whole workflow ran, and the model was promoted or the champion stays: both are normal
  1    a step failed, or the run could not begin
  2    wrong usage
  3    with --detailed-exit-code: the champion stays (verdict keep), without a warning
  4    the whole workflow ran, and a person should look: the model was rejected, or the evidence is not to be trusted
       (verdict inconclusive); the champion stays. With --detailed-exit-code also where there are warnings: drift,
       failed expectations, expired values, signals that may leak
  130  interrupted"""


def exit_code(summary: dict[str, Any], *, detailed: bool) -> int:
    """The exit code of a run whose every step ended well.

    Args:
        summary: its `summary.json`.
        detailed: tell a kept champion from a promotion, and warnings from none.
    """
    if summary["verdict"] not in ("promote", "keep") or (detailed and summary["warnings"]):
        return SUSPECT
    return KEPT if detailed and summary["verdict"] == "keep" else SUCCEEDED
