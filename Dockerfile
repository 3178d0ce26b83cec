# The one image of every step and of the server. Build arguments and pip's own variables can point to other indexes:
# docker build --build-arg PIP_EXTRA_INDEX_URL=... takes a CPU build of torch where that index has one.
FROM python:3.11-slim-bookworm

ARG PIP_EXTRA_INDEX_URL=""
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY constraints.txt pyproject.toml README.md ./
# Dependencies first: they change less often than the code, and this layer is the large one.
RUN python -m pip install --no-cache-dir --constraint constraints.txt torch \
    && mkdir lrm components local && touch lrm/__init__.py components/__init__.py local/__init__.py \
    && python -m pip install --no-cache-dir --constraint constraints.txt '.[all]' \
    && python -m pip uninstall --yes token-factory

COPY feature_repo feature_repo
COPY examples examples
COPY components components
COPY local local
COPY lrm lrm
COPY pipeline.py LICENSE ./
RUN python -m pip install --no-cache-dir --no-deps .

# /lrm is the volume that steps share; see components/cluster.py.
ENV LRM_RUNS_ROOT=/lrm/runs \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true
USER 1000:1000
EXPOSE 8000
CMD ["python", "-m", "lrm.serving"]
