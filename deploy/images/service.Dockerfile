# The scoring service. `make image WHAT=service` builds it; docs/deploy.md says how it is started.
#
# Without arguments it follows the alias `champion` of the mounted state folder. The target `image` adds a layer with one
# bundle, so that an image is one model version. It runs as a user without rights, on a read-only root file system: it
# writes only to /state (a volume) and /tmp (a tmpfs).
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
# Two environments: `app` gets into the image, `tools` does not. Secret `pip`: a pip.conf, for an index of your own.
# hadolint ignore=DL3013,DL3042
RUN python3.11 -m venv /tools && python3.11 -m venv --without-pip /app/.venv
WORKDIR /app
COPY constraints.txt deploy/images/service.txt deploy/images/sbom.txt /build/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf,required=false \
    /tools/bin/python -m pip --python /app/.venv/bin/python install --no-cache-dir \
        --constraint /build/constraints.txt --requirement /build/service.txt \
    && /tools/bin/python -m pip install --no-cache-dir --requirement /build/sbom.txt \
    && /tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON --output-file /app/sbom.json \
        /app/.venv/bin/python
# Headers, test binaries and tests of the packages; no running program reads them.
RUN find /app/.venv -type d \( -path '*/torch/include' -o -path '*/torch/test' -o -path '*/pandas/tests' \
        -o -path '*/numpy/*/tests' -o -path '*/pyarrow/tests' -o -path '*/pyarrow/include' -o -path '*/matplotlib/tests' \
        -o -path '*/sympy/*/tests' \) -prune -exec rm -rf {} + \
    && find /app/.venv -path '*/torch/bin/*' -type f -not -name torch_shm_manager -delete
COPY assets /app/assets
COPY resources /app/resources
COPY serving /app/serving
COPY workspace.yaml LICENSE /app/
RUN /app/.venv/bin/python -m compileall -q /app/assets /app/resources /app/serving \
    && ASSETLINE_HOME=/tmp/state /app/.venv/bin/python -c "import serving.scoring.service, captum, mlflow, torch"

FROM ${BASE}
ARG COMMIT=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.title="assetline-service" \
      org.opencontainers.image.description="The scoring service of Assetline" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --gid 10001 assetline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin assetline \
    && install --directory --owner 10001 --group 10001 /state
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib \
    ASSETLINE_HOME=/state ASSETLINE_ACCESS_LOG=stdout
USER 10001:10001
VOLUME ["/state"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["python", "-m", "serving.scoring.service", "--host", "0.0.0.0", "--port", "8000"]
