"""The manifests as a cluster would get them, and what is known of the server they are for."""

import asyncio
import functools
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import kubernetes_validate
import yaml

PROJECT = Path(__file__).resolve().parent.parent.parent
MANIFESTS = PROJECT / "manifests"
SCHEMAS = Path(__file__).resolve().parent / "schemas"
PAGE = PROJECT / "docs/kubernetes.md"
VERSIONS = ("1.33", "1.35", "1.37")
"""Kubernetes versions whose schemas the manifests fit."""
GPUS = ("gpu-l4", "gpu-a100", "gpu-h100")
OVERLAYS = ("cpu", *GPUS, "staging", "production")
OPTIONS = ("api-key", "gcs-fuse", "httproute-canary", "keda", "kserve", *GPUS)
TOGETHER = (
    "gpu-l4+gcs-fuse",
    "gpu-h100+keda",
    "gpu-l4+kserve",
    "staging+keda",
    "staging+gpu-l4",
    "production+httproute-canary+keda",
    "production+httproute-canary+gpu-l4",
    "production+gcs-fuse+kserve",
    "production+keda+kserve",
    "production+gpu-h100+gcs-fuse+keda+kserve",
    "production+httproute-canary+gpu-l4+api-key+gcs-fuse+keda",
    "cpu+api-key+gcs-fuse",
)
VARIANTS = (*OVERLAYS, *(f"production+{option}" for option in OPTIONS), *TOGETHER)
"""An overlay, or an overlay with components that a user would list in it: those that the tests look at."""
AROUND = ("kserve",)
"""Components that copy what an overlay has made of the base, and so go into an overlay around it."""

Object = dict[str, Any]


def kustomizations() -> dict[str, str]:
    """Every folder of the tree with a kustomization, and its kind; a Component is rendered within another."""
    found = sorted(path for path in MANIFESTS.rglob("kustomization.yaml"))
    return {str(path.parent.relative_to(MANIFESTS)): yaml.safe_load(path.read_text())["kind"] for path in found}


ALONE = tuple(
    folder
    for folder, kind in kustomizations().items()
    if kind == "Kustomization" and not folder.startswith("overlays/")
)
"""What is rendered by itself and is no overlay."""
BESIDE = tuple(folder for folder in ALONE if not folder.startswith(("base", "components/")))
"""What stands beside the pools."""


