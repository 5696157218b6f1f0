"""The state of a rate limit, kept in the warehouse and so shared by all processes that read the account."""

from collections.abc import Sequence
from time import monotonic

import psycopg
import sqlalchemy
from psycopg import Connection
from psycopg.sql import SQL, Composed
from pyrate_limiter.abstracts.algorithm import Decision, State, StateAlgorithm
from pyrate_limiter.abstracts.rate import Rate
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.state_bucket import InMemoryStateStore

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import queries
from klaviyo_pg.postgres.connect import Database
from klaviyo_pg.postgres.statements import qualified

_PAUSE = 5.0  # seconds before a database that did not answer is tried again
_LONGEST_WAIT = 600_000  # milliseconds: far more than any limit, whose requests are counted by the minute


class WarehouseStore(StateStore):
    """A row of `rate_limits`, locked during each check. While the database is away, each process uses its own state."""

    def __init__(self, database: Database, schema: str, integration: str, endpoint: str) -> None:
        self._database, self._key = database, [integration, endpoint]
        self._table = qualified(schema, bookkeeping.RATE_LIMITS)
        self._own = InMemoryStateStore()
        self._away_until = 0.0

    def check(self, algorithm: StateAlgorithm, rates: list[Rate], now: int, weight: int) -> Decision:
        """Admit `weight` requests, or return how long to wait, according to the database's clock."""
        if monotonic() >= self._away_until:
            try:
                with self._database.transaction(waits=False) as connection:
                    return self._check(connection, algorithm, rates, weight)
            except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError, DatabaseUnusable):
                self._away_until = monotonic() + _PAUSE
        decision: Decision = self._own.check(algorithm, rates, now, weight)  # type: ignore[no-untyped-call]
        return decision

    def _check(self, connection: Connection, algorithm: StateAlgorithm, rates: list[Rate], weight: int) -> Decision:
        connection.execute(
            self._sql("INSERT INTO {} (integration, endpoint, state) VALUES (%s, %s, '') ON CONFLICT DO NOTHING"),
            self._key,
        )
        query = self._sql("SELECT state FROM {} WHERE integration = %s AND endpoint = %s FOR UPDATE")
        stored = _decoded(algorithm, rates, queries.scalar(connection, query, self._key))
        clock: int = queries.scalar(connection, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        if max(stored) > (clock + _LONGEST_WAIT) * 1000:  # microseconds, of a clock that was ahead
            stored = algorithm.initial(rates)
        state, decision = algorithm.step(rates, stored, clock, weight)
        if decision.allowed:
            connection.execute(
                self._sql("UPDATE {} SET state = %s WHERE integration = %s AND endpoint = %s"),
                [" ".join(map(str, state)), *self._key],
            )
        return decision

    def read(self, algorithm: StateAlgorithm, rates: list[Rate]) -> State:
        """Return the stored state."""
        with self._database.transaction() as connection:
            query = self._sql("SELECT state FROM {} WHERE integration = %s AND endpoint = %s")
            stored = queries.scalar(connection, query, self._key)
        return _decoded(algorithm, rates, stored or "")

    def reset(self) -> None:
        """Delete the state, as if no request had ever been sent."""
        with self._database.transaction() as connection:
            connection.execute(self._sql("DELETE FROM {} WHERE integration = %s AND endpoint = %s"), self._key)

    def _sql(self, query: str) -> Composed:
        return SQL(query).format(self._table)


def _decoded(algorithm: StateAlgorithm, rates: Sequence[Rate], text: str) -> State:
    values = text.split()
    return algorithm.decode(values) if len(values) == len(rates) else algorithm.initial(list(rates))
