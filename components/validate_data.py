"""validation: a report; a broken critical expectation stops the run."""

from kfp import dsl

from components.step import step


@step
def validate_data(
    examples: dsl.Input[dsl.Dataset],
    champion: str,
    code_version: str,
    validation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Check the examples against their declarations, and against what the champion was trained on.

    Args:
        examples: folder that retrieve_features wrote.
        champion: the champion's bundle; empty where nothing is in service.
        code_version: sha256 of the sources, so that changed code runs again.
        validation: folder of the checks, the drift, the statistics and the quarantined rows.
        page: the same for a person.
        metrics: counts of checks and of those broken.
    """
    import shutil
    from pathlib import Path

    from components.step import log_metrics
    from lrm.validation import run

    reference = Path(champion, "statistics.json") if champion else None
    found = run.validate_data(Path(examples.path), reference, Path(validation.path))
    shutil.copyfile(Path(validation.path, run.PAGE), page.path)
    log_metrics(metrics, found)
