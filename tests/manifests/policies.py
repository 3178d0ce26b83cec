"""What must be true of the manifests beyond their schemas. A policy yields a sentence for each thing that is wrong."""

import re
from collections.abc import Callable, Iterator

from tests.manifests.cluster import Facts, Object, Pod, of_kind, pods, quantity, selects

VERSION = "app.kubernetes.io/version"
RECOMMENDED = {f"app.kubernetes.io/{key}" for key in ("name", "component", "instance", "part-of", "managed-by")} | {
    VERSION
}
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""Kinds of volumes that Pod Security "restricted" allows."""
FETCHED = "fetch-release"
FUSE = "gcsfuse.csi.storage.gke.io"
DRIVER = "/usr/local/nvidia/lib64"
"""Where GKE's device plugin shows a container the driver (container-engine-accelerators, `-container-path`)."""

Policy = Callable[[list[Object], Facts], Iterator[str]]


def requests_are_within_limits(objects: list[Object], _: Facts) -> Iterator[str]:
    for where, one in _containers(objects):
        requests, limits = one["resources"].get("requests", {}), one["resources"].get("limits", {})
        if not {"cpu", "memory"} <= requests.keys() or "memory" not in limits:
            yield f"{where}: CPU and memory need a request, memory a limit"
        for name in requests.keys() & limits.keys():
            if quantity(requests[name]) > quantity(limits[name]):
                yield f"{where}: the request of {name} is above its limit"


def probes_ask_what_the_server_answers(objects: list[Object], facts: Facts) -> Iterator[str]:
    paths = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    for pod in pods(objects):
        server = pod.spec["containers"][0]
        ports = {port["name"]: str(port["containerPort"]) for port in server["ports"]}
        for probe, path in paths.items():
            asked = server.get(probe, {}).get("httpGet", {})
            if asked.get("path") != path or path not in facts.paths:
                yield f"{pod.name}: {probe} asks {asked.get('path')}, expected {path}"
            if ports.get(asked.get("port")) != _given(server, "--port"):
                yield f"{pod.name}: {probe} asks port {asked.get('port')}, the server listens on another"


def a_pod_may_finish_its_requests(objects: list[Object], facts: Facts) -> Iterator[str]:
    for pod in pods(objects):
        slept = pod.spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        leave = int(_given(pod.spec["containers"][0], "--shutdown-delay-s") or 0)
        needed = slept + leave + facts.drain_s + 5
        if not leave:
            yield f"{pod.name}: it says nothing to kept connections before it stops; give --shutdown-delay-s"
        if not slept:
            yield f"{pod.name}: it stops before load balancers have forgotten it; sleep before the stop"
        if pod.spec["terminationGracePeriodSeconds"] < needed:
            yield f"{pod.name}: the grace period is shorter than sleep, leave, drain and five seconds ({needed} s)"


def commands_are_this_projects(objects: list[Object], facts: Facts) -> Iterator[str]:
    for where, one in _containers(objects):
        python, flag, module, *given = one["args"]
        if (python, flag) != ("python", "-m") or module not in facts.options:
            yield f"{where}: runs {one['args'][:3]}, which is no command of this project"
            continue
        unknown = {word.partition("=")[0] for word in given if word.startswith("--")} - facts.options[module]
        if unknown:
            yield f"{where}: {module} has no option {', '.join(sorted(unknown))}"


def the_release_is_fetched_and_checked(objects: list[Object], _: Facts) -> Iterator[str]:
    settings = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    for pod in pods(objects):
        fetch = next((one for one in pod.spec.get("initContainers", ()) if one["name"] == FETCHED), None)
        if fetch is None:
            yield f"{pod.name}: no init container fetches the release"
            continue
        known = {key for name in _settings(fetch) for key in settings.get(name, ())}
        asked = {variable for word in fetch["args"] for variable in re.findall(r"\$\((\w+)\)", word)}
        if asked - known:
            yield f"{pod.name}: {', '.join(sorted(asked - known))} is not in its settings"
        if _given(fetch, "--to") != _given(pod.spec["containers"][0], "--release"):
            yield f"{pod.name}: what is fetched is not what is served"
        if "--sha256=$(LRM_SHA256)" not in fetch["args"]:
            yield f"{pod.name}: the release's digest is not asked for"
        if "--sha256=$(LRM_SHA256)" not in pod.spec["containers"][0]["args"]:
            yield f"{pod.name}: the server does not ask for the release's digest"


