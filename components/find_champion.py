"""registry: which bundle is in service before this run changes anything."""

from kfp import dsl

from components.step import step


@step
def find_champion(
    registry: str, model_name: str, found: dsl.Output[dsl.Artifact], metrics: dsl.Output[dsl.Metrics]
) -> str:
    """Find the version in service.

    Args:
        registry: the model registry, `sqlite:///PATH` or an MLflow server's `http://HOST:PORT`.
        model_name: the registered model.
        found: folder that names the version, and lists the models that were judged before.
        metrics: the same as a table.

    Returns:
        The champion's bundle folder, which never changes once written; empty where nothing is in service.
    """
    from pathlib import Path

    from components.step import log_metrics
    from lrm.registry import run

    champion = run.find_champion(registry, model_name, Path(found.path))
    log_metrics(metrics, champion)
    return str(champion["bundle"])