def offered() -> tuple[str, ...]:
    """Every combination that the page's table offers, in the order in which an overlay lists them."""
    ((_, rows),) = re.findall(r"^\| overlay \| any of (.*)\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    made = []
    for row in rows.splitlines():
        overlays, some, pools, gpus = (re.findall(r"`([\w-]+)`", cell) for cell in row.split("|")[1:-1])
        subsets = [chosen for n in range(len(some) + 1) for chosen in itertools.combinations(some, n)]
        for overlay, chosen, pool, gpu in itertools.product(overlays, subsets, ("", *pools), ("", *gpus)):
            first, last = ("", pool) if pool in AROUND else (pool, "")
            made.append("+".join(filter(None, (overlay, first, gpu, *chosen, last))))
    return tuple(made)


class Pod(NamedTuple):
    """A pod that a workload makes."""

    owner: Object
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Object
    strategy: Object
    """How its workload replaces it by a new one."""

    @property
    def name(self) -> str:
        """Kind and name of the workload."""
        return f"{self.owner['kind']} {self.owner['metadata']['name']}"

    @property
    def containers(self) -> list[Object]:
        """All of them, those that run first first."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


class Facts(NamedTuple):
    """What the manifests must agree with."""

    paths: frozenset[str]
    """Paths that the server answers GET on."""
    drain_s: int
    options: dict[str, frozenset[str]]
    """Options of each command that a container runs."""
    metrics: frozenset[str]
    """Names of the series that the server shows."""
    documented: str
    """The page that says what else the cluster must hold."""


@functools.cache
def _rendered(variant: str) -> str:
    overlay, *options = variant.split("+")
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(shutil.copytree(MANIFESTS, Path(scratch, "manifests")))
        folder = tree / "overlays" / overlay
        said = yaml.safe_load((folder / "kustomization.yaml").read_text())
        _listed(folder, said, [option for option in options if option not in AROUND])
        around = [option for option in options if option in AROUND]
        if around:
            folder = tree / "overlays" / variant
            folder.mkdir()
            head = {key: said[key] for key in ("apiVersion", "kind", "namespace") if key in said}
            _listed(folder, {**head, "resources": [f"../{overlay}"]}, around)
        return _kustomized(folder)


def _listed(folder: Path, said: Object, options: list[str]) -> None:
    """Write a kustomization that lists these components after its own."""
    if options:
        said["components"] = [*said.get("components", ()), *(f"../../components/{option}" for option in options)]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(said))


def _kustomized(folder: Path) -> str:
    """What kubectl makes of a folder; where it cannot, its own words are in the error's `stderr`."""
    command = [str(Path(sys.executable).with_name("kubectl")), "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def render(folder: Path) -> list[Object]:
    """The objects of one kustomization."""
    return [one for one in yaml.load_all(_kustomized(folder), Loader=yaml.CSafeLoader) if one]


def rendered(variant: str) -> list[Object]:
    """The objects of a variant; a copy, which a test may change."""
    return [one for one in yaml.load_all(_rendered(variant), Loader=yaml.CSafeLoader) if one]


def pods(objects: list[Object]) -> list[Pod]:
    """The pods of every workload."""
    found = []
    for one in objects:
        if one["kind"] == "Deployment":
            template = one["spec"]["template"]
            meta = template["metadata"]
            strategy = one["spec"].get("strategy", {})
            found.append(Pod(one, meta["labels"], meta.get("annotations", {}), template["spec"], strategy))
        elif one["kind"] == "Pod":
            found.append(Pod(one, one["metadata"]["labels"], {}, one["spec"], {}))
        elif one["kind"] == "InferenceService":
            spec = dict(one["spec"]["predictor"])
            beside = [spec.pop(key, {}) for key in ("labels", "annotations", "deploymentStrategy")]
            found.append(Pod(one, beside[0], beside[1], spec, beside[2]))
    return found


def deployments(objects: list[Object]) -> list[str]:
    """Names of the Deployments that there are, or that KServe makes (in its mode Standard)."""
    own = [one["metadata"]["name"] for one in of_kind(objects, "Deployment")]
    return own + [f"{one['metadata']['name']}-predictor" for one in of_kind(objects, "InferenceService")]


def of_kind(objects: list[Object], *kinds: str) -> Iterator[Object]:
    """The objects of these kinds."""
    return (one for one in objects if one["kind"] in kinds)


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    exact = selector.get("matchLabels", {}).items() <= labels.items()
    return exact and all(
        labels.get(term["key"]) in term["values"]
        for term in selector.get("matchExpressions", ())
        if term["operator"] == "In"
    )


def quantity(text: str | int | float) -> float:
    """A Kubernetes quantity as a number: `500m` is 0.5, `1Ki` is 1024."""
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(text)).groups()
    powers = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    binary = {f"{prefix}i": 1024.0**power for power, prefix in enumerate("KMGT", start=1)}
    return float(number) * (powers | binary)[unit]


def unfit(objects: list[Object], version: str) -> list[str]:
    """What does not fit the schemas of a Kubernetes version, or those of the custom resources."""
    return [wrong for one in objects if (wrong := _unfit(json.dumps(one, sort_keys=True), version))]


@functools.cache
def _unfit(written: str, version: str) -> str:
    """What is wrong with one object, "" where nothing is; most are the same in many variants."""
    one = json.loads(written)
    group, _, api = one["apiVersion"].rpartition("/")
    held = SCHEMAS / f"{group}_{one['kind'].lower()}_{api}.json"
    try:
        if held.is_file():
            jsonschema.Draft7Validator(_closed(json.loads(held.read_text()))).validate(one)
        else:
            kubernetes_validate.validate(one, version, strict=True)
    except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
        return f"{one['kind']} {one['metadata']['name']}: {error.message}"
    return ""


def _closed(schema: Any) -> Any:
    """The schema with every object closed to fields that it does not name, unless it says that it keeps them."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not is_open:
        closed["additionalProperties"] = False
    return closed


@functools.cache
def facts() -> Facts:
    """Read from the server's own code and help."""
    from lrm.serving.http.app import make_app
    from lrm.serving.http.server import Server
    from lrm.serving.http.web_server import DRAIN_S
    from lrm.serving.release import Release

    app = make_app(Server(Release(Path(), "any", "1", datetime(2024, 1, 1, tzinfo=UTC), {})))
    routes = {route.path: route for route in app.routes if "GET" in getattr(route, "methods", ())}
    shown = asyncio.run(routes["/metrics"].endpoint()).body.decode()
    return Facts(
        paths=frozenset(routes),
        drain_s=DRAIN_S,
        options={module: _options(module) for module in ("lrm.serving", "lrm.serving.releases.fetch")},
        metrics=frozenset(_series(shown)),
        documented=PAGE.read_text(),
    )


def _options(module: str) -> frozenset[str]:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    return frozenset(re.findall(r"--[a-z0-9-]+", done.stdout.partition("examples:")[0]))


def _series(shown: str) -> Iterator[str]:
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", shown, re.MULTILINE):
        yield name
        if kind == "histogram":
            yield from (f"{name}_bucket", f"{name}_sum", f"{name}_count")
