"""The manifests, as a cluster would get them, fit its schemas and this project's rules."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from tests.manifests import check
from tests.manifests.check import violations
from tests.manifests.cluster import (
    ALONE,
    BESIDE,
    MANIFESTS,
    OPTIONS,
    OVERLAYS,
    PROJECT,
    VARIANTS,
    VERSIONS,
    facts,
    kustomizations,
    offered,
    pods,
    render,
    rendered,
    unfit,
)
from tests.manifests.policies import RECOMMENDED, VERSION
from tests.manifests.pool_policies import known_series, scales, series_in

MONITORING = MANIFESTS / "monitoring"
WATCHERS = {"gmp": "Rules", "operator": "PrometheusRule"}
"""The ways of watching, and the kind in which each takes its rules."""
NOT_READY = "TokenFactoryNotReady"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_fits_the_schemas_of_a_kubernetes_version(variant, version):
    assert unfit(rendered(variant), version) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_keeps_every_rule(variant):
    assert list(violations(variant, rendered(variant))) == []


def test_every_overlay_and_every_component_is_checked():
    assert {path.name for path in (MANIFESTS / "overlays").iterdir()} == set(OVERLAYS)
    options = {path.name for path in (MANIFESTS / "components").iterdir()}
    assert options == {"gpu"} | {option for variant in VARIANTS for option in variant.split("+")[1:]}


def test_a_field_that_kubernetes_does_not_know_is_found():
    objects = rendered("cpu")
    next(one for one in objects if one["kind"] == "Service")["spec"]["prots"] = []
    (wrong,) = unfit(objects, VERSIONS[0])
    assert "Additional properties are not allowed ('prots' was unexpected)" in wrong


@pytest.mark.parametrize(
    ("variant", "kind"),
    [
        ("production+keda", "ScaledObject"),
        ("production+kserve", "InferenceService"),
        ("production+httproute-canary", "HTTPRoute"),
    ],
)
def test_a_field_that_a_custom_resource_does_not_know_is_found(variant, kind):
    objects = rendered(variant)
    next(one for one in objects if one["kind"] == kind)["spec"]["sepc"] = {}
    (wrong,) = unfit(objects, VERSIONS[0])
    assert "Additional properties are not allowed ('sepc' was unexpected)" in wrong


@pytest.mark.parametrize("variant", [one for one in VARIANTS if one.endswith("+kserve")])
def test_the_pod_of_an_inference_service_is_that_of_the_deployment(variant):
    (plain,), (served,) = pods(rendered(variant.removesuffix("+kserve"))), pods(rendered(variant))
    plain.spec["containers"][0]["name"] = "kserve-container"
    plain.annotations["kubectl.kubernetes.io/default-container"] = "kserve-container"
    assert served[1:] == plain[1:]


@pytest.mark.parametrize("variant", [one for one in VARIANTS if {"keda", "kserve"} & {*one.split("+")}])
def test_another_autoscaler_keeps_as_many_pods_as_the_overlay_says(variant):
    ((_, *expected),) = scales(rendered(variant.split("+")[0]))
    ((_, *found),) = scales(rendered(variant))
    assert found == expected


def test_a_canary_is_a_pool_of_its_own_behind_the_same_network_rules():
    objects = rendered("production+httproute-canary")
    selectors = [one["spec"]["selector"] for one in objects if one["kind"] == "Service"]
    assert [one["app.kubernetes.io/instance"] for one in selectors] == ["token-factory", "token-factory-canary"]
    (route,) = [one for one in objects if one["kind"] == "HTTPRoute"]
    assert sum(backend["weight"] for backend in route["spec"]["rules"][0]["backendRefs"]) == 100


def test_make_manifests_writes_what_it_checked_and_says_what_is_wrong(monkeypatch, capsys):
    variants = ("production", "cpu", *ALONE)
    assert check.main(variants) == 0
    assert len(re.findall(r" good$", capsys.readouterr().out, re.MULTILINE)) == 2 + len(ALONE)
    written = yaml.safe_load_all((PROJECT / "build/manifests/production.yaml").read_text())
    assert list(written) == rendered("production")
    monkeypatch.setattr(check, "EVERYWHERE", check.EVERYWHERE + check.IN_PRODUCTION)
    assert check.main(variants) == 1
    assert "  images_are_named_by_digest: Deployment token-factory, server: the image" in capsys.readouterr().out


def test_make_manifests_says_what_cannot_be_rendered(capsys):
    assert check.main(["cpu+keda"]) == 1
    assert "  cannot be rendered: error: no resource matches" in capsys.readouterr().out


def test_every_kustomization_of_the_tree_is_rendered_by_itself_or_within_another():
    kinds = kustomizations()
    rendered_ = {*ALONE, *(f"overlays/{overlay}" for overlay in OVERLAYS)}
    assert {folder for folder, kind in kinds.items() if kind == "Kustomization"} == rendered_
    listed = {f"components/{option}" for one in offered() for option in one.split("+")[1:]}
    for folder in kinds:
        said = yaml.safe_load((MANIFESTS / folder / "kustomization.yaml").read_text())
        listed |= {
            str((MANIFESTS / folder / path).resolve().relative_to(MANIFESTS)) for path in said.get("components", ())
        }
    assert {folder for folder, kind in kinds.items() if kind == "Component"} == listed


def test_the_page_offers_every_overlay_and_component_and_what_the_tests_look_at():
    made = offered()
    assert len(made) == len(set(made)) == 4 + 3 * 8 * 3 + 2 * 8 * 3 * 4
    assert {one.split("+")[0] for one in made} == set(OVERLAYS)
    assert {option for one in made for option in one.split("+")[1:]} == set(OPTIONS)
    known = {frozenset(one.split("+")) for one in made}
    assert [one for one in VARIANTS if frozenset(one.split("+")) not in known] == []


def test_a_bucket_and_a_volume_of_releases_stand_side_by_side_and_the_bucket_is_read():
    (pod,) = pods(rendered("cpu+api-key+gcs-fuse"))
    names = [volume["name"] for volume in pod.spec["volumes"]]
    assert len(names) == len(set(names))
    assert {"depot", "bucket"} <= set(names)
    (fetch,) = pod.spec["initContainers"]
    assert {"name": "LRM_DEPOT", "value": "/depot"} in fetch["env"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("beside", BESIDE)
def test_what_stands_beside_the_pools_fits_its_schemas(beside, version):
    assert unfit(render(MANIFESTS / beside), version) == []


@pytest.mark.parametrize(("watcher", "kind"), WATCHERS.items())
def test_each_way_of_watching_asks_for_no_kind_that_comes_with_the_other(watcher, kind):
    objects = {one["kind"]: one for one in render(MONITORING / watcher)}
    assert objects.keys() == {kind, "ConfigMap", "PodMonitoring" if watcher == "gmp" else "PodMonitor"}
    assert {one["metadata"]["namespace"] for one in objects.values()} == {"token-factory-production"}
    assert all(one["metadata"]["labels"].keys() >= RECOMMENDED - {VERSION} for one in objects.values())


@pytest.mark.parametrize(("watcher", "kind"), WATCHERS.items())
def test_the_rules_of_each_way_differ_in_the_namespace_alone(watcher, kind):
    (found,) = [one for one in render(MONITORING / watcher) if one["kind"] == kind]
    text = json.dumps(found["spec"]["groups"])
    assert json.loads(text.replace("token-factory-production", "token-factory")) == groups()
    (ready,) = [rule for group in found["spec"]["groups"] for rule in group["rules"] if rule.get("alert") == NOT_READY]
    assert 'absent(lrm_ready{namespace="token-factory-production"})' in ready["expr"]


def test_a_group_without_an_interval_is_none_of_googles_rules():
    objects = render(MONITORING / "gmp")
    (rules_,) = [one for one in objects if one["kind"] == "Rules"]
    del rules_["spec"]["groups"][1]["interval"]
    assert unfit(objects, VERSIONS[0]) == ["Rules token-factory: 'interval' is a required property"]


def test_the_adapter_is_given_values_of_its_chart_and_the_metric_of_the_autoscaler():
    values = yaml.safe_load((MONITORING / "adapter.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    (scaler,) = [one for one in rendered("production") if one["kind"] == "HorizontalPodAutoscaler"]
    assert rule["name"]["as"] == scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert series_in(rule["seriesQuery"]) <= known_series(facts())
    (keda,) = [one for one in rendered("production+keda") if one["kind"] == "ScaledObject"]
    asked = keda["spec"]["triggers"][0]["metadata"]["serverAddress"]
    assert asked == f"{values['prometheus']['url']}:{values['prometheus']['port']}"


def test_rules_and_dashboard_name_only_series_that_there_are():
    queries = [rule["expr"] for rule in rules()]
    queries += [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    named = set().union(*(series_in(query) for query in queries))
    assert {"lrm_ready", "lrm_answers_flagged_total", "lrm_http_request_duration_seconds_bucket"} <= named
    assert named - known_series(facts()) == set()


def test_every_alert_leads_to_a_heading_that_explains_it():
    page = (PROJECT / "docs/kubernetes.md").read_text()
    alerts = [rule for rule in rules() if "alert" in rule]
    assert [rule["alert"] for rule in alerts if f"`{rule['alert']}`" not in page] == []
    assert {rule["annotations"]["runbook"] for rule in alerts} == {"docs/kubernetes.md#when-an-alert-fires"}
    assert "## When an alert fires" in page


def test_the_rules_record_and_alert_as_worked_out_by_hand(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool; install it (Debian: apt install prometheus)")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups()}))
    shutil.copyfile(PROJECT / "tests/manifests/rules_test.yaml", tmp_path / "test.yaml")
    done = subprocess.run([promtool, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "SUCCESS" in done.stdout) == (0, True), done.stdout + done.stderr


def test_the_dashboard_asks_the_chosen_source_and_its_panels_do_not_overlap():
    panels = dashboard()["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${source}"}
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert all(panel["description"] and panel["title"] for panel in panels)


def groups():
    return yaml.safe_load((MONITORING / "common/rules.yaml").read_text())["spec"]["groups"]


def rules():
    return [rule for group in groups() for rule in group["rules"]]


def dashboard():
    return json.loads((MONITORING / "common/dashboard.json").read_text())
