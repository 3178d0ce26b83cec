"""registry: a new version under the alias "challenger"."""

from kfp import dsl

from components.step import step


@step
def register_model(
    model: dsl.Input[dsl.Model],
    validation: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    registry: str,
    model_name: str,
    champion: str,
    code_version: str,
    state: str,
    ledger: str,
    registered: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Keep the model, with where it came from, as a new version.

    Args:
        model: folder that train_lrm wrote.
        validation: folder that validate_data wrote, whose statistics the next run is compared with.
        evaluation: folder that evaluate_model wrote.
        registry: the model registry, `sqlite:///PATH` or an MLflow server's `http://HOST:PORT`.
        model_name: the registered model.
        champion: the bundle that the model was compared with; empty where nothing was in service.
        code_version: sha256 of the sources.
        state: folder of what is in service, and of the artifacts where the registry is a server.
        ledger: folder or `gs://BUCKET/PATH` of the promotion ledger; empty for the one that the registry remembers.
        registered: folder that names the version.
        metrics: the version.

    Returns:
        The version.
    """
    from pathlib import Path

    from components.step import log_metrics
    from lrm.record import run_id
    from lrm.registry import run

    made = run.register_model(
        Path(model.path),
        Path(evaluation.path),
        Path(registered.path),
        registry=registry,
        name=model_name,
        code_version=code_version,
        run_id=run_id(),
        validation=Path(validation.path),
        champion=champion,
        state=Path(state),
        ledger=ledger,
    )
    log_metrics(metrics, made)
    return str(made["version"])
