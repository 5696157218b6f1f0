"""Frames for the account, its custom metrics and its mapped metrics."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from klaviyo_pg.catalogue.types import BOOLEAN, JSON, TEXT, TIMESTAMP
from transforms.clean import TIMES, Cleaned, by_id, cleaned_rows, same
from transforms.keys import row_key

_ACCOUNT = {
    **same(TEXT, "id", "name", "website", "industry", "timezone", "currency", "locale"),
    **same(BOOLEAN, "is_test"),
}
_CUSTOM_METRIC = {
    **same(TEXT, "id", "name", "aggregation_method"),
    **same(JSON, "metric_ids", "definition"),
    **TIMES,
}
_MAPPED_METRIC = {
    **same(TEXT, "id", "metric_id", "custom_metric_id"),
    "updated_at": ("updated", TIMESTAMP),
}


def accounts(accounts: Sequence[rows.Account], integration_id: str) -> Cleaned:
    """Return the frame for the load ACCOUNTS."""
    return by_id(cleaned_rows(accounts, _ACCOUNT), loads.ACCOUNTS, integration_id)


def custom_metrics(metrics: Sequence[rows.CustomMetric], integration_id: str) -> Cleaned:
    """Return the frame for the load CUSTOM_METRICS."""
    return by_id(cleaned_rows(metrics, _CUSTOM_METRIC), loads.CUSTOM_METRICS, integration_id)


def mapped_metrics(mappings: Sequence[rows.MappedMetric], integration_id: str) -> Cleaned:
    """Return the frame for the load MAPPED_METRICS."""
    return by_id(
        cleaned_rows(mappings, _MAPPED_METRIC),
        loads.MAPPED_METRICS,
        integration_id,
        metric_key=row_key(integration_id, pl.col("metric_id")),
        custom_metric_key=row_key(integration_id, pl.col("custom_metric_id")),
    )
