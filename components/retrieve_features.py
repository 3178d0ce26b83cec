"""features: point-in-time training examples, held-out targets kept apart."""

from kfp import dsl

from components.step import step


@step
def retrieve_features(
    data: str,
    feature_repo: str,
    data_version: str,
    code_version: str,
    as_of: str,
    seed: int,
    examples: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Join every signal to the instant at which it was known, and cut the data by time.

    Args:
        data: the data folder.
        feature_repo: folder of the signals' declarations.
        data_version: sha256 of its content, so that a changed folder is read again.
        code_version: sha256 of the sources, so that changed code runs again.
        as_of: ISO instant at which the data ends; empty: where the folder says.
        seed: kept with the examples.
        examples: folder of tables and their manifest.
        metrics: row counts.
    """
    from pathlib import Path

    from components.step import log_metrics
    from lrm.features import run

    found = run.retrieve_features(Path(data), Path(feature_repo), Path(examples.path), as_of=as_of, seed=seed)
    log_metrics(metrics, found)
