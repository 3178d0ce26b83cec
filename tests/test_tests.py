"""What every test keeps to: it can fail, it replaces no function of ours, and it asserts no elapsed time.

Ruff finds comparisons and expressions without effect (B015, B018) and asserts on a tuple (F631); it has no rule for
these.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
OURS = ("lrm", "local", "components", "pipeline", "benchmarks")
CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time", "monotonic_ns", "perf_counter_ns"}
REPLACED = {
    "registry/test_ledger.py: append_log.extend": "another writer has to come between reading and writing",
    "serving/http/test_http.py: connections.resource": "the system's limits; one that is infinite cannot be set here",
    "registry/test_server.py: backend.MlflowClient.finalize_logged_model": "a service has to end between two calls",
    "test_benchmarks.py: serving_export.?": "sizes of a benchmark, by name",
    "test_benchmarks.py: serving_bound.?": "sizes of a benchmark, by name",
    "test_benchmarks.py: serving.?": "sizes of a benchmark, by name",
    "test_benchmarks.py: serving_soak.?": "sizes of a benchmark, by name",
}
"""What tests replace of ours, and why there is no other way."""


def conditional_asserts(tree: ast.AST) -> Iterator[str]:
    """Find `assert a if b else c`, which reads `assert (a if b else c)`: where b is false, only c is checked."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.IfExp):
            yield f"line {node.lineno}"


def timed_asserts(tree: ast.AST) -> Iterator[str]:
    """Find time since an instant: `time.monotonic() - began`. A deadline to poll until is a sum, and no promise."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and _is_clock(node.left):
            yield f"line {node.lineno}"


def _is_clock(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    is_of_time = isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "time"
    return is_of_time and called.attr in CLOCKS


def replaced(tree: ast.AST) -> Iterator[str]:
    """Find names of ours that are replaced and are not constants."""
    modules = _modules_of_ours(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import) and "mock" in ast.unparse(node):
            yield ast.unparse(node)
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr"):
            continue
        target, *rest = node.args
        if isinstance(target, ast.Constant):
            module, _, name = target.value.rpartition(".")
            is_ours = module.split(".")[0] in OURS
        else:
            module, is_ours = ast.unparse(target), ast.unparse(target).split(".")[0] in modules
            name = rest[0].value if isinstance(rest[0], ast.Constant) else "?"
        if is_ours and not name.isupper():
            yield f"{module}.{name}"


def _modules_of_ours(tree: ast.AST) -> set[str]:
    """Return the names under which a file imports modules, classes and functions of ours."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            names |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {
                (alias.asname or alias.name).split(".")[0] for alias in node.names if alias.name.split(".")[0] in OURS
            }
    return names


def found(check) -> set[str]:
    """Return what a check finds in all tests."""
    paths = sorted(TESTS.rglob("*.py"))
    return {f"{path.relative_to(TESTS)}: {what}" for path in paths for what in check(ast.parse(path.read_text()))}


def test_no_assert_is_half_of_a_conditional_expression():
    assert found(conditional_asserts) == set()


def test_no_test_measures_elapsed_time():
    assert found(timed_asserts) == set()


def test_no_test_replaces_a_function_of_ours():
    assert found(replaced) == set(REPLACED)


@pytest.mark.parametrize(
    ("check", "source", "n_found"),
    [
        (conditional_asserts, "assert a in b if c else d", 1),
        (conditional_asserts, "assert a in (b if c else d)", 0),
        (timed_asserts, "import time\nassert time.monotonic() - began < 1", 1),
        (timed_asserts, "import time\nend = time.monotonic() + 1", 0),
        (replaced, "from lrm.training import loop\nmonkeypatch.setattr(loop, 'step', other)", 1),
        (replaced, "monkeypatch.setattr('lrm.training.loop.step', other)", 1),
        (replaced, "import lrm.training.loop\nmonkeypatch.setattr(lrm.training.loop, 'step', other)", 1),
        (replaced, "from lrm.training import loop\nmonkeypatch.setattr(loop, 'ROUNDS', 1)", 0),
        (replaced, "monkeypatch.setattr('sys.argv', [])", 0),
        (replaced, "from unittest.mock import patch", 1),
    ],
)
def test_the_checks_find_what_they_are_for(check, source, n_found):
    assert len(list(check(ast.parse(source)))) == n_found
