"""Every rule about the manifests finds the mistake that it is there for."""

from collections.abc import Callable

import pytest

from tests.manifests import policies as p
from tests.manifests import pool_policies as q
from tests.manifests.check import EVERYWHERE, IN_PRODUCTION
from tests.manifests.cluster import Object, facts, rendered

SERVER = "Deployment spec.template.spec.containers.0"
FETCH = "Deployment spec.template.spec.initContainers.0"
POD = "Deployment spec.template.spec"
GONE = object()
"""Planted by taking the value away."""

# rule, variant, where (kind, then the path of keys and places), what is planted there, what the rule says of it
PLANTED = [
    (p.requests_are_within_limits, "cpu", f"{SERVER}.resources.requests.memory", "64Gi", "memory is above its limit"),
    (p.requests_are_within_limits, "cpu", f"{FETCH}.resources.limits", {}, "memory a limit"),
    (p.probes_ask_what_the_server_answers, "cpu", f"{SERVER}.startupProbe", GONE, "startupProbe asks None"),
    (p.probes_ask_what_the_server_answers, "cpu", f"{SERVER}.readinessProbe.httpGet.path", "/ready", "asks /ready"),
    (p.probes_ask_what_the_server_answers, "cpu", f"{SERVER}.livenessProbe.httpGet.path", "/readyz", "asks /readyz"),
    (p.probes_ask_what_the_server_answers, "cpu", f"{SERVER}.livenessProbe.httpGet.port", 8080, "asks port 8080"),
    (p.probes_ask_what_the_server_answers, "cpu", f"{SERVER}.ports.0.containerPort", 80, "listens on another"),
    (p.a_pod_may_finish_its_requests, "cpu", f"{POD}.terminationGracePeriodSeconds", 30, "grace period is shorter"),
    (p.a_pod_may_finish_its_requests, "cpu", f"{SERVER}.args.10", "0", "says nothing to kept connections"),
    (p.a_pod_may_finish_its_requests, "cpu", f"{SERVER}.lifecycle", GONE, "sleep before the stop"),
    (p.commands_are_this_projects, "cpu", f"{FETCH}.args.2", "lrm.serving.download", "no command of this project"),
    (p.commands_are_this_projects, "cpu", f"{SERVER}.args.3", "--model", "lrm.serving has no option --model"),
    (p.the_release_is_fetched_and_checked, "cpu", f"{FETCH}.name", "other", "no init container fetches"),
    (p.the_release_is_fetched_and_checked, "cpu", "ConfigMap data.LRM_NAME", GONE, "LRM_NAME is not in its settings"),
    (p.the_release_is_fetched_and_checked, "cpu", f"{FETCH}.args.8", "--to=/models/new", "is not what is served"),
    (p.the_release_is_fetched_and_checked, "cpu", f"{FETCH}.args.6", "--sha256=", "digest is not asked for"),
    (p.the_release_is_fetched_and_checked, "cpu", f"{SERVER}.args.11", "--sha256=", "server does not ask for"),
    (p.a_depot_that_is_a_folder_is_mounted, "cpu", "ConfigMap data.LRM_DEPOT", "/depot", "depot /depot is not mounted"),
    (
        p.a_depot_that_is_a_folder_is_mounted,
        "production+gcs-fuse+kserve",
        "InferenceService spec.predictor.annotations",
        GONE,
        "mounts a bucket, and no annotation",
    ),
    (p.pods_are_restricted, "cpu", f"{POD}.securityContext.runAsUser", 0, "may run as root"),
    (p.pods_are_restricted, "cpu", f"{POD}.securityContext.seccompProfile", GONE, "no seccomp profile"),
    (p.pods_are_restricted, "cpu", f"{SERVER}.securityContext.allowPrivilegeEscalation", True, "gain privileges"),
    (p.pods_are_restricted, "cpu", f"{FETCH}.securityContext.capabilities", {"add": ["NET_ADMIN"]}, "capabilities"),
    (p.pods_are_restricted, "cpu", f"{FETCH}.securityContext.runAsUser", 0, "runs as root"),
    (p.pods_are_restricted, "cpu", f"{SERVER}.securityContext.readOnlyRootFilesystem", False, "may write its root"),
    (p.pods_do_not_touch_their_host, "cpu", f"{POD}.hostNetwork", True, "shares a name space with its host"),
    (p.pods_do_not_touch_their_host, "cpu", f"{SERVER}.ports.0.hostPort", 80, "takes a port of its host"),
    (p.pods_do_not_touch_their_host, "cpu", f"{POD}.volumes.0", {"name": "models", "hostPath": {}}, "not allowed"),
    (p.the_namespace_enforces_restricted_pods, "cpu", "Namespace metadata.labels", {}, "does not enforce"),
    (p.the_namespace_enforces_restricted_pods, "cpu", "Service metadata.namespace", "other", "lies outside"),
    (p.disks_are_bounded, "cpu", f"{POD}.volumes.1.emptyDir", {}, "a volume has no size limit"),
    (p.disks_are_bounded, "gpu-l4", f"{SERVER}.resources.limits.ephemeral-storage", "9Gi", "of ephemeral-storage"),
    (p.disks_are_bounded, "gpu-l4", f"{SERVER}.resources.limits.memory", "512Mi", "more than its limit of memory"),
    (p.disks_are_bounded, "cpu", f"{SERVER}.volumeMounts.1.name", "scratch", "differ by scratch"),
    (p.a_gpu_is_asked_for_in_full, "gpu-l4", f"{SERVER}.resources.limits", {}, "takes a GPU node, and no GPU"),
    (p.a_gpu_is_asked_for_in_full, "gpu-a100", f"{POD}.nodeSelector", GONE, "does not say which GPU"),
    (p.a_gpu_is_asked_for_in_full, "gpu-h100", f"{POD}.tolerations", [], "does not tolerate the taint"),
    (p.a_gpu_is_asked_for_in_full, "gpu-l4", f"{SERVER}.volumeMounts", [], "no shared memory"),
    (p.a_gpu_is_asked_for_in_full, "gpu-l4", f"{SERVER}.env.0.value", "/usr/lib", "does not look for the driver"),
    (p.a_gpu_is_asked_for_in_full, "gpu-l4", f"{SERVER}.env.1.value", "auto", "would serve on the processor"),
    (p.a_gpu_is_asked_for_in_full, "gpu-l4", "Deployment spec.strategy.rollingUpdate.maxSurge", 1, "GPU to spare"),
    (
        p.a_gpu_is_asked_for_in_full,
        "gpu-l4+kserve",
        "InferenceService spec.predictor.deploymentStrategy",
        GONE,
        "GPU to spare",
    ),
    (p.objects_carry_the_recommended_labels, "cpu", "Service metadata.labels", {}, "Service token-factory: has no"),
    (p.objects_carry_the_recommended_labels, "cpu", "Deployment spec.template.metadata.labels", {}, "pods lack labels"),
    (
        p.the_version_is_that_of_the_image,
        "cpu",
        f"{SERVER}.image",
        "token-factory-serve:v2",
        "says version dev, and is",
    ),
    (
        p.the_version_is_that_of_the_image,
        "production",
        "Deployment spec.template.metadata.labels",
        {"app.kubernetes.io/version": "dev"},
        "says version dev, and is europe-docker.pkg.dev/",
    ),
    (p.the_version_is_that_of_the_image, "staging", "Service metadata.labels", {}, "say several versions: , dev"),
    (q.selectors_find_pods, "cpu", "Service spec.selector", {"app": "other"}, "of 0 workloads"),
    (q.selectors_find_pods, "cpu", "Service spec.ports.0.targetPort", "grpc", "no pod has the port grpc"),
    (
        q.selectors_find_pods,
        "staging",
        "PodDisruptionBudget spec.selector.matchLabels",
        {"app": "other"},
        "one workload",
    ),
    (q.selectors_find_pods, "cpu", f"{POD}.topologySpreadConstraints.0.labelSelector", {}, "its own pods"),
    (q.pods_are_spread, "cpu", f"{POD}.topologySpreadConstraints.0.topologyKey", "rack", "not spread over zones"),
    (q.budget_and_autoscaler_agree, "staging", "PodDisruptionBudget spec.maxUnavailable", 2, "2 may be gone"),
    (q.budget_and_autoscaler_agree, "staging", "PodDisruptionBudget spec.minAvailable", 1, "needs one of"),
    (q.budget_and_autoscaler_agree, "staging", "HorizontalPodAutoscaler spec.minReplicas", 1, "of the 1 pods"),
    (q.budget_and_autoscaler_agree, "staging", "HorizontalPodAutoscaler spec.maxReplicas", 1, "scales from 2 to 1"),
    (q.budget_and_autoscaler_agree, "staging", "HorizontalPodAutoscaler kind", "Gone", "how many pods there are"),
    (q.one_autoscaler_scales_what_exists, "production+keda", "ScaledObject spec.scaleTargetRef.name", "x", "not exist"),
    (
        q.one_autoscaler_scales_what_exists,
        "production+kserve",
        "HorizontalPodAutoscaler spec.scaleTargetRef.name",
        "token-factory",
        "nothing scales what KServe makes of it",
    ),
    (q.one_autoscaler_scales_what_exists, "staging", "Deployment spec.replicas", 2, "its autoscaler decides"),
    (
        q.one_autoscaler_scales_what_exists,
        "production+keda",
        "ScaledObject spec.triggers.0.metadata.query",
        "sum(lrm_waiting)",
        "neither server nor rules show lrm_waiting",
    ),
    (
        q.an_autoscaler_counts_its_own_pods,
        "staging+keda",
        "ScaledObject metadata.namespace",
        "token-factory-production",
        "does not count the namespace token-factory-production",
    ),
    (
        q.an_autoscaler_counts_its_own_pods,
        "production+httproute-canary+keda",
        "ScaledObject spec.triggers.0.metadata.query",
        'sum(token_factory:in_flight:mean1m{namespace="token-factory-production"})',
        "counts pods as if of token-factory-canary",
    ),
    (q.what_is_named_exists, "cpu", f"{SERVER}.envFrom.0.configMapRef.name", "x", "the ConfigMap x, which is neither"),
    (q.what_is_named_exists, "cpu", f"{SERVER}.env.1.valueFrom.secretKeyRef.name", "x", "names the Secret x"),
    (q.what_is_named_exists, "cpu", f"{POD}.volumes.0", {"name": "v", "secret": {"secretName": "x"}}, "the Secret x"),
    (q.what_is_named_exists, "cpu", f"{POD}.volumes.0", {"name": "v", "configMap": {"name": "x"}}, "the ConfigMap x"),
    (
        q.what_is_named_exists,
        "cpu",
        f"{POD}.volumes.0",
        {"name": "v", "persistentVolumeClaim": {"claimName": "x"}},
        "the PersistentVolumeClaim x",
    ),
    (q.what_is_named_exists, "cpu", f"{POD}.serviceAccountName", "x", "names the ServiceAccount x"),
    (
        q.what_is_named_exists,
        "production+httproute-canary",
        "HTTPRoute spec.rules.0.backendRefs.1.name",
        "x",
        "leads to x",
    ),
    (
        q.what_is_named_exists,
        "production+httproute-canary",
        "HTTPRoute spec.parentRefs.0.name",
        "x",
        "gateway is not documented",
    ),
    (q.traffic_is_denied_but_for_what_is_needed, "cpu", "NetworkPolicy spec.policyTypes", ["Ingress"], "denies all"),
    (q.traffic_is_denied_but_for_what_is_needed, "cpu", "NetworkPolicy/1 spec.ingress.0.from", [], "peers open"),
    (
        q.traffic_is_denied_but_for_what_is_needed,
        "cpu",
        "NetworkPolicy/1 spec.egress.0.ports",
        [],
        "cannot reach names",
    ),
    (q.traffic_is_denied_but_for_what_is_needed, "cpu", "NetworkPolicy/1 spec.ingress", [], "reach nothing"),
    (
        q.traffic_is_denied_but_for_what_is_needed,
        "cpu",
        "NetworkPolicy/1 spec.egress.3.ports",
        [{"port": 6379, "protocol": "TCP"}],
        "cannot reach the online store over TLS (port 6378)",
    ),
    (
        q.pods_reach_no_stranger,
        "production",
        "NetworkPolicy/1 spec.egress.2.to.0.ipBlock",
        {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]},
        "lets pods reach 0.0.0.0/0, open to strangers",
    ),
    (
        q.pods_reach_no_stranger,
        "cpu",
        "NetworkPolicy/1 spec.egress.3.to.1.ipBlock.cidr",
        "8.0.0.0/6",
        "reach 8.0.0.0/6",
    ),
    (q.images_are_named_by_digest, "production", f"{SERVER}.image", "serve:v1", "serve:v1 is not named by digest"),
    (q.images_are_named_by_digest, "production", f"{FETCH}.image", f"x@sha256:{'0' * 64}", "another image"),
    (q.releases_are_named_by_digest, "production", "ConfigMap data.LRM_SHA256", "", "does not name a release"),
]


