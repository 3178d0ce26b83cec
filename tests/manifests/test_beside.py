"""What stands beside the pools: the registry, and the pod through which a laptop's depot is filled."""

import re
import subprocess
import sys

import pytest
import yaml

from tests.manifests.check import OF_ANY_POD, violations
from tests.manifests.cluster import BESIDE, MANIFESTS, PROJECT, VERSIONS, facts, pods, render, rendered, unfit
from tests.manifests.policies import objects_carry_the_recommended_labels, the_namespace_enforces_restricted_pods


@pytest.mark.parametrize("beside", BESIDE)
def test_what_stands_beside_the_pools_keeps_the_rules_of_any_pod(beside):
    assert list(violations(beside, render(MANIFESTS / beside))) == []


def test_the_registry_is_restricted_labelled_and_of_the_version_that_clients_have():
    objects = render(MANIFESTS / "mlflow")
    for policy in (objects_carry_the_recommended_labels, the_namespace_enforces_restricted_pods):
        assert list(policy(objects, facts())) == []
    (pod,) = pods(objects)
    (pinned,) = re.findall(r"^mlflow==(.+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    assert pod.containers[0]["image"].endswith(f"/mlflow:{pinned}")
    assert f"ghcr.io/mlflow/mlflow:v{pinned}" in facts().documented


def test_the_registry_answers_to_the_name_and_port_that_a_pool_may_reach():
    objects = render(MANIFESTS / "mlflow")
    service = next(one for one in objects if one["kind"] == "Service")
    (pod,) = pods(objects)
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    (hosts,) = (word.partition("=")[2] for word in pod.containers[0]["args"] if word.startswith("--allowed-hosts="))
    assert f"{name}.{service['metadata']['namespace']}:{port}" in hosts.split(",")
    assert f"LRM_REGISTRY=http://mlflow.mlflow:{port}" in facts().documented
    pools = {one["metadata"]["namespace"] for one in rendered("production") if one["kind"] == "Deployment"}
    (allowed,) = (one for one in objects if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "mlflow")
    (rule,) = allowed["spec"]["ingress"]
    assert pools <= set(rule["from"][0]["namespaceSelector"]["matchExpressions"][0]["values"])


def test_mlflow_knows_the_options_of_the_registry():
    (pod,) = pods(render(MANIFESTS / "mlflow"))
    command = [sys.executable, "-m", *pod.containers[0]["command"], "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    given = {word.partition("=")[0] for word in pod.containers[0]["args"]}
    assert given <= set(re.findall(r"--[a-z-]+", shown))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pod_that_fills_the_depot_of_a_laptop_is_let_in_and_mounts_what_the_server_reads(version):
    loader = yaml.safe_load((MANIFESTS / "overlays/cpu/depot-loader.yaml").read_text())
    objects = [*rendered("cpu"), loader]
    assert unfit([loader], version) == []
    wrong = [one for policy in OF_ANY_POD for one in policy(objects, facts())]
    wrong += [
        *objects_carry_the_recommended_labels(objects, facts()),
        *the_namespace_enforces_restricted_pods(objects, facts()),
    ]
    assert wrong == []
    claims = [
        [
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod.spec["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        for pod in pods(objects)
    ]
    assert claims == [["token-factory"], ["token-factory"]]
    served, loading = pods(objects)
    assert loading.containers[0]["image"] == served.containers[0]["image"]
