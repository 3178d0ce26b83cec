"""What must be true between the objects of a pool. A policy yields a sentence for each thing that is wrong."""

import re
from collections.abc import Iterator
from ipaddress import ip_network

import yaml

from tests.manifests.cluster import MANIFESTS, Facts, Object, deployments, of_kind, pods, selects
from tests.manifests.policies import pods_of

DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
NEEDED = (
    ("names", 53),
    ("the bucket", 443),
    ("the online store over TLS", 6378),
    ("the online store", 6379),
    ("the registry", 5000),
)
"""What a pod asks of others, and on which port."""
KNOWN = tuple(
    ip_network(place)
    for place in (
        *("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"),  # the cluster's own
        "169.254.0.0/16",  # of the node: names, the metadata server
        *("199.36.153.8/30", "199.36.153.4/30"),  # private.googleapis.com, restricted.googleapis.com
    )
)
"""Where a pod may have business."""
POD_HASH = "5d8f9c7b6d-x7k2p"
"""What a Deployment adds to its name in that of a pod."""


def selectors_find_pods(objects: list[Object], _: Facts) -> Iterator[str]:
    for one in of_kind(objects, "Service"):
        found = pods_of(objects, {"matchLabels": one["spec"]["selector"]})
        if len(found) != 1:
            yield f"Service {one['metadata']['name']}: selects the pods of {len(found)} workloads, expected one"
        named = {port["name"] for pod in found for port in pod.spec["containers"][0]["ports"]}
        for port in one["spec"]["ports"]:
            if port["targetPort"] not in named:
                yield f"Service {one['metadata']['name']}: no pod has the port {port['targetPort']}"
    for one in of_kind(objects, "PodDisruptionBudget", "Deployment"):
        if len(pods_of(objects, one["spec"]["selector"])) != 1:
            yield f"{one['kind']} {one['metadata']['name']}: does not select the pods of one workload"
    for pod in pods(objects):
        for spread in pod.spec.get("topologySpreadConstraints", ()):
            if not spread.get("labelSelector") or not selects(spread["labelSelector"], pod.labels):
                yield f"{pod.name}: a spread over {spread['topologyKey']} does not select its own pods"


def pods_are_spread(objects: list[Object], _: Facts) -> Iterator[str]:
    for pod in pods(objects):
        over = {spread["topologyKey"] for spread in pod.spec.get("topologySpreadConstraints", ())}
        if over != {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}:
            yield f"{pod.name}: is not spread over zones and nodes"


def budget_and_autoscaler_agree(objects: list[Object], _: Facts) -> Iterator[str]:
    """However few pods the autoscaler leaves, the budget lets one go and keeps one."""
    fewest = list(scales(objects))
    for name, least, most in fewest:
        if not 1 <= least <= most:
            yield f"{name}: scales from {least} to {most}"
    for one in of_kind(objects, "PodDisruptionBudget"):
        spec, name = one["spec"], one["metadata"]["name"]
        if ("maxUnavailable" in spec) == ("minAvailable" in spec):
            yield f"PodDisruptionBudget {name}: needs one of maxUnavailable and minAvailable"
        for scaled, least, _most in fewest:
            gone = spec.get("maxUnavailable", least - spec.get("minAvailable", 0))
            if not 1 <= gone < least:
                yield f"PodDisruptionBudget {name}: of the {least} pods of {scaled}, {gone} may be gone"
        if not fewest:
            yield f"PodDisruptionBudget {name}: nothing says how many pods there are at least"


def one_autoscaler_scales_what_exists(objects: list[Object], facts: Facts) -> Iterator[str]:
    workloads = {("Deployment", name) for name in deployments(objects)}
    targets = []
    for one in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        target = one["spec"]["scaleTargetRef"]
        targets.append((target["kind"], target["name"]))
        if targets[-1] not in workloads:
            yield f"{one['kind']} {one['metadata']['name']}: scales {target['name']}, which does not exist"
        for metric in _metrics(one):
            if metric not in known_series(facts):
                yield f"{one['kind']} {one['metadata']['name']}: neither server nor rules show {metric}"
    for one in of_kind(objects, "InferenceService"):
        if ("Deployment", f"{one['metadata']['name']}-predictor") not in targets:
            yield f"InferenceService {one['metadata']['name']}: nothing scales what KServe makes of it"
    if len(targets) != len(set(targets)):
        yield "two autoscalers scale the same workload"
    for one in of_kind(objects, "Deployment"):
        if ("Deployment", one["metadata"]["name"]) in targets and "replicas" in one["spec"]:
            yield f"Deployment {one['metadata']['name']}: says how many replicas, which its autoscaler decides"


def an_autoscaler_counts_its_own_pods(objects: list[Object], _: Facts) -> Iterator[str]:
    """Prometheus knows the pods of all pools: those of other namespaces, and a canary's beside it."""
    for one in of_kind(objects, "ScaledObject"):
        scaled, query = one["spec"]["scaleTargetRef"]["name"], one["spec"]["triggers"][0]["metadata"]["query"]
        if re.findall(r'\bnamespace="(.*?)"', query) != [one["metadata"]["namespace"]]:
            yield f"ScaledObject {one['metadata']['name']}: does not count the namespace {one['metadata']['namespace']}"
        counted = re.findall(r'\bpod=~"(.*?)"', query) or [".*"]
        for name in deployments(objects):
            if bool(re.fullmatch(counted[0], f"{name}-{POD_HASH}")) != (name == scaled):
                yield f"ScaledObject {one['metadata']['name']}: scales {scaled}, and counts pods as if of {name}"


