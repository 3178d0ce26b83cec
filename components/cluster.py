"""What a cluster adds to every step: its image and who runs in it, the volume of data and state, and the run's id."""

from __future__ import annotations

import copy
from typing import Any

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes

from lrm.manifest import IMAGE
from lrm.record import RUN_ID

VOLUME, MOUNT = "token-factory", "/lrm"
"""The claim of the volume that all steps share, and where they see it: the parameters' defaults lie under it."""
READS_DATA = "retrieve-features"
USER = 1000
"""The user and group that the image names (Dockerfile)."""
RUN_LABEL = "metadata.labels['pipeline/runid']"


def on_image(workflow: Any, image: str) -> Any:
    """A copy of the workflow in which every step runs on `image`, which so enters the key of what is reused."""
    placed = copy.deepcopy(workflow)
    for executor in placed.pipeline_spec.deployment_spec["executors"].values():
        executor["container"]["image"] = image
    return placed


def for_cluster(workflow: Any, *, image: str, step_timeout_s: int) -> Any:
    """A copy of the workflow in which every step runs on `image` with the shared volume and knows image and run.

    No step runs as root, and each says so: a namespace that enforces restricted pods refuses it otherwise. The engine
    itself adds the rest of what such a namespace asks for (no more privileges, no capabilities, a seccomp profile).

    The cluster ends a pod that runs longer than `step_timeout_s` seconds; 0 for no limit. The step that reads the data
    always runs: a schedule has no fingerprint of them to name, and would be given its first snapshot for ever.
    """
    placed = on_image(workflow, image)
    executors = placed.pipeline_spec.deployment_spec["executors"]
    config = kubernetes.KubernetesExecutorConfig()
    mount = config.pvc_mount.add(mount_path=MOUNT, constant=VOLUME)
    mount.pvc_name_parameter.runtime_value.constant.string_value = VOLUME
    config.field_path_as_env.add(name=RUN_ID, field_path=RUN_LABEL)
    config.security_context.run_as_user = config.security_context.run_as_group = USER
    config.security_context.run_as_non_root = True
    config.active_deadline_seconds = step_timeout_s
    for name in executors:
        executors[name]["container"]["env"] = [{"name": IMAGE, "value": image}]
        steps = placed.platform_spec.platforms["kubernetes"].deployment_spec.executors
        steps[name].update(json_format.MessageToDict(config))
    for component in placed.pipeline_spec.components.values():
        if READS_DATA in component.dag.tasks:
            component.dag.tasks[READS_DATA].caching_options.enable_cache = False
    return placed
