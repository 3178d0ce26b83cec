"""What each step of a run cost: seconds, CPU-seconds and peak memory, from its summary.json.

    python -m benchmarks.steps [runs/latest/summary.json]

Training is whatever the preset asks for, so the steps besides it have a sum of their own.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

TRAINING = ("pretrain_token_factory", "train_lrm")
COLUMNS = ("seconds", "cpu_seconds", "peak_memory_mb")


def table(summary: dict[str, Any]) -> str:
    """A Markdown table, a row for each step that ran, then the sums (for memory the largest)."""
    ran = [step for step in summary["steps"] if step["seconds"] is not None]
    besides = [step for step in ran if step["name"] not in TRAINING]
    rows = [(f"`{step['name']}` ({step['state']})", *(step[column] for column in COLUMNS)) for step in ran]
    rows += [("all but training", *_sums(besides)), ("**all**", *_sums(ran))]
    body = [f"| {name} | {s:.1f} | {cpu:.1f} | {memory:,.0f} |" for name, s, cpu, memory in rows]
    return "\n".join(["| step | seconds | CPU-seconds | peak MB |", "|---|---:|---:|---:|", *body])


def _sums(steps: list[dict[str, Any]]) -> tuple[float, float, float]:
    seconds, cpu, memory = ([step[column] for step in steps] for column in COLUMNS)
    return sum(seconds), sum(cpu), max(memory, default=0.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "summary", nargs="?", type=Path, default=Path("runs/latest/summary.json"), help="(default: %(default)s)"
    )
    path = parser.parse_args().summary
    if not path.is_file():
        sys.exit(f"error: {path} is missing; make run writes it")
    found = json.loads(path.read_text())
    print(f"{found['data']['name']}, run {found['run_id']}: {found['status']}\n\n{table(found)}")
