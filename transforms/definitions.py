"""Frames for the account, its custom metrics and its mapped metrics."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from transforms.clean import Cleaned, cleaned, conformed, last_by
from transforms.keys import row_key

_TIME = pl.Datetime("us", "UTC")
_TEXT = pl.String()
_ACCOUNT = {
    **dict.fromkeys(("id", "name", "website", "industry", "timezone", "currency", "locale"), _TEXT),
    "is_test": pl.Boolean(),
}
_CUSTOM_METRIC = {
    **dict.fromkeys(("id", "name", "aggregation_method", "metric_ids", "definition"), _TEXT),
    **dict.fromkeys(("created_at", "updated_at"), _TIME),
}
_MAPPED_METRIC = {**dict.fromkeys(("id", "metric_id", "custom_metric_id"), _TEXT), "updated_at": _TIME}
_JSON = frozenset({"metric_ids", "definition"})


def accounts(accounts: Sequence[rows.Account], integration_id: str) -> Cleaned:
    """Return the frame for the load ACCOUNTS."""
    raw = pl.DataFrame(accounts, _ACCOUNT, orient="row").pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(key=row_key(integration_id, pl.col("id")))
    return Cleaned(conformed(frame, loads.ACCOUNTS), raw.nul_characters)


def custom_metrics(metrics: Sequence[rows.CustomMetric], integration_id: str) -> Cleaned:
    """Return the frame for the load CUSTOM_METRICS."""
    raw = pl.DataFrame(metrics, _CUSTOM_METRIC, orient="row").pipe(cleaned, _JSON)
    frame = raw.frame.pipe(last_by, "id").with_columns(key=row_key(integration_id, pl.col("id")))
    return Cleaned(conformed(frame, loads.CUSTOM_METRICS), raw.nul_characters)


def mapped_metrics(mappings: Sequence[rows.MappedMetric], integration_id: str) -> Cleaned:
    """Return the frame for the load MAPPED_METRICS."""
    raw = pl.DataFrame(mappings, _MAPPED_METRIC, orient="row").pipe(cleaned)
    keys = {"key": "id", "metric_key": "metric_id", "custom_metric_key": "custom_metric_id"}
    frame = raw.frame.pipe(last_by, "id").with_columns(
        row_key(integration_id, pl.col(name)).alias(key) for key, name in keys.items()
    )
    return Cleaned(conformed(frame, loads.MAPPED_METRICS), raw.nul_characters)
