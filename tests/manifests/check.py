"""`make manifests`: render all that the page offers into build/manifests/, and say what is wrong with it."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import yaml

from tests.manifests import policies, pool_policies
from tests.manifests.cluster import (
    ALONE,
    BESIDE,
    MANIFESTS,
    PROJECT,
    VERSIONS,
    Object,
    facts,
    offered,
    render,
    rendered,
    unfit,
)
from tests.manifests.policies import Policy

PRODUCTION = "production"
EVERYWHERE: tuple[Policy, ...] = (
    policies.requests_are_within_limits,
    policies.probes_ask_what_the_server_answers,
    policies.a_pod_may_finish_its_requests,
    policies.commands_are_this_projects,
    policies.the_release_is_fetched_and_checked,
    policies.a_depot_that_is_a_folder_is_mounted,
    policies.pods_are_restricted,
    policies.pods_do_not_touch_their_host,
    policies.the_namespace_enforces_restricted_pods,
    policies.disks_are_bounded,
    policies.a_gpu_is_asked_for_in_full,
    policies.objects_carry_the_recommended_labels,
    policies.the_version_is_that_of_the_image,
    pool_policies.selectors_find_pods,
    pool_policies.pods_are_spread,
    pool_policies.budget_and_autoscaler_agree,
    pool_policies.one_autoscaler_scales_what_exists,
    pool_policies.an_autoscaler_counts_its_own_pods,
    pool_policies.what_is_named_exists,
    pool_policies.traffic_is_denied_but_for_what_is_needed,
    pool_policies.pods_reach_no_stranger,
)
IN_PRODUCTION: tuple[Policy, ...] = (
    pool_policies.images_are_named_by_digest,
    pool_policies.releases_are_named_by_digest,
)


OF_ANY_POD: tuple[Policy, ...] = (
    policies.requests_are_within_limits,
    policies.pods_are_restricted,
    policies.pods_do_not_touch_their_host,
    policies.the_version_is_that_of_the_image,
    pool_policies.selectors_find_pods,
    pool_policies.what_is_named_exists,
    pool_policies.pods_reach_no_stranger,
)


def violations(variant: str, objects: list[Object]) -> Iterator[str]:
    """What breaks a policy that holds for the variant, or for what stands beside the pools."""
    held = EVERYWHERE + (IN_PRODUCTION if variant.startswith(PRODUCTION) else ())
    if variant in ALONE:
        held = OF_ANY_POD if variant in BESIDE else ()  # the base and the second pool are judged within an overlay
    for policy in held:
        yield from (f"{policy.__name__}: {wrong}" for wrong in policy(objects, facts()))


def main(variants: Sequence[str]) -> int:
    """Write and check variants; returns the exit status."""
    (PROJECT / "build/manifests").mkdir(parents=True, exist_ok=True)
    failed = False
    with ThreadPoolExecutor() as several:
        for variant, (n_objects, wrong) in zip(variants, several.map(_checked, variants), strict=True):
            failed |= bool(wrong)
            print(f"{variant:<57} {n_objects:>2} objects  {', '.join(VERSIONS)}  {'wrong' if wrong else 'good'}")
            print(*(f"  {one}\n" for one in wrong), sep="", end="")
    return 1 if failed else 0


def _checked(variant: str) -> tuple[int, list[str]]:
    """Write a variant; how many objects it has, and what is wrong with it."""
    try:
        objects = render(MANIFESTS / variant) if variant in ALONE else rendered(variant)
    except subprocess.CalledProcessError as error:
        return 0, [f"cannot be rendered: {error.stderr.strip()}"]
    written = yaml.dump_all(objects, Dumper=yaml.CSafeDumper, sort_keys=False)
    (PROJECT / f"build/manifests/{variant.replace('/', '-')}.yaml").write_text(written)
    wrong = [f"Kubernetes {version}: {one}" for version in VERSIONS for one in unfit(objects, version)]
    return len(objects), wrong + list(violations(variant, objects))


if __name__ == "__main__":
    sys.exit(main((*offered(), *ALONE)))
