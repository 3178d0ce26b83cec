"""The rules about who may import whom, checked from the source: no module is imported here."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
FLOOR = {
    f"lrm.{module}"
    for module in (
        "config",
        "content_digest",
        "errors",
        "faults",
        "formats",
        "limits",
        "manifest",
        "parts",
        "presets",
        "process_environment",
        "progress",
        "record",
        "schema",
        "storage",
    )
}
ROOMS = {
    "lrm.features": FLOOR,
    "lrm.validation": FLOOR | {"lrm.features", "lrm.reporting"},
    "lrm.tokens": FLOOR | {"lrm.features"},
    "lrm.model": FLOOR | {"lrm.features", "lrm.tokens"},
    "lrm.training": FLOOR | {"lrm.features", "lrm.tokens", "lrm.model"},
    "lrm.evaluation": FLOOR | {"lrm.features", "lrm.tokens", "lrm.model", "lrm.reporting"},
    "lrm.registry": FLOOR,
    "lrm.serving": FLOOR | {"lrm.features", "lrm.tokens", "lrm.model", "lrm.registry"},
    "lrm.reporting": FLOOR,
    "components": FLOOR,
    "local": FLOOR | {"lrm.features.datasets", "lrm.reporting"},
    "local.commands": FLOOR
    | {"local", "lrm.features", "lrm.validation", "lrm.registry", "lrm.serving", "lrm.evaluation", "lrm.reporting"},
    "pipeline": FLOOR | {"components", "local"},
    "feature_repo": {"lrm.schema"},
    "examples": {"lrm.schema"},
    "benchmarks": {"lrm", "local", "pipeline"},
}
SERVING_FLOOR = {f"lrm.serving.{module}" for module in ("logs", "release", "release_contents", "index_file")}
SERVING = {
    "lrm.serving.engine": SERVING_FLOOR,
    "lrm.serving.releases": SERVING_FLOOR | {"lrm.serving.engine"},
    "lrm.serving.staging": SERVING_FLOOR | {"lrm.serving.engine", "lrm.serving.releases"},
    "lrm.serving.http": SERVING_FLOOR | {"lrm.serving.engine", "lrm.serving.releases"},
    "lrm.serving.run": SERVING_FLOOR | {"lrm.serving.engine", "lrm.serving.releases", "lrm.serving.staging"},
    "lrm.serving.pyfunc": SERVING_FLOOR | {"lrm.serving.engine"},
    "lrm.serving.__main__": SERVING_FLOOR | {"lrm.serving.http"},
}
"""Who may import whom inside serving: only the command line imports `http`; `staging` starts it as a process."""
EDGES = {
    "kfp": ("pipeline.py", "components/", "local/"),
    "docker": ("local/container_runner.py",),
    "feast": (
        "feature_repo/",
        "examples/",
        "lrm/features/feast_repo.py",
        "lrm/features/push.py",
        "lrm/features/online_rows.py",
        "lrm/features/open_store.py",
    ),
    "mlflow": ("lrm/registry/backend.py",),
    "google.cloud": ("lrm/registry/bucket.py", "lrm/serving/releases/store.py", "local/upload.py"),
    "faiss": ("lrm/model/heads/_index.py",),
    "onnx": ("lrm/model/onnx_graph.py",),
    "onnxruntime": ("lrm/model/onnx_runtime.py",),
    "fastapi": tuple(f"lrm/serving/http/{name}.py" for name in ("app", "errors", "routes", "status_routes")),
    "great_expectations": ("lrm/validation/",),
    "lightgbm": ("lrm/evaluation/",),
    "matplotlib": ("lrm/reporting/",),
}
WITHOUT_TORCH = ("lrm/features/", "lrm/validation/", "lrm/registry/", "lrm/reporting/", "components/", "local/")
HEAVY = ("torch", "faiss", "feast", "mlflow", "great_expectations", "matplotlib", "pandas")
STEPS = sorted(path for path in PROJECT.glob("components/*.py") if path.stem not in ("__init__", "step", "cluster"))


def sources() -> list[Path]:
    roots = ("lrm", "components", "local", "feature_repo", "examples", "benchmarks")
    found = [path for root in roots for path in (PROJECT / root).rglob("*.py")]
    return sorted([*found, PROJECT / "pipeline.py"])


def name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that the code imports, and `module.name` for a name that might be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(module: str, places: set[str]) -> bool:
    return any(f"{module}.".startswith(f"{place}.") for place in places)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def room_of(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:2]) if parts[0] == "lrm" or parts[:2] == ("local", "commands") else parts[0]


def ours(module: str) -> bool:
    return is_within(module, {"lrm", "components", "local", "pipeline", "benchmarks", "tests"})


@pytest.mark.parametrize("path", [path for path in sources() if path not in STEPS], ids=name)
def test_rooms_look_left_only(path):
    room = room_of(path)
    allowed = {room} | (FLOOR if room in FLOOR else ROOMS.get(room, set()))
    seen = {module for module in imports(parsed(path)) if ours(module)}
    assert {module for module in seen if not is_within(module, allowed)} == set()


@pytest.mark.parametrize("path", sorted(PROJECT.glob("lrm/serving/**/*.py")), ids=name)
def test_the_folders_of_serving_look_left_only(path):
    module = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    (room,) = {room for room in {*SERVING, *SERVING_FLOOR} if is_within(module, {room})} or {module}
    seen = {module for module in imports(parsed(path)) if is_within(module, {"lrm.serving"})}
    assert {module for module in seen if not is_within(module, {room} | SERVING.get(room, SERVING_FLOOR))} == set()


@pytest.mark.parametrize("path", sorted(PROJECT.glob("lrm/*.py")), ids=name)
def test_the_floor_stands_on_the_standard_library_alone(path):
    outside = {module.partition(".")[0] for module in imports(parsed(path))} - set(sys.stdlib_module_names) - {"lrm"}
    small = {"progress": {"tqdm"}, "faults": {"tenacity"}}  # pure Python, and dependencies of the core
    assert outside <= small.get(path.stem, set())


@pytest.mark.parametrize("library", EDGES)
def test_each_outside_service_is_touched_at_its_edge_only(library):
    users = {name(path) for path in sources() if uses(library, path)}
    assert {user for user in users if not user.startswith((*EDGES[library], "benchmarks/"))} == set()


def uses(library: str, path: Path) -> bool:
    return any(is_within(module, {library}) for module in imports(parsed(path)))


def test_torch_stays_out_of_the_rooms_that_only_handle_tables_and_files():
    users = [name(path) for path in sources() if uses("torch", path)]
    assert [user for user in users if user.startswith(WITHOUT_TORCH)] == []


@pytest.mark.parametrize("path", STEPS, ids=name)
def test_a_component_is_a_signature_a_docstring_and_one_call_of_its_rooms_door(path):
    tree = parsed(path)
    (body,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert body.name == path.stem
    assert ast.get_docstring(body)
    top = {module for node in tree.body if not isinstance(node, ast.FunctionDef) for module in imports(node)}
    assert top - {"typing.Optional"} == {"kfp.dsl", "components.step.step"}
    room = ast.get_docstring(tree).partition(":")[0]
    doors = {module for module in imports(body) if ours(module)} - {"components.step.log_metrics"}
    assert {module for module in doors if not is_within(module, FLOOR | {f"lrm.{room}"})} == set()
    assert any(module.endswith(".run") for module in doors)
    branches = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.FunctionDef, ast.Lambda)
    assert [node for statement in body.body for node in ast.walk(statement) if isinstance(node, branches)] == []
    code = [node for node in body.body if not isinstance(node, ast.Import | ast.ImportFrom)][1:]
    assert 1 <= len(code) <= 6


@pytest.mark.parametrize("path", [*sources(), *sorted((PROJECT / "tests").rglob("*.py"))], ids=name)
def test_no_file_is_longer_than_four_hundred_lines(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize(
    "module", ["pipeline", "local.terminal", "lrm.features.datasets.prepare", "lrm.serving.__main__"]
)
def test_command_lines_start_without_the_heavy_libraries(module):
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def patterns(path: Path) -> list[str]:
    """Calls that would take a path for a pattern: `shop[1]` for `shop1`."""
    readers = ("scan_parquet", "read_parquet", "scan_csv", "read_csv", "scan_ndjson", "scan_ipc", "read_ipc")
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in readers]
    literal = [
        call
        for call in named
        if any(word.arg == "glob" for word in call.keywords) or "glob.escape(" in ast.unparse(call)
    ]
    return [f"{name(path)}:{call.lineno}" for call in named if call not in literal]


def test_no_path_is_taken_for_a_pattern():
    assert [found for path in sources() for found in patterns(path)] == []


def private_names_of_others(path: Path) -> list[str]:
    """Attributes that begin with an underscore and that the file itself does not define."""
    tree = parsed(path)
    nodes = list(ast.walk(tree))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    namedtuples = {"_replace", "_asdict", "_fields"}  # public, in spite of their names
    used = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr.startswith("_")]
    foreign = [node for node in used if node.attr not in own | namedtuples and not node.attr.endswith("__")]
    return [f"{name(path)}:{node.lineno} {node.attr}" for node in foreign]


def test_serving_touches_no_private_attribute_of_a_library():
    assert [found for path in PROJECT.glob("lrm/serving/**/*.py") for found in private_names_of_others(path)] == []
