# The gateway; with --build-arg LOCK=s3 for a drive in S3, with LOCK=local also the one-machine coordinator,
# with LOCK=ray a node and a coordinator of a Ray cluster.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim-trixie AS build
ARG LOCK=gateway
WORKDIR /opt/scaimind
COPY requirements/${LOCK}.txt requirements.txt
# Wheels only: what would have to be compiled fails here instead of asking for a compiler.
RUN python -m venv --without-pip venv && \
    python -m pip --python venv install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --require-hashes -r requirements.txt
COPY app app
COPY generated generated
# The tree is read-only when it runs: byte code is made now or never.
RUN venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash app generated

FROM python:${PYTHON}-slim-trixie
# Given by the build: the version stands in app/__init__.py alone.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ScaiMind gateway" \
      org.opencontainers.image.description="REST and Server-Sent Events in front of MindCoordinator" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/scaimind /opt/scaimind
WORKDIR /opt/scaimind
ENV PATH=/opt/scaimind/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SCAIMIND_COMMIT=${REVISION} \
    SCAIMIND_HOST=0.0.0.0 \
    SCAIMIND_PORT=8080
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["python", "-m", "app", "health"]
ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]
