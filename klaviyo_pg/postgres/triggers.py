"""Triggers that record changes in the transaction that makes them, and the functions that they run. Knows no table."""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier, Literal

from klaviyo_pg import schemas
from klaviyo_pg.catalogue import Table
from klaviyo_pg.postgres.statements import place, qualified

# The loader's rights are enough to record a change that another role makes.
_CREATE_FUNCTION = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
"""
_CREATE_TRIGGER = """
CREATE TRIGGER {trigger} AFTER {event} ON {table} REFERENCING {rows}
FOR EACH STATEMENT EXECUTE FUNCTION {function}()
"""
_FUNCTIONS = """
SELECT proname, prosrc FROM pg_proc JOIN pg_namespace AS namespace ON namespace.oid = pronamespace
WHERE nspname = %s AND proname = ANY(%s)
"""
_TRIGGERS = """
SELECT nspname, relname, tgname FROM pg_trigger JOIN pg_class AS class ON class.oid = tgrelid
JOIN pg_namespace AS namespace ON namespace.oid = relnamespace WHERE nspname = ANY(%s) AND NOT tgisinternal
"""


class Trigger(NamedTuple):
    """A trigger that runs a function after each statement of an event on a table, such as INSERT.

    `rows` names the rows of the statement for the function, such as `NEW TABLE AS added`.
    """

    table: Table
    event: str
    rows: str
    function: str

    @property
    def name(self) -> str:
        return f"{self.function}_{self.event.lower()}"


def install(connection: Connection, schema: str, functions: Mapping[str, str], triggers: Collection[Trigger]) -> bool:
    """Create the functions and triggers that are missing, and replace the functions whose body differs.

    `functions` has the body of each function by its name. Return whether anything was created or replaced.
    """
    created = [
        *_missing_functions(connection, schema, functions),
        *_missing_triggers(connection, schema, triggers),
    ]
    for statement in created:
        connection.execute(statement)
    return bool(created)


def _missing_functions(connection: Connection, schema: str, functions: Mapping[str, str]) -> Iterator[Composed]:
    stored: dict[str, str] = dict(connection.execute(_FUNCTIONS, [schema, list(functions)]).fetchall())
    for name, body in functions.items():
        if stored.get(name) != body:
            yield SQL(_CREATE_FUNCTION).format(function=Identifier(schema, name), body=Literal(body))


def _missing_triggers(connection: Connection, schema: str, triggers: Collection[Trigger]) -> Iterator[Composed]:
    stored = set(connection.execute(_TRIGGERS, [schemas.both(schema)]).fetchall())
    for trigger in triggers:
        if (*place(schema, trigger.table), trigger.name) not in stored:
            yield SQL(_CREATE_TRIGGER).format(
                trigger=Identifier(trigger.name),
                event=SQL(trigger.event),
                table=qualified(schema, trigger.table),
                rows=SQL(trigger.rows),
                function=Identifier(schema, trigger.function),
            )
