# syntax=docker/dockerfile:1
ARG PYTHON=docker.io/library/python:3.11-slim

FROM ${PYTHON} AS build
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY klaviyo_pg klaviyo_pg
COPY transforms transforms
COPY tasks tasks
COPY flows flows
RUN pip install --no-cache-dir --constraint constraints.txt . \
    && pip uninstall --yes klaviyo-pg pip

FROM ${PYTHON}
LABEL org.opencontainers.image.title="klaviyo-pg" \
      org.opencontainers.image.description="A whole Klaviyo account as clean, joinable tables in your own Postgres" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --create-home --uid 10001 klaviyo
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY klaviyo_pg klaviyo_pg
COPY transforms transforms
COPY tasks tasks
COPY flows flows
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PREFECT_HOME=/home/klaviyo/.prefect \
    DO_NOT_TRACK=1
RUN python -m compileall -q /app
USER klaviyo
CMD ["python", "flows/daily.py"]
