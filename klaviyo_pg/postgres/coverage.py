"""What the books of the warehouse tell of the coverage of each metric. The caller owns the transaction."""

from datetime import UTC, date, datetime

from psycopg import Connection

from klaviyo_pg.coverage import Coverage, coverage
from klaviyo_pg.postgres import history, ledger, reconciliation
from klaviyo_pg.windows import Window

_EVER = Window(datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC))


def read(connection: Connection, schema: str, integration_id: str, account: str, today: date) -> Coverage:
    """The coverage of an account up to today."""
    return coverage(
        account,
        {row.id: row.name or row.id for row in ledger.metrics(connection, schema, integration_id)},
        reconciliation.claimed(connection, schema, integration_id),
        reconciliation.known(connection, schema, integration_id, _EVER).values(),
        history.chunks(connection, schema, integration_id),
        today,
    )
