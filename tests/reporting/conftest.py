from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lrm.record import RUN_DIR, RUN_ID, RUNS_ROOT
from lrm.reporting.run import report_run

Report = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (RUN_DIR, RUNS_ROOT, RUN_ID):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "runs" / "7"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def report(run_dir: Path) -> Report:
    """Report on the run's folder; gives its summary and its page."""

    def write(**how: str) -> tuple[dict[str, Any], str]:
        report_run(run_dir, **how)
        return json.loads((run_dir / "summary.json").read_text()), (run_dir / "report.html").read_text()

    return write
