"""How much of each signal its soft tokens keep, at the prompt and after the last block: one table.

    python -m benchmarks.token_probes [--run runs/latest] [--seeds 3] [--requests 2000] [--rows 4000]

Reads the model and the examples of a run. Linear probes on frozen tokens are fitted on training requests of one half of
the users and scored on test requests of the other half; a seed draws halves, samples and the random factory anew. Dense
and embedding signals: R2. Sparse signals and bags: share of the entropy explained. The floor is a factory with random
weights, the ceiling the signal's own encoding through the same probe. Figures are means over the seeds, with the
largest distance from them.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from lrm.errors import DataError, LrmError
from lrm.evaluation.signals.token_probes import TokenProbe, probe_tokens
from lrm.features.tables import read, read_manifest
from lrm.model.artifact import load
from lrm.progress import progress
from lrm.record import read_records
from lrm.tokens.corpus import encode_corpus

LEVELS = ("floor", "prompt", "after", "ceiling")


def folders(run_dir: Path) -> tuple[Path, Path]:
    """The examples and the model that a run evaluated.

    Raises:
        DataError: the run did not get that far, or its folders are gone.
    """
    made_of = read_records(run_dir).get("evaluate_model", {}).get("inputs", [])
    found = [Path(path) for path in made_of[:2]]
    if len(found) < 2 or not all(path.is_dir() for path in found):
        raise DataError(f"{run_dir} has no evaluated model whose folders are still there; make run writes one")
    return found[0], found[1]


def table(repeats: list[list[TokenProbe]]) -> str:
    """A Markdown table, a row for each signal in each maker that reads it."""
    lines = [
        "| signal | kind | maker | floor | prompt | after the last block | ceiling |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for same in zip(*repeats, strict=True):
        cells = [_spread([getattr(each, level) for each in same]) for level in LEVELS]
        one = same[0]
        lines.append(f"| `{one.signal.name}` | {one.signal.kind} | {one.maker} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "-"
    middle = float(np.mean(known))
    return f"{middle:.3f} ± {max(abs(value - middle) for value in known):.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/latest"), help="a run's folder")
    parser.add_argument("--seeds", type=int, default=3, help="how often everything random is drawn anew")
    parser.add_argument("--requests", type=int, default=2000, help="prompts on each side at most")
    parser.add_argument("--rows", type=int, default=4000, help="tokens of a maker on each side at most")
    asked = parser.parse_args()
    started = time.perf_counter()
    try:
        examples, model = folders(asked.run)
        recommender = load(model)
        corpus = encode_corpus(read(examples), recommender.signals, recommender.vocabulary)
    except LrmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    repeats = [
        probe_tokens(recommender, corpus, n_requests=asked.requests, n_rows=asked.rows, seed=seed)
        for seed in progress(range(asked.seeds), what="retention", unit="seed")
    ]
    data = read_manifest(examples)["data"]
    print(f"{data['name']} ({data['protocol']}), preset {recommender.config.name}, {asked.seeds} seeds, ", end="")
    print(f"{time.perf_counter() - started:.0f} s\n\n{table(repeats)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
