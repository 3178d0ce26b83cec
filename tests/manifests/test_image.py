"""The recipe of the two images, read as text; docs/kubernetes.md says how they were built and run."""

import json
import re
import subprocess
import tomllib

import pytest

from tests.manifests.cluster import PROJECT, facts

FINAL = ("train", "serve")
CUDA = ("cuda-", "nvidia-", "triton")
"""Packages that torch brings where it is built for a GPU; the environment of the tests has a build without."""


def stages():
    """{stage: (what it is made from, its instructions)}, in which a line that goes on is one line."""
    text = re.sub(r"\\\n\s*", "", (PROJECT / "Dockerfile").read_text())
    parts = re.split(r"^FROM (\S+) AS (\S+)$", text, flags=re.MULTILINE)
    found = zip(parts[2::3], parts[1::3], parts[3::3], strict=True)
    return {
        name: (source, [line for line in body.splitlines() if line and line[0] != "#"]) for name, source, body in found
    }


def said(stage, instruction):
    return [line.partition(" ")[2] for line in stages()[stage][1] if line.startswith(f"{instruction} ")]


@pytest.mark.parametrize(("stage", "base"), [("train", "base-train"), ("serve", "base")])
def test_a_final_image_is_its_base_with_files_copied_in(stage, base):
    source, lines = stages()[stage]
    assert source == base
    assert {line.partition(" ")[0] for line in lines} <= {"COPY", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert said(stage, "USER") == ["1000:1000"]


def test_the_base_is_an_argument_and_a_compiler_is_installed_for_training_alone():
    assert stages()["base"][0] == "${BASE}"
    assert stages()["base-train"][0] == "base"
    for stage, packages in (("base", "libgomp1"), ("base-train", "gcc libc6-dev")):
        (line,) = said(stage, "RUN")
        assert re.findall(r"apt-get install --yes --no-install-recommends ([\w -]+?) *&&", line) == [packages]


def test_settings_of_pip_come_as_a_secret_and_never_as_an_argument():
    text = (PROJECT / "Dockerfile").read_text()
    arguments = re.findall(r"^ARG (\w+)", text, re.MULTILINE)
    assert set(arguments) == {"BASE", "BUILD_BASE", "TORCH_SHA256"}
    installs = [line for _, lines in stages().values() for line in lines if " install --no-cache-dir" in line]
    assert len(installs) == 5
    assert all(line.startswith("RUN --mount=type=secret,id=pip,target=/etc/pip.conf ") for line in installs)


def locked(name):
    """{package: its pinned version and its digests} of a lock."""
    text = (PROJECT / f"locks/{name}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    found = {re.split("[=;[]", line)[0]: line.split() for line in lines}
    return {package: (words[0].partition("==")[2], words[1:]) for package, words in found.items()}


@pytest.mark.parametrize("name", ["serve", "train", "bom"])
def test_every_package_of_an_image_is_pinned_with_the_digests_of_its_files(name):
    packages = locked(name)
    assert packages
    for package, (version, words) in packages.items():
        assert version, package
        digests = [word for word in words if word.startswith("--hash")]
        assert digests, package
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", digest) for digest in digests), package


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("serve", ["features", "model", "serving"]),
        (
            "train",
            ["features", "data", "validation", "model", "evaluation", "registry", "serving", "pipeline", "reporting"],
        ),
    ],
)
def test_a_lock_has_the_versions_of_the_constraints_and_all_that_the_project_asks_for(name, extras):
    packages = {package: version for package, (version, _) in locked(name).items()}
    pinned = dict(re.findall(r"^([\w.-]+)==(.+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE))
    assert {package for package in packages if package.startswith(CUDA)} == packages.keys() - pinned.keys()
    assert {package: pinned[package] for package in packages.keys() & pinned.keys()}.items() <= packages.items()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    assert {re.split(r"[\[<>=]", one)[0] for one in asked} <= packages.keys()


def test_pip_installs_nothing_into_an_image_but_what_is_locked_and_the_project():
    installs = [
        one
        for _, lines in stages().values()
        for line in lines
        for one in re.findall(r" install (--no.*?)(?=&&|$)", line)
    ]
    installs = [one for one in installs if "recommends" not in one]
    assert installs
    for one in installs:
        assert "--no-deps" in one
        assert one.split()[-1] == "." or "--require-hashes --requirement locks/" in re.sub(" +", " ", one)


@pytest.mark.parametrize("base", ["", "docker.io/library/python:3.11-slim-bookworm"])
def test_no_image_is_built_from_a_base_that_is_not_named_by_digest(base):
    done = subprocess.run(["make", "image", f"BASE={base}"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "name the base by digest" in done.stderr
    assert "docker build" not in done.stdout
    assert re.search(r"^ARG BASE$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)


def test_the_server_is_asked_for_its_health_where_it_listens():
    (probe,), (command,), (port,) = (said("serve", word) for word in ("HEALTHCHECK", "CMD", "EXPOSE"))
    asked = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", probe)
    module, *given = json.loads(command)[2:]
    assert set(given[::2]) <= facts().options[module]
    assert dict(zip(given[::2], given[1::2], strict=True))["--port"] == port == asked[1]
    assert asked[2] in facts().paths


def test_nothing_is_sent_to_the_build_but_what_it_copies():
    ignored = (PROJECT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    allowed = {name.removeprefix("!") for name in ignored if name.startswith("!")}
    copied = {name for stage in stages() for line in said(stage, "COPY") for name in line.split()[:-1]}
    assert {name for name in copied if not name.startswith(("--from", "/"))} == allowed
