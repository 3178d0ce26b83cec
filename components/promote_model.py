"""registry: the alias "champion" moves to the version that won."""

from kfp import dsl

from components.step import step


@step
def promote_model(
    registry: str,
    model_name: str,
    version: str,
    note: str,
    promoted: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Make a version the champion, unless another promoter came first.

    Args:
        registry: the model registry, `sqlite:///PATH` or an MLflow server's `http://HOST:PORT`.
        model_name: the registered model.
        version: the version to promote.
        note: a person's words for the ledger, such as why a run of the past may promote.
        promoted: folder that names the promotion.
        metrics: the same as a table.

    Returns:
        The version in service now.
    """
    from pathlib import Path

    from components.step import log_metrics
    from lrm.record import run_id
    from lrm.registry import run

    moved = run.promote_model(
        Path(promoted.path), registry=registry, name=model_name, version=version, run_id=run_id(), note=note
    )
    log_metrics(metrics, moved)
    return str(moved["champion"])
