ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# The hash of every file is checked, and nothing is built from source. This layer is reused while only the project changes.
COPY requirements.txt ./
RUN pip install --no-cache-dir --only-binary :all: --no-deps --require-hashes -r requirements.txt
# List what was installed, with licences, before the tools that did it are removed.
COPY requirements-inventory.txt ./
RUN python -m venv /opt/inventory \
    && /opt/inventory/bin/pip install --no-cache-dir --only-binary :all: --no-deps --require-hashes -r requirements-inventory.txt \
    && pip uninstall --yes setuptools pip \
    && mkdir /inventory \
    && /opt/inventory/bin/cyclonedx-py environment --output-reproducible --output-file /inventory/sbom.json /opt/venv/bin/python \
    && /opt/inventory/bin/pip-licenses --python /opt/venv/bin/python --order license --output-file /inventory/licences.txt
# Remove what a run never loads: test suites, type stubs, and the UI of Prefect's server.
RUN cd /opt/venv/lib/python3*/site-packages \
    && rm -rf prefect/server/ui prefect/server/ui-v2 \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && find . -name '*.pyi' -delete
COPY klaviyo_pg klaviyo_pg
COPY transforms transforms
COPY pipeline pipeline
COPY tasks tasks
COPY flows flows
COPY prefect.yaml ./
RUN rm requirements*.txt && python -m compileall -q . \
    && printf '#!/bin/sh\nexec python -m klaviyo_pg "$@"\n' > /opt/venv/bin/klaviyo-pg \
    && chmod +x /opt/venv/bin/klaviyo-pg

# `docker build --target inventory --output inventory .` writes both lists to a folder.
FROM scratch AS inventory
COPY --from=build /inventory /

FROM ${PYTHON} AS base
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="klaviyo-pg" \
      org.opencontainers.image.description="A whole Klaviyo account as clean, joinable tables in your own Postgres" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      klaviyo-pg.sbom="/inventory/sbom.json" \
      klaviyo-pg.licences="/inventory/licences.txt"
RUN useradd --create-home --uid 10001 klaviyo && install --directory --owner klaviyo /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
COPY --from=build /inventory /inventory
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PREFECT_HOME=/home/klaviyo/.prefect \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_UI_ENABLED=false \
    DATA_DIR=/data \
    MALLOC_ARENA_MAX=2 \
    DO_NOT_TRACK=1
# A run writes to /data, /tmp and this user's home folder only, so the rest can be read-only. A new volume at /data
# belongs to this user, because it starts as a copy of the folder in the image.
USER 10001
# Without PREFECT_API_URL a run starts a temporary server. Creating its tables here makes that start faster.
RUN prefect server database upgrade --yes

# The sandbox account for compose.yaml. Not part of the image that is deployed.
FROM base AS sandbox
COPY sandbox sandbox
CMD ["python", "-m", "sandbox"]

FROM base
CMD ["python", "flows/daily.py"]
