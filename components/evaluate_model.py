"""evaluation: challenger and champion on the same targets; a verdict."""

from kfp import dsl

from components.step import step


@step
def evaluate_model(
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    staging: dsl.Input[dsl.Artifact],
    champion: str,
    found: dsl.Input[dsl.Artifact],
    as_of: str,
    allow_backfill: str,
    preset: str,
    seed: int,
    feature_repo: str,
    evaluation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Score the challenger, the champion and the simple baselines on the same held-out targets.

    Args:
        examples: folder that retrieve_features wrote.
        model: folder that train_lrm wrote: the challenger.
        staging: folder that check_in_staging wrote.
        champion: the champion's bundle; empty where nothing is in service.
        found: folder that find_champion wrote, which knows what was rolled back and who was judged before.
        as_of: ISO instant at which somebody asked the data to end; if any, nothing is promoted unless that is allowed.
        allow_backfill: why something may be promoted all the same; empty for no.
        preset: name of a configuration in `lrm/presets/`.
        seed: of samples and bootstrap draws.
        feature_repo: the declarations of the data, whose policy.toml overrules the project's.
        evaluation: folder of metrics with intervals, slices and example recommendations.
        page: the same for a person.
        metrics: the headline numbers.

    Returns:
        The verdict: `promote`, `keep`, `reject` or `inconclusive`.
    """
    import shutil
    from pathlib import Path

    from components.step import log_metrics
    from lrm.evaluation import run

    in_service = Path(champion) if champion else None
    judged = run.evaluate_model(
        Path(examples.path),
        Path(model.path),
        in_service,
        Path(evaluation.path),
        preset=preset,
        seed=seed,
        is_backfill=bool(as_of),
        allow_backfill=bool(allow_backfill),
        feature_repo=Path(feature_repo),
        staging=Path(staging.path),
        found=Path(found.path),
    )
    shutil.copyfile(Path(evaluation.path, run.PAGE), page.path)
    log_metrics(metrics, judged)
    return str(judged["verdict"])
