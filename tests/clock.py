"""A clock that tests set, for runs in this process and for the database that they write to."""

from datetime import datetime

import psycopg

_SCHEMA = """
CREATE SCHEMA clock;
CREATE TABLE clock.present (at timestamp with time zone NOT NULL);
SET allow_system_table_mods = on;
ALTER FUNCTION pg_catalog.now() RENAME TO time_of_the_machine;
CREATE FUNCTION pg_catalog.now() RETURNS timestamp with time zone LANGUAGE sql STABLE
    AS 'SELECT at FROM clock.present';
RESET allow_system_table_mods;
"""


class Clock:
    """A clock. In its database, now() is the time of the clock too."""

    def __init__(self, connection: psycopg.Connection, at: datetime) -> None:
        self._connection, self.at = connection, at
        connection.execute(_SCHEMA)
        connection.execute("INSERT INTO clock.present VALUES (%s)", [at])

    def __call__(self) -> datetime:
        return self.at

    def set(self, at: datetime) -> None:
        """Set the clock."""
        self.at = at
        self._connection.execute("UPDATE clock.present SET at = %s", [at])
