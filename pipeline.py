"""The workflow, and its command line: `python pipeline.py run` for this machine, `compile` for Kubeflow Pipelines.

The other commands are in `local/commands/`.
"""

import argparse
import errno
import os
import re
import sys
from datetime import datetime
from pathlib import Path

from kfp import compiler, dsl

from components.check_in_staging import check_in_staging
from components.cluster import for_cluster, on_image
from components.evaluate_model import evaluate_model
from components.find_champion import find_champion
from components.pretrain_token_factory import pretrain_token_factory
from components.promote_model import promote_model
from components.register_model import register_model
from components.report_run import report_run
from components.retrieve_features import retrieve_features
from components.roll_out import roll_out
from components.step import IMAGE, uncached
from components.train_lrm import train_lrm
from components.validate_data import validate_data
from local import container_runner, exit_codes, run_layout
from local.commands import COMMANDS
from local.commands.model_options import check_ledger, check_registry
from local.commands.run_options import add_data_options, add_place_options, add_step_timeout
from local.notify import SUMMARY, notify
from local.notify import check as check_target
from local.prepare import PROJECT, code_version, find_data, start_run
from local.runner import run
from local.upload import check_address, upload
from lrm import manifest
from lrm.errors import LrmError
from lrm.faults import advice
from lrm.presets import check_parts, preset
from lrm.process_environment import settle


@dsl.pipeline(name="token-factory")  # type: ignore[untyped-decorator]
def workflow(
    data: str = "/lrm/data/complete-journey",
    feature_repo: str = "/lrm/data/complete-journey/feature_repo",
    model_name: str = "complete-journey",
    registry: str = "sqlite:////lrm/state/mlflow.db",
    state: str = "/lrm/state",
    ledger: str = "",
    as_of: str = "",
    allow_backfill: str = "",
    preset: str = "default",
    seed: int = 0,
    data_version: str = "",
    code_version: str = "",
) -> None:
    """Retrain on fresh data, promote the new model only if it wins, keep what is served fresh, report in any case.

    Args:
        data: Folder of the data: events, requests, candidates and feature tables as Parquet, and dataset.json.
        feature_repo: Folder of the Feast definitions that declare every signal of that data once.
        model_name: Name under which the model registry keeps the versions of this data's model.
        registry: The model registry, as sqlite:///PATH, or the http:// address of an MLflow server.
        state: Folder of what is in service and of the online feature store.
        ledger: Folder or gs://BUCKET/PATH of the promotion ledger; empty for the one that the registry remembers.
        as_of: ISO instant at which the data ends for this run; empty for the end of the data.
        allow_backfill: Why a run with as_of may promote, for the ledger; empty, and it never does.
        preset: Name of a configuration in lrm/presets/, such as default or tiny.
        seed: Seed of every random draw: the same inputs and seed give the same model.
        data_version: sha256 of the data folder; completed steps are reused while it stays the same.
        code_version: sha256 of the sources; completed steps are reused while it stays the same.
    """
    source = {"data": data, "feature_repo": feature_repo}
    store = {"registry": registry, "model_name": model_name}
    recipe = {"preset": preset, "seed": seed}
    with dsl.ExitHandler(uncached(report_run()), name="retrain"):
        found = uncached(find_champion(**store))
        champion = found.outputs["Output"]
        retrieved = retrieve_features(
            **source, data_version=data_version, code_version=code_version, as_of=as_of, seed=seed
        )
        examples = retrieved.outputs["examples"]
        validated = validate_data(examples=examples, champion=champion, code_version=code_version)
        validation = validated.outputs["validation"]
        pretrained = pretrain_token_factory(examples=examples, code_version=code_version, **recipe).after(validated)
        trained = train_lrm(
            examples=examples, factory=pretrained.outputs["factory"], code_version=code_version, seed=seed
        )
        model = trained.outputs["model"]
        staged = uncached(check_in_staging(examples=examples, model=model, champion=champion, **source))
        evaluated = uncached(
            evaluate_model(
                examples=examples,
                model=model,
                staging=staged.outputs["staging"],
                champion=champion,
                found=found.outputs["found"],
                as_of=as_of,
                allow_backfill=allow_backfill,
                feature_repo=feature_repo,
                **recipe,
            )
        )
        evaluation, verdict = evaluated.outputs["evaluation"], evaluated.outputs["Output"]
        registered = uncached(
            register_model(
                model=model,
                validation=validation,
                evaluation=evaluation,
                champion=champion,
                code_version=code_version,
                state=state,
                ledger=ledger,
                **store,
            )
        )
        served = {"examples": examples, "state": state, **source, **store}
        with dsl.If(verdict == "promote"):
            promoted = uncached(promote_model(version=registered.outputs["Output"], note=allow_backfill, **store))
            uncached(roll_out(**served)).after(promoted)
        with dsl.Else():
            uncached(roll_out(**served)).after(registered)


