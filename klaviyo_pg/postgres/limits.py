"""The state of a rate limit in the warehouse, where everything that reads the account finds it."""

from collections.abc import Sequence
from time import monotonic

import psycopg
import sqlalchemy
from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier
from pyrate_limiter.abstracts.algorithm import Decision, State, StateAlgorithm
from pyrate_limiter.abstracts.rate import Rate
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.state_bucket import InMemoryStateStore

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres.connect import transaction

_AWAY = 5.0  # seconds in which a database that did not answer is not asked again


class WarehouseStore(StateStore):
    """One row of `rate_limits`, locked while it is looked at. Without the database each process keeps its own."""

    def __init__(self, engine: sqlalchemy.Engine, schema: str, integration: str, endpoint: str) -> None:
        self._engine, self._which = engine, [integration, endpoint]
        self._table = Identifier(schema, bookkeeping.RATE_LIMITS.name)
        self._own = InMemoryStateStore()
        self._away_until = 0.0

    def check(self, algorithm: StateAlgorithm, rates: list[Rate], now: int, weight: int) -> Decision:
        """Let `weight` requests through, or say how long to wait, by the database's clock."""
        if monotonic() >= self._away_until:
            try:
                with transaction(self._engine, waits=False) as connection:
                    return self._check(connection, algorithm, rates, weight)
            except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError, DatabaseUnusable):
                self._away_until = monotonic() + _AWAY
        decision: Decision = self._own.check(algorithm, rates, now, weight)  # type: ignore[no-untyped-call]
        return decision

    def _check(self, connection: Connection, algorithm: StateAlgorithm, rates: list[Rate], weight: int) -> Decision:
        connection.execute(
            self._sql("INSERT INTO {} (integration, endpoint, state) VALUES (%s, %s, '') ON CONFLICT DO NOTHING"),
            self._which,
        )
        row = connection.execute(
            self._sql("SELECT state FROM {} WHERE integration = %s AND endpoint = %s FOR UPDATE"), self._which
        ).fetchone()
        clock = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetchone()
        assert row is not None and clock is not None
        state, decision = algorithm.step(rates, _decoded(algorithm, rates, row[0]), clock[0], weight)
        if decision.allowed:
            connection.execute(
                self._sql("UPDATE {} SET state = %s WHERE integration = %s AND endpoint = %s"),
                [" ".join(map(str, state)), *self._which],
            )
        return decision

    def read(self, algorithm: StateAlgorithm, rates: list[Rate]) -> State:
        """The state as it stands."""
        with transaction(self._engine) as connection:
            query = self._sql("SELECT state FROM {} WHERE integration = %s AND endpoint = %s")
            row = connection.execute(query, self._which).fetchone()
        return _decoded(algorithm, rates, row[0] if row else "")

    def reset(self) -> None:
        """As though nothing had ever been asked."""
        with transaction(self._engine) as connection:
            connection.execute(self._sql("DELETE FROM {} WHERE integration = %s AND endpoint = %s"), self._which)

    def _sql(self, query: str) -> Composed:
        return SQL(query).format(self._table)


def _decoded(algorithm: StateAlgorithm, rates: Sequence[Rate], text: str) -> State:
    values = text.split()
    return algorithm.decode(values) if len(values) == len(rates) else algorithm.initial(list(rates))
