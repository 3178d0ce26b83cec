"""training: a token factory that already carries its signals."""

from kfp import dsl

from components.step import step


@step
def pretrain_token_factory(
    examples: dsl.Input[dsl.Dataset],
    code_version: str,
    preset: str,
    seed: int,
    factory: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Teach the token factory to predict hidden signals, co-occurrence and the next item from its tokens alone.

    Args:
        examples: folder that retrieve_features wrote.
        code_version: sha256 of the sources, so that changed code runs again.
        preset: name of a configuration in `lrm/presets/`.
        seed: of every random draw.
        factory: folder of weights, vocabulary and curves.
        metrics: the losses reached.
    """
    from pathlib import Path

    from components.step import log_metrics
    from lrm.training import run

    found = run.pretrain_token_factory(Path(examples.path), Path(factory.path), preset=preset, seed=seed)
    log_metrics(metrics, found)
