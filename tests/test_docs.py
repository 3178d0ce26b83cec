"""What the pages and the frame promise: links that lead somewhere, commands that exist, pins that work elsewhere."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

from lrm.features.datasets.prepare import BUILDS

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
]
MADE = ("runs/", "state/", "data/", "build/", "my-data/", "models/")
"""Folders that a run or a user makes."""
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;]+)$")
ROOTS = ("lrm", "components", "local", "feature_repo", "examples", "benchmarks", "tests")
SOURCES = [PROJECT / "pipeline.py", *sorted(path for root in ROOTS for path in (PROJECT / root).rglob("*.py"))]
TELLING = [
    *SOURCES,
    *PAGES,
    *(PROJECT / name for name in ("Makefile", "Dockerfile", "policy.toml", "pyproject.toml")),
    *sorted((PROJECT / "manifests").rglob("*.yaml")),
]
"""Files that name other files."""
FILES = {path.name for place in (*ROOTS, "docs", "manifests") for path in (PROJECT / place).rglob("*")}
FILES |= {path.name for path in PROJECT.iterdir()}
MODULES = {
    ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES
}
PATHS = re.compile(rf"(?<![\w/.<{{$-])((?:{'|'.join(ROOTS)}|docs|manifests)/[\w./-]*\w)")
DOTTED = re.compile(rf"(?<![\w/.-])((?:{'|'.join(ROOTS)})(?:\.(?!__)\w+)+)")
IN_MODULE = re.compile(r"`([a-z_]+)\.(?!(?:py|json|toml|parquet)`)([A-Za-z_]\w*)`")
A_FILE = re.compile(r"`([\w-]+\.(?:py|md|toml|yaml|j2|css|svg))`")
PLANTED = ("tests/manifests/test_page.py", "tests/manifests/test_planted.py", "tests/test_docs.py")
"""They name what does not exist, or not by that path, on purpose."""


def page_name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_files_that_exist(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES[:2], ids=page_name)
def test_paths_in_the_text_exist(page):
    named = set(re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:py|md|txt|toml))`", page.read_text()))
    found = [path for path in named if not path.startswith((*MADE, "."))]
    assert [path for path in found if not list(PROJECT.glob(path)) and not list(PROJECT.glob(f"*/**/{path}"))] == []


def told(path: Path) -> str:
    """What a file says to people: of a program its docstrings and comments, of any other all."""
    if path.suffix != ".py":
        return path.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return "\n".join(one.string for one in tokens if one.type == tokenize.COMMENT or one.string.startswith('"""'))


def defines(module: Path, name: str) -> bool:
    """Whether a module has this name, at the top or within a class or function."""
    things = list(ast.walk(ast.parse(module.read_text())))
    defined = {thing.name for thing in things if isinstance(thing, ast.ClassDef | ast.FunctionDef)}
    return name in defined | {thing.id for thing in things if isinstance(thing, ast.Name)}


def is_there(dotted: str) -> bool:
    """Whether `package.module.name` is a package, a module, or a name in one."""
    parts = dotted.split(".")
    if (PROJECT / "/".join(parts)).is_dir() or dotted in MODULES or parts[-1] in ("py", "md"):
        return True
    known = [n for n in range(1, len(parts)) if ".".join(parts[:n]) in MODULES]
    return bool(known) and defines(MODULES[".".join(parts[: known[-1]])], parts[known[-1]])


@pytest.mark.parametrize("path", [path for path in TELLING if page_name(path) not in PLANTED], ids=page_name)
def test_every_file_and_module_that_is_named_exists(path):
    text = told(path)
    starts = (PROJECT, path.parent, PROJECT / "manifests")
    gone = [name for name in PATHS.findall(text) if not any((start / name).exists() for start in starts)]
    gone += [name for name in DOTTED.findall(text) if not is_there(name)]
    gone += [name for name in A_FILE.findall(text) if name not in FILES]
    for module, name in IN_MODULE.findall(text) if path.suffix == ".py" else ():
        beside = path.with_name(f"{module}.py")
        if beside.is_file() and not defines(beside, name):
            gone.append(f"{module}.{name}")
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_make_commands_in_the_text_exist(page):
    lines = re.findall(r"^make ([a-z]+)|`make ([a-z]+)", page.read_text(), re.MULTILINE)
    assert {a or b for a, b in lines} <= targets()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_prose_is_wrapped_at_120_characters(page):
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in prose.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > 120] == []