EPILOG = """examples:
  python pipeline.py run                              the default data, on this machine, in minutes
  python pipeline.py run --preset tiny                a tiny model, to see every step once: it trains in seconds on
                                                      small data (examples/own-data), in minutes on the default
  python pipeline.py run --data ml-100k --data-root ~/data
                                                      other built-in data, from files you have downloaded
  python pipeline.py run --data my-data/              your own data; docs/own-data.md shows how to lay it out
  python pipeline.py run --as-of 2017-11-01T00:00:00  as if it were the first of November
  python pipeline.py run --image token-factory:dev    each step in a container of its own, with Docker or podman
  python pipeline.py history                          which version is in service, since when and why
  python pipeline.py compile --image registry.example/token-factory@sha256:...
                                                      the same workflow for Kubeflow Pipelines

A second run reuses the steps whose inputs have not changed. Each run leaves runs/<id>/report.html and summary.json.
"""

FOLDERS = ("runs", "state", "folder")
"""Options that name a folder, which is made on first use."""
UNMAKEABLE = (FileExistsError, FileNotFoundError, NotADirectoryError)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 success, 1 failure, 2 wrong usage; of a run, see `local.exit_codes`."""
    asked = _parser().parse_args(argv)
    try:
        _check_folders(asked)
        return int(asked.execute(asked))
    except LrmError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        told = advice(error, asked.runs if "runs" in asked else Path()) or _elsewhere(error, asked)
        if not told:
            raise
        print(f"error: {error}; {told}", file=sys.stderr)
    return 1


def _check_folders(asked: argparse.Namespace) -> None:
    """Refuse an address where an option names a folder: one of that name would be made here."""
    for option, value in vars(asked).items():
        if isinstance(value, Path) and re.match(r"[a-z][a-z0-9+.-]+:/", str(value), re.IGNORECASE):
            raise LrmError(f"--{option.replace('_', '-')} must be a folder of this machine, got {str(value)!r}")


def _elsewhere(error: OSError, asked: argparse.Namespace) -> str:
    """What to do where a folder that an option names cannot be made; "" where the error is about something else."""
    if not isinstance(error, UNMAKEABLE) or not error.filename:
        return ""
    failed = Path(error.filename).resolve()
    for option in FOLDERS:
        named = vars(asked)[option].resolve() if option in asked else None
        if named and (failed in (named, *named.parents) or (failed.is_relative_to(named) and not named.is_dir())):
            return f"{named} can be no folder: name another one with --{option}"
    return ""


def _compile(asked: argparse.Namespace) -> int:
    try:
        compile_to(asked.output, image=asked.image, step_timeout_s=asked.step_timeout.total_seconds())
    except OSError as error:
        raise LrmError(f"{asked.output} cannot be written ({error}); name another file with --output") from error
    print(f"{asked.output}: the workflow for Kubeflow Pipelines, every step on {asked.image}")
    return 0


def _run(asked: argparse.Namespace) -> int:
    _check(asked)
    data, feature_repo = find_data(asked.data, asked.data_root)
    within = container_runner.find(asked.image) if asked.image else None
    if within:
        os.environ[manifest.IMAGE] = within.name
    run_dir, arguments = start_run(
        data,
        feature_repo,
        runs=asked.runs,
        state=asked.state,
        as_of=asked.as_of,
        preset_name=asked.preset,
        seed=asked.seed,
        registry=asked.registry,
        ledger=asked.ledger,
        allow_backfill=asked.allow_backfill,
        installed=within.versions if within else None,
    )
    print(f"Run {run_dir.name}: {arguments['model_name']}, preset {asked.preset}, seed {asked.seed}", flush=True)
    placed = on_image(workflow, within.image) if within else workflow
    ended = run(
        placed,
        arguments,
        run_dir,
        reuse=not asked.fresh,
        within=within,
        step_timeout_s=asked.step_timeout.total_seconds(),
    )
    if ended == exit_codes.INTERRUPTED:
        return ended
    try:
        if asked.artifacts:
            upload(run_dir, asked.artifacts)
    finally:
        notify(run_dir, asked.notify, say=print)
    if ended != exit_codes.SUCCEEDED:
        return ended
    return exit_codes.exit_code(run_layout.content_of(run_dir / SUMMARY), detailed=asked.detailed_exit_code)


def _check(asked: argparse.Namespace) -> None:
    """Refuse what cannot be right before the data are prepared, which takes a while."""
    check_parts(preset(asked.preset))
    if asked.artifacts:
        check_address(asked.artifacts)
    check_ledger(asked.ledger)
    for target in asked.notify:
        check_target(target)
    if asked.registry:
        check_registry(asked.registry, from_here=not asked.image)
    for folder in (asked.runs.resolve(), asked.state.resolve()):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def compile_to(path: Path, *, image: str, step_timeout_s: float) -> None:
    """Write the workflow for Kubeflow Pipelines, with every step on one image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    placed = for_cluster(workflow, image=image, step_timeout_s=int(step_timeout_s))
    version = code_version(PROJECT / "feature_repo")
    compiler.Compiler().compile(placed, str(path), pipeline_parameters={"code_version": version})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python pipeline.py",
        description="Retrain, judge, promote and serve a large recommendation model, here or on a cluster.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    here = commands.add_parser(
        "run",
        help="run the workflow on this machine",
        description="Run the workflow on this machine.",
        epilog=f"{exit_codes.HELP}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_options(here, preset="default")
    here.add_argument(
        "--as-of",
        type=_instant,
        default="",
        metavar="TIME",
        help="ISO instant at which the data ends for this run (default: its own end); such a run does not promote",
    )
    here.add_argument(
        "--allow-backfill",
        default="",
        metavar="REASON",
        help="why a run with --as-of may promote all the same; the ledger keeps the words",
    )
    add_place_options(here)
    here.add_argument("--fresh", action="store_true", help="run every step, even where an earlier result is as good")
    here.set_defaults(execute=_run)
    cluster = commands.add_parser("compile", help="write the workflow for Kubeflow Pipelines")
    cluster.add_argument(
        "--output", type=_yaml, default=Path("build/pipeline.yaml"), metavar="FILE.yaml", help="(default: %(default)s)"
    )
    cluster.add_argument("--image", default=IMAGE, help="image of every step, best by digest (default: %(default)s)")
    add_step_timeout(cluster)
    cluster.set_defaults(execute=_compile)
    for command in COMMANDS:
        command.add(commands)
    parser.set_defaults(workflow=workflow)
    return parser


def _yaml(text: str) -> Path:
    if not text.endswith((".yaml", ".yml")):
        raise argparse.ArgumentTypeError(f"must be a file whose name ends in .yaml, got {text!r}")
    return Path(text)


def _instant(text: str) -> str:
    """An ISO instant, checked before anything runs; empty for none."""
    try:
        datetime.fromisoformat(text or "2000-01-01")
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an ISO instant such as 2017-11-01T00:00:00, got {text!r}") from None
    return text


if __name__ == "__main__":
    settle()
    sys.exit(main())
