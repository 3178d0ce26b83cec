"""The commands of docs/kubernetes.md, read as text: what they use is there, and made before it is used."""

import re
import subprocess

import pytest
import yaml

from tests.manifests.cluster import GPUS, MANIFESTS, PROJECT, facts, pods, render, rendered

COMMANDS = ("gcloud", "kubectl", "docker", "helm", "make", "python", "PROJECT=", "curl")


def blocks():
    """The fenced blocks that are typed into a shell, in their order."""
    fenced = re.findall(r"^```\n(.*?)^```$", facts().documented, re.MULTILINE | re.DOTALL)
    return [block for block in fenced if block.startswith(COMMANDS)]


def commands():
    """Their lines, in which a command that goes on is one line."""
    return [line.strip() for block in blocks() for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.strip()]


def test_every_block_is_one_that_a_shell_reads():
    assert len(blocks()) >= 9
    for block in blocks():
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), block


def test_every_variable_is_set_before_it_is_used():
    known, unknown = set(), []
    for line in commands():
        unknown += [(name, line) for name in re.findall(r"(?<!\\)\$\{?([A-Z_]+)", line) if name not in known]
        known |= set(re.findall(r"(?:^|\s)([A-Z_]+)=", line)) | set(re.findall(r"^for ([A-Z_]+) in", line))
    assert unknown == []


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("gcloud config set project", "gcloud services enable"),
        ("gcloud services enable", "gcloud container clusters create"),
        ("gcloud container clusters get-credentials", "kubectl"),
        ("gcloud auth configure-docker", "docker push"),
        ("gcloud compute routers nats create", "gcloud container clusters create"),
        ("kubectl create namespace token-factory-production", "kubectl -n token-factory-production create secret"),
        ("kubectl create namespace mlflow", "kubectl -n mlflow create secret"),
    ],
)
def test_what_a_command_needs_comes_before_it(first, then):
    lines = commands()
    begin = [next(at for at, line in enumerate(lines) if line.startswith(wanted)) for wanted in (first, then)]
    assert begin[0] < begin[1]


def test_files_that_the_page_names_exist():
    named = re.findall(r"\bmanifests/[\w./-]+", facts().documented)
    named += [f"manifests/{path}" for path in re.findall(r"`((?:overlays|components)/[\w./-]+)", facts().documented)]
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_each_gpu_has_its_machine_and_a_zone_is_named_for_it():
    (created,) = (line for line in commands() if "--accelerator" in line)
    assert "--node-locations" in created
    rows = {
        row[0]: row
        for row in re.findall(
            r"^\| `(gpu-\w+)` \| `(\S+)` \| `type=(\S+?),count=1,.*` \| (.*)\|$", facts().documented, re.M
        )
    }
    assert rows.keys() == set(GPUS)
    for gpu in GPUS:
        (pod,) = pods(rendered(gpu))
        assert rows[gpu][2] == pod.spec["nodeSelector"]["cloud.google.com/gke-accelerator"]
    assert "`--spot`" in rows["gpu-h100"][3]


def test_every_pool_that_is_on_google_may_read_the_bucket():
    (loop,) = (line for line in commands() if line.startswith("for NAMESPACE in"))
    spaces = {
        one["metadata"]["name"]
        for overlay in (*GPUS, "staging", "production")
        for one in rendered(overlay)
        if one["kind"] == "Namespace"
    }
    assert set(re.fullmatch(r"for NAMESPACE in (.*); do", loop)[1].split()) == spaces


def test_the_documented_connection_is_one_that_the_store_can_be_reached_by():
    from feast.infra.online_stores.redis import RedisOnlineStore
    from redis import Redis

    (made,) = (line for line in commands() if "create secret generic token-factory-online-store" in line)
    said = re.search(r"connection=(\S+)", made)[1].replace("$HOST", "10.0.0.3").replace("$PASSWORD", "5d1e-8")
    ((place,), settings) = RedisOnlineStore._parse_connection_string(said)
    assert settings == {
        "ssl": True,
        "ssl_ca_certs": "/online-store/ca.pem",
        "ssl_check_hostname": False,
        "password": "5d1e-8",
        "socket_timeout": 0.2,
        "socket_connect_timeout": 0.5,
    }
    client = Redis(host=place["host"], port=int(place["port"]), **settings)
    assert client.connection_pool.make_connection().cert_reqs.name == "CERT_REQUIRED"
    (pod,) = pods(rendered("production"))
    (mount,) = (one for one in pod.spec["containers"][0]["volumeMounts"] if one["name"] == "online-store")
    (volume,) = (one["secret"] for one in pod.spec["volumes"] if one["name"] == "online-store")
    assert settings["ssl_ca_certs"] == f"{mount['mountPath']}/{volume['items'][0]['path']}"
    assert f"--from-file {volume['items'][0]['key']} " in made
    policies = [one for one in rendered("production") if one["kind"] == "NetworkPolicy"]
    ports = {port["port"] for one in policies for rule in one["spec"].get("egress", ()) for port in rule["ports"]}
    assert int(place["port"]) in ports


def test_the_adapter_and_keda_ask_the_frontend_that_the_page_sets_up():
    values = yaml.safe_load((MANIFESTS / "monitoring/adapter.yaml").read_text())
    (deployed,) = (line for line in commands() if "examples/frontend.yaml" in line)
    space = re.search(r"kubectl apply -n (\S+)", deployed)[1]
    assert values["prometheus"]["url"] == f"http://frontend.{space}.svc"
    assert any(line.endswith(f"/ns/{space}/sa/default") for line in commands())


def test_the_page_applies_the_rules_that_its_cluster_knows():
    (created,) = (line for line in commands() if line.startswith("gcloud container clusters create"))
    assert "--enable-managed-prometheus" in created
    assert any(line.startswith("kubectl apply -k manifests/monitoring/gmp ") for line in commands())
    kinds = {one["apiVersion"] for one in render(MANIFESTS / "monitoring/gmp")}
    assert kinds == {"v1", "monitoring.googleapis.com/v1"}
