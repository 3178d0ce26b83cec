"""Judge a snapshot before anything is trained on it: expectations, drift, one page."""

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read once, when Great Expectations is first imported
