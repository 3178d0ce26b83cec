import os

from lrm.process_environment import without_proxy

os.environ.update({"GX_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"})
for name in [name for name in os.environ if name.startswith("LRM_") and name != "LRM_SERVICES"]:
    del os.environ[name]  # a developer's own run must not change what the tests see
os.environ.update(without_proxy(os.environ))  # services of the tests are on the loopback
