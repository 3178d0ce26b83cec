"""`report.html`: one self-contained page, written from the sections by a template that escapes all text."""

from __future__ import annotations

from pathlib import Path

from lrm.reporting import ledger, results, sections, staging, svg, verdict, wording, workflow
from lrm.reporting.run_files import Json, Kept

TEMPLATE = "report.html.j2"
STYLE = "report.css"


def render(summary: Json, kept: Kept, *, trend: str = "") -> str:
    """The page of a run, with a link to the page of all runs where there is one."""
    return filled(TEMPLATE, context(summary, kept) | {"trend": trend})


def filled(template: str, content: Json) -> str:
    """A template of this room with its content and the style sheet."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"icon": workflow.icon, "swatch": svg.swatch, "model_name": wording.model_name}
    return environment.get_template(template).render(style=(here / STYLE).read_text(), **content)


def context(summary: Json, kept: Kept) -> Json:
    """Everything that the template names."""
    shown = {
        "data": sections.data_card(kept),
        "validation": sections.validation(kept),
        "pretraining": sections.curves(kept.pretraining_curves),
        "training": sections.curves(kept.training_curves, best_epoch=kept.training_metrics.get("best_epoch")),
        "staging": staging.section(kept),
        "verdict": verdict.verdict(kept),
        "metrics": results.metrics(kept),
        "comparisons": results.comparisons(kept),
        "slices": results.slices(kept),
        "calibration": results.calibration(kept),
        "examples": results.examples(kept),
        "ledger": ledger.signal_ledger(kept),
        "signals": sections.signals(kept),
    }
    return shown | {
        "summary": summary,
        "banner": sections.banner(summary, kept),
        "tiles": sections.tiles(summary, kept),
        "workflow_wide": workflow.wide(summary["steps"]),
        "workflow_narrow": workflow.narrow(summary["steps"]),
        "lineage": sections.lineage(summary, kept),
        "timings": sections.timings(summary),
        "unreadable": kept.unreadable,
        "missing": [name for name, content in shown.items() if not content],
    }
