"""`evaluation.html`: one self-contained page about an evaluation, from the content of `evaluation.json`."""

from __future__ import annotations

from lrm.reporting import feature_report, page, results, verdict
from lrm.reporting.run_files import Json, of_evaluation

TEMPLATE = "evaluation.html.j2"
VERDICTS = {
    "promote": ("good", "succeeded", "The challenger goes into service."),
    "keep": ("calm", "kept", "The champion stays; the challenger is not promoted."),
    "reject": ("warn", "interrupted", "The challenger is not fit to serve."),
    "inconclusive": ("warn", "interrupted", "These data or this champion cannot tell, so the champion stays."),
}
"""Tone, icon and title of each verdict."""


def render(evaluation: Json, features: Json | None = None) -> str:
    """Make the page as HTML; nothing in it is fetched from elsewhere.

    Args:
        evaluation: the content of `evaluation.json`.
        features: the content of `feature_report.json`; None where there is none.
    """
    files = of_evaluation(evaluation, features)
    tone, icon, title = VERDICTS[evaluation["verdict"]]
    return page.filled(
        TEMPLATE,
        {
            "evaluation": evaluation,
            "tone": tone,
            "icon_name": icon,
            "title": title,
            "decision": evaluation["policy"]["values"]["decision"],
            "warnings": files.feature_report.get("warnings", []),
            "verdict": verdict.verdict(files),
            "metrics": results.metrics(files),
            "comparisons": results.comparisons(files),
            "slices": results.slices(files),
            "calibration": results.calibration(files),
            "examples": results.examples(files),
            "feature_report": feature_report.feature_report(files),
            "facts": facts(evaluation),
        },
    )


def facts(evaluation: Json) -> list[tuple[str, object]]:
    """How the numbers were measured: data, settings, policy, models, machine and seconds."""
    about = {f"{name}: {key}": value for name, rows in evaluation["about"].items() for key, value in rows.items()}
    seconds = {"seconds": ", ".join(f"{name} {value:g}" for name, value in evaluation["seconds"].items())}
    policy = {"policy": evaluation["policy"]["sha256"], "challenger content": evaluation["challenger_content"]}
    rows = evaluation["data"] | evaluation["settings"] | policy | about | evaluation["machine"] | seconds
    return [(name.replace("_", " "), value) for name, value in rows.items() if value is not None]
