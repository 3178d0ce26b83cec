"""training: the model artifact, factory and decoder trained together."""

from kfp import dsl

from components.step import step


@step
def train_lrm(
    examples: dsl.Input[dsl.Dataset],
    factory: dsl.Input[dsl.Model],
    code_version: str,
    seed: int,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Fit factory and decoder together, on retrieval and ranking at once.

    Args:
        examples: folder that retrieve_features wrote.
        factory: folder that pretrain_token_factory wrote; it holds the configuration.
        code_version: sha256 of the sources, so that changed code runs again.
        seed: of every random draw.
        model: folder of the model artifact.
        metrics: scores on the validation window.
    """
    from pathlib import Path

    from components.step import log_metrics
    from lrm.training import run

    found = run.train_lrm(Path(examples.path), Path(factory.path), Path(model.path), seed=seed)
    log_metrics(metrics, found)
