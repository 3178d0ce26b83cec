"""The tutorial: its commands, run as they are written, in a copy of the checkout."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".venv", ".venv-benchmarks", ".git", "data", "runs", "state", "build", "shared", "__pycache__", ".*_cache")
PORT = "8000"
LIMIT_S = 900


@pytest.fixture
def checkout(tmp_path):
    """A copy of the checkout without what runs left, with this environment as its own."""
    folder = tmp_path / "checkout"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".installed":
            (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv/.installed").touch()
    return folder


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.mark.slow
def test_the_tutorials_commands_lead_to_a_promotion_an_answer_and_a_rollback(checkout):
    text = (checkout / "docs/tutorial.md").read_text().replace(PORT, free_port())
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    server, printed = None, {}
    try:
        for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            asked = ["bash", "-euo", "pipefail", "-c", block]
            if block.startswith("make serve"):  # the one that the tutorial gives a terminal of its own
                server = subprocess.Popen(asked, cwd=checkout, env=environment, start_new_session=True)
                continue
            done = subprocess.run(asked, cwd=checkout, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            printed[block] = done.stdout
    finally:
        if server:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=60)
    first, second = (output for block, output in printed.items() if "make run" in block)
    assert "Verdict: promote" in first
    assert "Verdict: keep" in second
    answer = next(output for block, output in printed.items() if "/v1/recommend" in block)
    assert len(json.loads(answer)["items"]) == 3
    history = next(output for block, output in printed.items() if "make history" in block)
    assert re.findall(r"(promote|approve|rollback) +(\w+ -> \d)", history) == [
        ("rollback", "2 -> 1"),
        ("approve", "1 -> 2"),
        ("promote", "none -> 1"),
    ]
