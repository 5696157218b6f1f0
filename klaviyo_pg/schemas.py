"""The names of the two schemas of a warehouse: one for people, and one for tables that only the loader uses.

Knows neither SQL nor tables.
"""

_INTERNAL = "_internal"
_LONGEST_NAME = 63  # bytes; Postgres truncates longer identifiers
_LONGEST = _LONGEST_NAME - len(_INTERNAL)


def internal(schema: str) -> str:
    """Return the name of the schema of internal tables that belongs to the schema of a warehouse."""
    return f"{schema}{_INTERNAL}"


def both(schema: str) -> list[str]:
    """Return the names of both schemas of a warehouse."""
    return [schema, internal(schema)]


def fault(schema: str) -> str | None:
    """Return the reason why a schema cannot be that of a warehouse, as the end of a sentence; None if it can."""
    if len(schema.encode()) > _LONGEST:
        return f"must be at most {_LONGEST} bytes long, because internal tables are in a schema named <name>{_INTERNAL}"
    if "%" in schema:
        return "must not contain a percent sign, which psycopg reads as a placeholder"
    if schema.startswith("pg_"):
        return "must not start with pg_, which Postgres reserves"
    if schema.endswith(_INTERNAL):
        return f"must not end in {_INTERNAL}, because such a schema has the internal tables of a warehouse"
    return None
