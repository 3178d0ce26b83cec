"""`report.html`: one self-contained page, written from the sections by a template that escapes all text."""

from __future__ import annotations

from pathlib import Path

from lrm.reporting import feature_report, results, sections, staging, svg, verdict, wording, workflow
from lrm.reporting.run_files import Json, RunFiles

TEMPLATE = "report.html.j2"
STYLE = "report.css"


def render(summary: Json, files: RunFiles, *, trend: str = "") -> str:
    """The page of a run, with a link to the page of all runs where there is one."""
    return filled(TEMPLATE, context(summary, files) | {"trend": trend})


def filled(template: str, content: Json) -> str:
    """A template of this room with its content and the style sheet."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cut": wording.cut}
    environment.globals |= {"icon": workflow.icon, "swatch": svg.swatch, "model_name": wording.model_name}
    return environment.get_template(template).render(style=(here / STYLE).read_text(), **content)


def context(summary: Json, files: RunFiles) -> Json:
    """Everything that the template names."""
    shown = {
        "data": sections.data_card(files),
        "validation": sections.validation(files),
        "pretraining": sections.curves(files.pretraining_curves),
        "training": sections.curves(files.training_curves, best_epoch=files.training_metrics.get("best_epoch")),
        "staging": staging.section(files),
        "verdict": verdict.verdict(files),
        "metrics": results.metrics(files),
        "comparisons": results.comparisons(files),
        "slices": results.slices(files),
        "calibration": results.calibration(files),
        "examples": results.examples(files),
        "feature_report": feature_report.feature_report(files),
        "signals": sections.signals(files),
    }
    return shown | {
        "summary": summary,
        "banner": sections.banner(summary, files),
        "tiles": sections.tiles(summary, files),
        "workflow_wide": workflow.wide(summary["steps"]),
        "workflow_narrow": workflow.narrow(summary["steps"]),
        "lineage": sections.lineage(summary, files),
        "timings": sections.timings(summary),
        "unreadable": files.unreadable,
        "missing": [name for name, content in shown.items() if not content],
    }