def what_is_named_exists(objects: list[Object], facts: Facts) -> Iterator[str]:
    """ConfigMaps, Secrets, claims and accounts are here, or the page says how to make them."""
    held = {(one["kind"], one["metadata"]["name"]) for one in objects}
    for pod in pods(objects):
        for kind, name in _named(pod.spec):
            if (kind, name) not in held and f"`{name}`" not in facts.documented:
                yield f"{pod.name}: names the {kind} {name}, which is neither here nor documented"
    for one in of_kind(objects, "HTTPRoute"):
        for backend in [backend for rule in one["spec"]["rules"] for backend in rule["backendRefs"]]:
            if ("Service", backend["name"]) not in held:
                yield f"HTTPRoute {one['metadata']['name']}: leads to {backend['name']}, which does not exist"
        if f"`{one['spec']['parentRefs'][0]['name']}`" not in facts.documented:
            yield f"HTTPRoute {one['metadata']['name']}: its gateway is not documented"


def traffic_is_denied_but_for_what_is_needed(objects: list[Object], _: Facts) -> Iterator[str]:
    policies = list(of_kind(objects, "NetworkPolicy"))
    both = {"Ingress", "Egress"}
    if not any(not one["spec"]["podSelector"] and set(one["spec"]["policyTypes"]) == both for one in policies):
        yield "no policy denies all traffic"
    for one in policies:
        for rule in [*one["spec"].get("ingress", ()), *one["spec"].get("egress", ())]:
            if not rule.get("ports") or not (rule.get("from") or rule.get("to")):
                yield f"NetworkPolicy {one['metadata']['name']}: a rule leaves ports or peers open"
    for pod in pods(objects):
        mine = [one["spec"] for one in policies if selects(one["spec"]["podSelector"], pod.labels)]
        incoming = {port["port"] for one in mine for rule in one.get("ingress", ()) for port in rule["ports"]}
        outgoing = {port["port"] for one in mine for rule in one.get("egress", ()) for port in rule.get("ports", ())}
        if incoming != {pod.spec["containers"][0]["ports"][0]["name"]}:
            yield f"{pod.name}: callers reach {sorted(incoming) or 'nothing'}, expected its one port"
        for what, port in NEEDED:
            if port not in outgoing:
                yield f"{pod.name}: cannot reach {what} (port {port})"


def pods_reach_no_stranger(objects: list[Object], _: Facts) -> Iterator[str]:
    """Outside its own networks a pod reaches Google's interfaces by their private addresses, and nothing else."""
    for one in of_kind(objects, "NetworkPolicy"):
        for rule in one["spec"].get("egress", ()):
            for place in [peer["ipBlock"]["cidr"] for peer in rule.get("to", ()) if "ipBlock" in peer]:
                if not any(ip_network(place).subnet_of(known) for known in KNOWN):
                    yield f"NetworkPolicy {one['metadata']['name']}: lets pods reach {place}, open to strangers"


def images_are_named_by_digest(objects: list[Object], _: Facts) -> Iterator[str]:
    """For production: what was tried is what runs, image and release."""
    for pod in pods(objects):
        for one in pod.containers:
            if not DIGEST.fullmatch(one["image"]):
                yield f"{pod.name}, {one['name']}: the image {one['image']} is not named by digest"
        if len({one["image"] for one in pod.containers}) != 1:
            yield f"{pod.name}: fetches with another image than it serves with"


def releases_are_named_by_digest(objects: list[Object], _: Facts) -> Iterator[str]:
    """For production, but for a canary, which tries the newest."""
    for one in of_kind(objects, "ConfigMap"):
        if not one["metadata"]["name"].startswith("token-factory-settings-canary") and not re.fullmatch(
            "[0-9a-f]{64}", one["data"]["LRM_SHA256"]
        ):
            yield f"ConfigMap {one['metadata']['name']}: LRM_SHA256 does not name a release"


def known_series(facts: Facts) -> frozenset[str]:
    """Series of the server, of the recording rules, and of the adapter."""
    rules = yaml.safe_load((MANIFESTS / "monitoring/common/rules.yaml").read_text())
    recorded = {rule["record"] for group in rules["spec"]["groups"] for rule in group["rules"] if "record" in rule}
    adapter = yaml.safe_load((MANIFESTS / "monitoring/adapter.yaml").read_text())
    return facts.metrics | recorded | {rule["name"]["as"] for rule in adapter["rules"]["custom"]}


def series_in(query: str) -> set[str]:
    """The series of this project that a query names."""
    return set(re.findall(r"\b(?:lrm_|token_factory:)[a-z0-9_:]+", query))


def scales(objects: list[Object]) -> Iterator[tuple[str, int, int]]:
    """Name, fewest and most pods of what scales."""
    for one in objects:
        spec, name = one.get("spec", {}), f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "HorizontalPodAutoscaler":
            yield name, spec["minReplicas"], spec["maxReplicas"]
        elif one["kind"] == "ScaledObject":
            yield name, spec["minReplicaCount"], spec["maxReplicaCount"]


def _metrics(one: Object) -> set[str]:
    if one["kind"] == "HorizontalPodAutoscaler":
        return {metric["pods"]["metric"]["name"] for metric in one["spec"]["metrics"]}
    return {name for trigger in one["spec"]["triggers"] for name in series_in(trigger["metadata"]["query"])}


def _named(spec: Object) -> Iterator[tuple[str, str]]:
    if "serviceAccountName" in spec:
        yield "ServiceAccount", spec["serviceAccountName"]
    for one in [*spec.get("initContainers", ()), *spec["containers"]]:
        for source in one.get("envFrom", ()):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source:
                    yield kind, source[key]["name"]
        for variable in one.get("env", ()):
            for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if key in variable.get("valueFrom", {}):
                    yield kind, variable["valueFrom"][key]["name"]
    for volume in spec["volumes"]:
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
