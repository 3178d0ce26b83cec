"""reporting: the exit step; what happened, whatever happened."""

from kfp import dsl

from components.step import step


@step
def report_run(
    status: dsl.PipelineTaskFinalStatus, page: dsl.Output[dsl.HTML], summary: dsl.Output[dsl.Markdown]
) -> None:
    """Write the run's report from the records that its steps left.

    Args:
        status: how the workflow ended.
        page: the report.
        summary: its closing lines.
    """
    import json
    import shutil
    from pathlib import Path

    from lrm.record import current_run
    from lrm.reporting import run
    from lrm.reporting.summary import summary_text

    run_dir = current_run() or Path(page.path).parent
    run.report_run(run_dir, state=status.state, error=status.error_message or "")
    shutil.copyfile(run_dir / "report.html", page.path)
    text = summary_text(json.loads((run_dir / "summary.json").read_text()), run_dir=run_dir)
    Path(summary.path).write_text(f"```\n{text}\n```\n")
