"""`python pipeline.py steps`: which steps a run reuses from an earlier one, by what, and why the others always run."""

from __future__ import annotations

import argparse
import re
from typing import Any, NamedTuple

from lrm.reporting.run_files import STEPS

HELP = "which steps a run may reuse, and why the others always run"
DESCRIPTION = (
    "A pure step is reused while its inputs, its configuration, its code and the installed packages are the same; a "
    "step that reads or changes the outside world runs every time."
)
ALWAYS = {
    "find_champion": "reads the registry: who is champion may have changed",
    "check_in_staging": "measures a server on this machine",
    "evaluate_model": "decides: a verdict is measured anew, with the policy and the champion of now",
    "register_model": "writes to the registry",
    "promote_model": "moves the champion and writes to the ledger",
    "roll_out": "changes what is in service and refreshes the online store",
    "report_run": "reads what happened",
}
"""Why each step that always runs does so."""
CONTENT = {
    "data": "where data_version was read",
    "data_version": "sha256 of the data folder",
    "code_version": "sha256 of the sources and declarations",
    "feature_repo": "what it declares is part of code_version",
    "preset": "a name in lrm/presets/, which is part of code_version",
    "champion": "a registered bundle, which never changes",
}
"""What stands for the content of an input that is named by a path."""


class Step(NamedTuple):
    """A step as it is compiled."""

    name: str
    is_reused: bool
    inputs: tuple[str, ...]


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("steps", help=HELP, description=DESCRIPTION)
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Print a line for each step, and what stands for the content of what it reads."""
    for step in compiled(asked.workflow):
        told = f"reused while the same: {', '.join(step.inputs)}" if step.is_reused else f"always: {ALWAYS[step.name]}"
        print(f"{step.name:<23} {told}")
    print("\nA folder that a step wrote never changes, so its place stands for its content. Further:")
    for name, meaning in CONTENT.items():
        print(f"  {name:<13} {meaning}")
    print("On a cluster retrieve_features always runs: nothing there computes data_version before it.")
    return 0


def compiled(workflow: Any) -> list[Step]:
    """The steps of a workflow, in order, with what the engine's cache is keyed by."""
    spec, found = workflow.pipeline_spec, {}
    for component in (spec.root, *spec.components.values()):
        for task, content in component.dag.tasks.items():
            name = re.sub(r"-\d+$", "", task).replace("-", "_")
            inputs = tuple(sorted([*content.inputs.parameters, *content.inputs.artifacts]))
            found[name] = Step(name, content.caching_options.enable_cache, inputs)
    return [found[name] for name in STEPS if name in found]