@pytest.mark.parametrize(("policy", "variant", "where", "value", "said"), PLANTED)
def test_a_planted_mistake_is_found(policy, variant, where, value, said):
    objects = rendered(variant)
    assert list(policy(objects, facts())) == []
    plant(objects, where, value)
    found = list(policy(objects, facts()))
    assert [wrong for wrong in found if said in wrong], found


def test_two_autoscalers_of_one_workload_are_found():
    objects = rendered("staging")
    (scaler,) = [one for one in objects if one["kind"] == "HorizontalPodAutoscaler"]
    wrong = list(q.one_autoscaler_scales_what_exists([*objects, scaler], facts()))
    assert wrong == ["two autoscalers scale the same workload"]


def test_every_rule_has_a_mistake_planted_for_it():
    planted: set[Callable] = {policy for policy, *_ in PLANTED}
    assert planted == {*EVERYWHERE, *IN_PRODUCTION}


def plant(objects: list[Object], where: str, value: object) -> None:
    """Set, or take away, one value of the nth object of a kind (`Kind` or `Kind/n`)."""
    kind, path = where.split()
    name, _, place = kind.partition("/")
    here = [one for one in objects if one["kind"] == name][int(place or 0)]
    *way, last = path.split(".")
    for key in way:
        here = here[int(key)] if isinstance(here, list) else here[key]
    key = int(last) if isinstance(here, list) else last
    if value is GONE:
        del here[key]
    else:
        here[key] = value
