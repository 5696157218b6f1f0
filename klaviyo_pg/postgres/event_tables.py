"""Moving events between event tables. The caller owns the transaction."""

from psycopg.sql import Identifier, Placeholder

from klaviyo_pg.catalogue import events
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erase import wait_for_erasing
from klaviyo_pg.postgres.statements import names, row_key


def move_events(account: Account, metric_id: str, source: str, target: str) -> int:
    """Move a metric's events from one event table to another, and return their number.

    Blocks erasing until the transaction ends, because erasing would miss events that are being moved.
    """
    wait_for_erasing(account.connection, account.schema)
    query = account.compose(
        "WITH moved AS (DELETE FROM {source} WHERE metric_key = {metric_key} RETURNING {columns})"
        " INSERT INTO {target} ({columns}) SELECT {columns} FROM moved ON CONFLICT DO NOTHING",
        source=Identifier(account.schema, source),
        target=Identifier(account.schema, target),
        metric_key=row_key(Placeholder("metric_id")),
        columns=names(events.EVENTS.column_names),
    )
    return account.execute(query, metric_id=metric_id).rowcount
