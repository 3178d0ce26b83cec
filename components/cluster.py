"""What a cluster adds to every step: its image, the volume that holds data and state, and the run's id."""

from __future__ import annotations

import copy
from typing import Any

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes

from lrm.record import RUN_ID

VOLUME, MOUNT = "token-factory", "/lrm"
"""The claim of the volume that all steps share, and where they see it: the parameters' defaults lie under it."""
READS_DATA = "retrieve-features"
RUN_LABEL = "metadata.labels['pipeline/runid']"


def on_image(workflow: Any, image: str) -> Any:
    """A copy of the workflow in which every step runs on `image`, which so enters the key of what is reused."""
    placed = copy.deepcopy(workflow)
    for executor in placed.pipeline_spec.deployment_spec["executors"].values():
        executor["container"]["image"] = image
    return placed


def for_cluster(workflow: Any, *, image: str) -> Any:
    """A copy of the workflow in which every step runs on `image` with the shared volume and knows its run.

    The step that reads the data always runs: a schedule has no fingerprint of them to name, and would be given its
    first snapshot for ever.
    """
    placed = on_image(workflow, image)
    executors = placed.pipeline_spec.deployment_spec["executors"]
    config = kubernetes.KubernetesExecutorConfig()
    mount = config.pvc_mount.add(mount_path=MOUNT, constant=VOLUME)
    mount.pvc_name_parameter.runtime_value.constant.string_value = VOLUME
    config.field_path_as_env.add(name=RUN_ID, field_path=RUN_LABEL)
    for name in executors:
        steps = placed.platform_spec.platforms["kubernetes"].deployment_spec.executors
        steps[name].update(json_format.MessageToDict(config))
    for component in placed.pipeline_spec.components.values():
        if READS_DATA in component.dag.tasks:
            component.dag.tasks[READS_DATA].caching_options.enable_cache = False
    return placed