def a_depot_that_is_a_folder_is_mounted(objects: list[Object], _: Facts) -> Iterator[str]:
    settings = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    for pod in pods(objects):
        for one in pod.spec.get("initContainers", ()):
            own = [entry.get("value", "") for entry in one.get("env", ()) if entry["name"] == "LRM_DEPOT"]
            depots = own or [settings.get(name, {}).get("LRM_DEPOT", "") for name in _settings(one)]
            mounts = [f"{mount['mountPath']}/" for mount in one["volumeMounts"]]
            for depot in depots:
                if depot.startswith("/") and not f"{depot}/".startswith(tuple(mounts)):
                    yield f"{pod.name}: the depot {depot} is not mounted"
        drivers = {volume["csi"]["driver"] for volume in pod.spec["volumes"] if "csi" in volume}
        if FUSE in drivers and pod.annotations.get("gke-gcsfuse/volumes") != "true":
            yield f"{pod.name}: mounts a bucket, and no annotation asks GKE for the container that does it"


def pods_are_restricted(objects: list[Object], _: Facts) -> Iterator[str]:
    """Pod Security "restricted", and a root that cannot be written."""
    for pod in pods(objects):
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{pod.name}: may run as root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod.name}: has no seccomp profile"
        for one in pod.containers:
            own = one.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{pod.name}, {one['name']}: may gain privileges"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{pod.name}, {one['name']}: keeps capabilities"
            if own.get("runAsUser") == 0 or own.get("runAsNonRoot") is False:
                yield f"{pod.name}, {one['name']}: runs as root"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{pod.name}, {one['name']}: may write its root"


def pods_do_not_touch_their_host(objects: list[Object], _: Facts) -> Iterator[str]:
    for pod in pods(objects):
        if pod.spec.get("hostNetwork") or pod.spec.get("hostPID") or pod.spec.get("hostIPC"):
            yield f"{pod.name}: shares a name space with its host"
        if any(port.get("hostPort") for one in pod.containers for port in one.get("ports", ())):
            yield f"{pod.name}: takes a port of its host"
        for volume in pod.spec["volumes"]:
            if not volume.keys() - {"name"} <= VOLUMES:
                yield f"{pod.name}: volume {volume['name']} is of a kind that is not allowed"


