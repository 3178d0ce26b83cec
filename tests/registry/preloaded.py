"""What a child of `children.PROCESSES` has imported when it starts: the registry's client and its stores."""

import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
from sqlalchemy.orm import configure_mappers

from lrm.registry import backend, bucket  # noqa: F401
from lrm.serving import release  # noqa: F401

configure_mappers()
