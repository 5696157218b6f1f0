"""Queries of the view `freshness`: how recent the data of an account is. The caller owns the transaction."""

from datetime import datetime
from typing import NamedTuple

from klaviyo_pg.postgres.account import Account

_IS_METRIC = "stream LIKE 'events/%%'"


class Recency(NamedTuple):
    """When the last complete daily run finished, and up to when events have been read. None: not yet."""

    last_complete_run: datetime | None
    events_read_to: datetime | None


class MetricState(NamedTuple):
    """A metric: the table of its events, its oldest and newest stored event, and up to when it has been read."""

    id: str
    name: str | None
    table_name: str | None
    oldest_event: datetime | None
    newest_event: datetime | None
    read_to: datetime | None


def recency(account: Account, name: str) -> Recency:
    """Return how recent the data of the account with this name is. A metric that runs leave out does not count."""
    query = (
        f"SELECT max(last_complete_run), max(watermark) FILTER (WHERE {_IS_METRIC}) FROM {{freshness}}"
        " WHERE integration = %(name)s"
    )
    [row] = account.execute(query, name=name)
    return Recency(*row)


def metrics(account: Account, name: str) -> list[MetricState]:
    """Return the metrics of the account with this name that Klaviyo has, by name."""
    query = (
        "SELECT substr(stream, length('events/') + 1) AS id, name, table_name, oldest_event, newest_event,"
        f" watermark AS read_to FROM {{freshness}} WHERE integration = %(name)s AND {_IS_METRIC} ORDER BY name, stream"
    )
    return account.select(MetricState, query, name=name)
