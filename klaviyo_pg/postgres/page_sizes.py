"""The page sizes that an account's endpoints accept, kept in the warehouse for all processes that read the account."""

from collections.abc import Mapping

import psycopg
import sqlalchemy
from psycopg.sql import SQL

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres.connect import Database
from klaviyo_pg.postgres.statements import qualified

_FAILURES = (psycopg.Error, sqlalchemy.exc.SQLAlchemyError, DatabaseUnusable)
_IS_RECENT = "learned_at BETWEEN now() - interval '7 days' AND now() + interval '1 hour'"  # not from a clock ahead
_READ = f"SELECT endpoint, page_size FROM {{}} WHERE integration = %s AND {_IS_RECENT}"
_WRITE = (
    "INSERT INTO {} AS stored (integration, endpoint, page_size, learned_at) VALUES (%s, %s, %s, now())"
    " ON CONFLICT (integration, endpoint) DO UPDATE SET page_size = CASE"
    f" WHEN stored.{_IS_RECENT} THEN least(stored.page_size, excluded.page_size)"
    " ELSE excluded.page_size END, learned_at = excluded.learned_at"
)


class WarehousePageSizes:
    """The rows of `page_sizes` of one account. After a week they are ignored, so that larger pages are tried again.

    If the database is not available, each process learns the page sizes itself, which costs a few requests.
    """

    def __init__(self, database: Database, schema: str, integration: str) -> None:
        self._database, self._integration = database, integration
        self._table = qualified(schema, bookkeeping.PAGE_SIZES)

    def read(self) -> Mapping[str, int]:
        """Return the page sizes by endpoint."""
        try:
            with self._database.transaction(waits=False) as connection:
                return dict(connection.execute(SQL(_READ).format(self._table), [self._integration]).fetchall())
        except _FAILURES:
            return {}

    def write(self, endpoint: str, page_size: int) -> None:
        """Keep a page size, unless a smaller one is known."""
        try:
            with self._database.transaction(waits=False) as connection:
                connection.execute(SQL(_WRITE).format(self._table), [self._integration, endpoint, page_size])
        except _FAILURES:
            return
