"""serving: online features fresh, bundle published, a probe request answered."""

from kfp import dsl

from components.step import step


@step
def roll_out(
    data: str,
    feature_repo: str,
    examples: dsl.Input[dsl.Dataset],
    registry: str,
    model_name: str,
    state: str,
    rolled_out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Serve the champion: fresh online features, then a probe whose scores must equal the offline ones.

    Args:
        data: the data folder.
        feature_repo: folder of the signals' declarations.
        examples: folder that retrieve_features wrote.
        registry: the model registry, `sqlite:///PATH` or an MLflow server's `http://HOST:PORT`.
        model_name: the registered model.
        state: folder of what is in service and of the online store.
        rolled_out: folder of the probe's answer.
        metrics: probe latency and the largest difference to the offline scores.
    """
    from pathlib import Path

    from components.step import log_metrics
    from lrm.serving import run

    found = run.roll_out(
        Path(examples.path),
        Path(rolled_out.path),
        registry=registry,
        name=model_name,
        data=Path(data),
        feature_repo=Path(feature_repo),
        state=Path(state),
    )
    log_metrics(metrics, found)