def test_make_help_lists_every_command_that_has_a_description():
    printed = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    described = set(re.findall(r"^([a-z]+):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert {
        "help",
        "setup",
        "data",
        "run",
        "test",
        "check",
        "compile",
        "serve",
        "report",
        "clean",
        "image",
    } <= described
    assert described == set(re.findall(r"^  make ([a-z]+)", printed, re.MULTILINE))


def typed(*words):
    """What make would run."""
    asked = ["make", "--dry-run", *words, f"BIN={Path(sys.executable).parent}"]
    return subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", ["serve", "history", "rollback", "approve"])
def test_a_model_is_named_by_the_name_that_its_data_give_themselves(command, tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"source": {"name": "none"}, "name": "bookshop"}))
    assert ' --name "bookshop" ' in typed(command, f"DATA={tmp_path}/")
    assert ' --name "ml-100k" ' in typed(command, "DATA=ml-100k")
    assert ' --name "other" ' in typed(command, "NAME=other")


def test_without_data_the_default_is_served_and_the_only_model_is_asked_about():
    assert ' --name "complete-journey" ' in typed("serve")
    assert "--name" not in typed("history")


def test_options_that_the_readme_names_exist():
    printed = ""
    for command in ("run", "compile", "watch", "backtest"):
        asked = [sys.executable, "pipeline.py", command, "--help"]
        printed += subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"--[a-z][a-z-]+", (PROJECT / "README.md").read_text())) <= set(
        re.findall(r"--[a-z][a-z-]+", printed)
    )


def test_the_small_preset_is_called_quick_on_small_data_alone():
    asked = [sys.executable, "pipeline.py", "run", "--help"]
    printed = subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for text in (printed, (PROJECT / "CONTRIBUTING.md").read_text(), (PROJECT / "docs/own-data.md").read_text()):
        told = " ".join(text.split())
        assert re.search(r"trains in seconds (on small data|on data as small|there)", told)
        assert re.search(r"in minutes on the default|minutes on larger data such as the default", told)


def test_the_readme_lists_every_step_and_every_data_set():
    text = (PROJECT / "README.md").read_text()
    steps = {path.stem for path in PROJECT.glob("components/*.py")} - {"__init__", "step", "cluster"}
    assert [name for name in [*steps, *BUILDS] if f"`{name}`" not in text] == []


def test_contributing_fits_a_screen():
    assert len((PROJECT / "CONTRIBUTING.md").read_text().splitlines()) <= 40


def test_constraints_pin_versions_that_any_machine_can_find():
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    odd = [line for line in lines if not line.startswith("#") and not PIN.match(line)]
    assert odd == []
    assert [line for line in lines if "+" in line.partition("#")[0]] == []


def test_every_declared_dependency_is_pinned():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    del extras["benchmarks"]  # peers to compare with, in an environment of their own
    asked = [*project["dependencies"], *(one for extra in extras.values() for one in extra)]
    names = {re.split(r"[\[<>=! ]", one)[0].lower().replace("_", "-") for one in asked} - {project["name"]}
    pins = [PIN.match(line) for line in (PROJECT / "constraints.txt").read_text().splitlines()]
    assert names - {pin[1].lower().replace("_", "-") for pin in pins if pin} == set()


def test_the_licence_is_the_one_that_the_package_declares():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    text = (PROJECT / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_table_of_costs_adds_up(tmp_path):
    steps = [
        {"name": "validate_data", "state": "succeeded", "seconds": 2.0, "cpu_seconds": 1.5, "peak_memory_mb": 300.0},
        {"name": "train_lrm", "state": "reused", "seconds": 30.0, "cpu_seconds": 50.0, "peak_memory_mb": 900.0},
        {"name": "promote_model", "state": "skipped", "seconds": None, "cpu_seconds": None, "peak_memory_mb": None},
        {"name": "report_run", "state": "succeeded", "seconds": 1.0, "cpu_seconds": 0.5, "peak_memory_mb": 100.0},
    ]
    summary = {"run_id": "r", "status": "succeeded", "data": {"name": "world"}, "steps": steps}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    asked = [sys.executable, "benchmarks/steps.py", str(tmp_path / "summary.json")]
    printed = subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert "| `train_lrm` (reused) | 30.0 | 50.0 | 900 |" in printed
    assert "| all but training | 3.0 | 2.0 | 300 |" in printed
    assert "| **all** | 33.0 | 52.0 | 900 |" in printed
    assert "promote_model" not in printed
