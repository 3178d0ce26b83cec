# Two images from one recipe: `train` runs every step of the workflow, `serve` answers requests.
#   docker build --target serve --build-arg BASE=docker.io/library/python:3.11-slim-bookworm@sha256:... .
# BASE has no default: a tag may lead to another image tomorrow. Every package is the one whose digest stands in locks/.
# Where pip needs settings of its own (a CPU build of torch, a private index), they come as a secret, which no layer and
# no history keeps: --secret id=pip,src=pip.conf
ARG BASE
# Where BASE has no pip: the same system with pip, which no image that leaves here is made from.
ARG BUILD_BASE=${BASE}

FROM ${BASE} AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && { ! python -m pip --version || python -m pip uninstall --yes pip setuptools wheel; } \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
    && useradd --uid 1000 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lrm
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1
WORKDIR /app

FROM ${BUILD_BASE} AS dependencies
WORKDIR /build
COPY locks locks
# Where pip finds another build of torch, for processors alone: the digest of its wheel, which brings no CUDA packages.
ARG TORCH_SHA256
RUN test -z "${TORCH_SHA256}" || for lock in locks/serve.txt locks/train.txt; do \
        torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "${lock}") \
        && awk '/^[a-z]/ {kept = !/^(torch==|triton==|nvidia-|cuda-)/} kept' "${lock}" > kept.txt \
        && echo "${torch} --hash=sha256:${TORCH_SHA256}" >> kept.txt \
        && mv kept.txt "${lock}"; \
    done
# Dependencies first: they change less often than the code, and this layer is the large one.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes \
        --requirement locks/serve.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/bom \
    && python -m pip --python /opt/bom/bin/python install --no-cache-dir --no-deps --require-hashes \
        --requirement locks/bom.txt
# What is in an image: its packages as CycloneDX, and their licences. Those of Debian lie in /usr/share/doc.
RUN printf '%s\n' 'set -eu; mkdir -p /opt/venv/bom; cd /opt/venv/bom' \
    '/opt/bom/bin/cyclonedx-py environment /opt/venv/bin/python --output-reproducible --output-file sbom.cdx.json' \
    '/opt/bom/bin/pip-licenses --python /opt/venv/bin/python --format json --with-urls --output-file licences.json' \
    > /opt/bom/write

FROM dependencies AS build-serve
COPY pyproject.toml LICENSE README.md ./
COPY lrm lrm
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps . \
    && python -m pip --python /opt/venv/bin/python check && sh /opt/bom/write

FROM dependencies AS build-train
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes \
        --requirement locks/train.txt
COPY pyproject.toml LICENSE README.md ./
COPY components components
COPY local local
COPY lrm lrm
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps . \
    && python -m pip --python /opt/venv/bin/python check && sh /opt/bom/write

# Training on a GPU compiles its layers, for which Triton needs a C compiler (lrm/model/flex_attention.py).
FROM base AS base-train
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

FROM base-train AS train
COPY --from=build-train /opt/venv /opt/venv
COPY feature_repo feature_repo
COPY examples examples
COPY pipeline.py policy.toml LICENSE ./
# /lrm is the volume that steps share; see components/cluster.py.
ENV LRM_RUNS_ROOT=/lrm/runs \
    LRM_POLICY=/app/policy.toml \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true
USER 1000:1000
CMD ["python", "pipeline.py", "run", "--help"]

FROM base AS serve
COPY --from=build-serve /opt/venv /opt/venv
COPY LICENSE ./
USER 1000:1000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["python", "-m", "lrm.serving", "--release", "/models/release", "--host", "0.0.0.0", "--port", "8000"]
