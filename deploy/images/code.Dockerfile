# The code location, and every command of `assetline`: Dagster's code server, webserver and daemon, MLflow, the watch.
# `make image WHAT=code` builds it; compose.yaml starts one container for each.
#
# It runs as a user without rights, on a read-only root file system: it writes only to /state (a volume) and /tmp.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
# Two environments: `app` gets into the image, `tools` does not. Secret `pip`: a pip.conf, for an index of your own.
# hadolint ignore=DL3013,DL3042
RUN python3.11 -m venv /tools && python3.11 -m venv --without-pip /app/.venv
WORKDIR /app
COPY constraints.txt pyproject.toml deploy/images/requirements.py deploy/images/sbom.txt /build/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf,required=false \
    python3.11 /build/requirements.py /build/pyproject.toml postgres kubernetes files sql stores ray \
        > /build/code.txt \
    && /tools/bin/python -m pip --python /app/.venv/bin/python install --no-cache-dir \
        --constraint /build/constraints.txt --requirement /build/code.txt \
    && /tools/bin/python -m pip install --no-cache-dir --requirement /build/sbom.txt \
    && /tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON --output-file /app/sbom.json \
        /app/.venv/bin/python
COPY . /app/
RUN install --mode=755 /app/deploy/images/assetline.py /app/.venv/bin/assetline \
    && /app/.venv/bin/python -m compileall -q -x '/app/.venv' /app

FROM ${BASE}
ARG COMMIT=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.title="assetline-code" \
      org.opencontainers.image.description="The code location and the commands of Assetline" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --gid 10001 assetline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin assetline \
    && install --directory --owner 10001 --group 10001 /state
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib \
    ASSETLINE_HOME=/state DAGSTER_HOME=/state/dagster
USER 10001:10001
VOLUME ["/state"]
EXPOSE 4000
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=3 \
    CMD ["dagster", "api", "grpc-health-check", "--port", "4000"]
CMD ["dagster", "api", "grpc", "--host", "0.0.0.0", "--port", "4000", "--module-name", "definitions", "--location-name", "assetline"]
