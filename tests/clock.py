"""A clock that tests set, for runs in this process and for the database that they write to."""

from datetime import datetime

import psycopg

_SCHEMA = """
CREATE SCHEMA clock;
CREATE TABLE clock.present (at timestamp with time zone NOT NULL);
CREATE FUNCTION clock.now() RETURNS timestamp with time zone LANGUAGE sql STABLE AS 'SELECT at FROM clock.present';
"""


class Clock:
    """A clock. In new sessions of the database, now() is the time of the clock too.

    Functions of a schema that comes before pg_catalog in the search path replace those of Postgres.
    """

    def __init__(self, connection: psycopg.Connection, at: datetime) -> None:
        self._connection, self.at = connection, at
        connection.execute(_SCHEMA)
        connection.execute("INSERT INTO clock.present VALUES (%s)", [at])
        connection.execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = clock, pg_catalog, public',"
            " current_database()); END $$"
        )

    def __call__(self) -> datetime:
        return self.at

    def set(self, at: datetime) -> None:
        """Set the clock."""
        self.at = at
        self._connection.execute("UPDATE clock.present SET at = %s", [at])