def the_namespace_enforces_restricted_pods(objects: list[Object], _: Facts) -> Iterator[str]:
    spaces = list(of_kind(objects, "Namespace"))
    names = {one["metadata"]["name"] for one in spaces}
    for one in spaces:
        if one["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"Namespace {one['metadata']['name']} does not enforce restricted pods"
    for one in objects:
        if one["kind"] != "Namespace" and one["metadata"].get("namespace") not in names:
            yield f"{one['kind']} {one['metadata']['name']} lies outside the namespace of this pool"


def disks_are_bounded(objects: list[Object], _: Facts) -> Iterator[str]:
    """Volumes on disk count as ephemeral storage, those in memory as memory; beyond the limit the pod is evicted."""
    for pod in pods(objects):
        limits = pod.spec["containers"][0]["resources"]["limits"]
        empty = [volume["emptyDir"] for volume in pod.spec["volumes"] if "emptyDir" in volume]
        if any("sizeLimit" not in one for one in empty):
            yield f"{pod.name}: a volume has no size limit"
        for medium, limit in (("", "ephemeral-storage"), ("Memory", "memory")):
            held = sum(quantity(one.get("sizeLimit", 0)) for one in empty if one.get("medium", "") == medium)
            if held > quantity(limits[limit]):
                yield f"{pod.name}: its volumes may hold more than its limit of {limit}"
        named = {volume["name"] for volume in pod.spec["volumes"]}
        mounted = {mount["name"] for one in pod.containers for mount in one.get("volumeMounts", ())}
        if named != mounted:
            yield f"{pod.name}: volumes and mounts differ by {', '.join(sorted(named ^ mounted))}"


def a_gpu_is_asked_for_in_full(objects: list[Object], _: Facts) -> Iterator[str]:
    for pod in pods(objects):
        server = pod.spec["containers"][0]
        if "nvidia.com/gpu" not in server["resources"]["limits"]:
            if "cloud.google.com/gke-accelerator" in pod.spec.get("nodeSelector", {}):
                yield f"{pod.name}: takes a GPU node, and no GPU"
            continue
        if "cloud.google.com/gke-accelerator" not in pod.spec.get("nodeSelector", {}):
            yield f"{pod.name}: does not say which GPU"
        if not any(one.get("key") == "nvidia.com/gpu" for one in pod.spec.get("tolerations", ())):
            yield f"{pod.name}: does not tolerate the taint of GPU nodes"
        variables = {one["name"]: one.get("value", "") for one in server.get("env", ())}
        if DRIVER not in variables.get("LD_LIBRARY_PATH", "").split(":"):
            yield f"{pod.name}: does not look for the driver where GKE mounts it ({DRIVER})"
        if variables.get("LRM_DEVICE") != "cuda":
            yield f"{pod.name}: would serve on the processor if it saw no GPU"
        if "/dev/shm" not in {mount["mountPath"] for mount in server["volumeMounts"]}:
            yield f"{pod.name}: has no shared memory of its own"
        if pod.strategy.get("rollingUpdate", {}).get("maxSurge") != 0:
            yield f"{pod.name}: a surge waits for a GPU to spare"


def objects_carry_the_recommended_labels(objects: list[Object], _: Facts) -> Iterator[str]:
    for one in objects:
        if missing := RECOMMENDED - one["metadata"].get("labels", {}).keys():
            yield f"{one['kind']} {one['metadata']['name']}: has no {', '.join(sorted(missing))}"
    for pod in pods(objects):
        if not pod.labels.keys() >= RECOMMENDED:
            yield f"{pod.name}: its pods lack labels"


def the_version_is_that_of_the_image(objects: list[Object], _: Facts) -> Iterator[str]:
    """An image by digest has a version of its own, not that of an image which was built for a try."""
    for pod in pods(objects):
        version = pod.labels.get(VERSION, "")
        for one in pod.containers:
            name, _, digest = one["image"].partition("@")
            tag = name.rpartition("/")[2].partition(":")[2]
            if (version == "dev") if digest else (tag != version):
                yield f"{pod.name}, {one['name']}: says version {version}, and is {one['image']}"
    versions = {one["metadata"].get("labels", {}).get(VERSION, "") for one in objects}
    if len(versions) != 1:
        yield f"objects of one pool say several versions: {', '.join(sorted(versions))}"


def _containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    return ((f"{pod.name}, {one['name']}", one) for pod in pods(objects) for one in pod.containers)


def _given(container: Object, option: str) -> str:
    """The value of an option of a container's command."""
    args = container["args"]
    if option in args:
        return str(args[args.index(option) + 1])
    return next((word.partition("=")[2] for word in args if word.startswith(f"{option}=")), "")


def _settings(container: Object) -> list[str]:
    return [one["configMapRef"]["name"] for one in container.get("envFrom", ()) if "configMapRef" in one]


def pods_of(objects: list[Object], selector: Object) -> list[Pod]:
    """The pods that a selector finds."""
    return [pod for pod in pods(objects) if selects(selector, pod.labels)]
