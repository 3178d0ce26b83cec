"""serving: the trained model in the real server, online and offline answers side by side."""

from kfp import dsl

from components.step import step


@step
def check_in_staging(
    data: str,
    feature_repo: str,
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    champion: str,
    staging: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Serve the model in a scratch place, and hold its answers against offline scores; measures and never judges.

    Args:
        data: the data folder.
        feature_repo: folder of the signals' declarations.
        examples: folder that retrieve_features wrote.
        model: folder that train_lrm wrote.
        champion: the champion's bundle, asked the same beside it; empty where nothing is in service.
        staging: folder of the differences, latencies and sizes.
        metrics: the same as a table.
    """
    from pathlib import Path

    from components.step import log_metrics
    from lrm.serving import run

    found = run.check_in_staging(
        Path(examples.path),
        Path(model.path),
        Path(champion) if champion else None,
        Path(staging.path),
        data=Path(data),
        feature_repo=Path(feature_repo),
    )
    log_metrics(metrics, found)
