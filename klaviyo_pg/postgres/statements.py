"""SQL statements, composed from the catalogue with psycopg.sql. Knows no connection."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from typing import ParamSpec

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal, Placeholder

from klaviyo_pg import schemas
from klaviyo_pg.catalogue import TABLES, VIEWS, Absent, Column, Load, Merge, Table, View
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.catalogue.shared import ESP_SOURCE
from klaviyo_pg.catalogue.types import NOT_NULL

COPY_FORMAT = SQL("(FORMAT csv, DELIMITER E'\\t', QUOTE E'\\x01', NULL '')")
"""The format that klaviyo_pg.postgres.load writes: tab-separated, \\x01 as the quote, and null as nothing."""

_Arguments = ParamSpec("_Arguments")
_ALWAYS = SQL("")
_FILLED_IN: Mapping[str, Composable] = {
    "esp_source": Literal(ESP_SOURCE),
    "esp_integration_id": SQL("%(account)s"),
    "__synced_at": SQL("now()"),
}


def kept(compose: Callable[_Arguments, Composed]) -> Callable[_Arguments, SQL]:
    """Keep each statement that a function composes, as text: composing one can take longer than running it."""

    @cache
    @wraps(compose)
    def statement(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> SQL:
        return SQL(compose(*args, **kwargs).as_string(None))

    return statement  # type: ignore[return-value]  # functools.cache forgets the types of arguments


def qualified(schema: str, table: Table | View, *column: Column) -> Identifier:
    """Return the qualified name of a table or view of a warehouse, or of a column of it."""
    return Identifier(*place(schema, table), *(each.name for each in column))


def place(schema: str, table: Table | View) -> tuple[str, str]:
    """Return the schema that a table or view of a warehouse is in, and its name there."""
    is_internal = isinstance(table, Table) and table.internal
    return schemas.internal(schema) if is_internal else schema, table.name


@cache
def qualified_names(schema: str) -> Mapping[str, Composable]:
    """Return the qualified name of each table and view of a warehouse, by its name in the catalogue."""
    catalogue: tuple[Table | View, ...] = (*TABLES, *VIEWS)
    return {each.name: qualified(schema, each) for each in catalogue}


def filled(schema: str, text: str, **parts: Composable) -> Composed:
    """Compose a query in which each `{name}` stands for the part of that name, or else for the table or view."""
    return SQL(text.strip("\n")).format(**{**qualified_names(schema), **parts})


def of_all_events(schema: str, query: str) -> Composed:
    """Compose a query over the events of all tables, from one over those of a table that is written as `{}`."""
    return SQL(" UNION ALL ").join(SQL(query).format(qualified(schema, table)) for table in EVENT_TABLES)


def shown(schema: str, table: Table | View) -> str:
    """Return the qualified name of a table or view of a warehouse for a message."""
    return ".".join(place(schema, table))


def names(names: Iterable[str]) -> Composed:
    """Return column names, separated by commas."""
    return SQL(", ").join(map(Identifier, names))


def row_key(row_id: Composable) -> Composed:
    """Return the key of a row: md5(esp_source || ':' || esp_integration_id || ':' || id), with %(account)s in it."""
    return SQL("md5({} || %(account)s || ':' || {})").format(Literal(f"{ESP_SOURCE}:"), row_id)


def stage_name(load: Load) -> str:
    return f"stage_{load.table.name}"


@kept
def create_stage(schema: str, load: Load) -> Composed:
    """Create a temporary table for loaded rows: typed like the target, without indexes, dropped at commit."""
    return SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
        Identifier("pg_temp", stage_name(load)),
        names(column.name for column in load.columns),
        qualified(schema, load.table),
    )


@kept
def drop_stage(load: Load) -> Composed:
    return SQL("DROP TABLE {}").format(Identifier("pg_temp", stage_name(load)))


def copy_stage(load: Load) -> Composed:
    """Copy loaded rows into the stage."""
    return SQL("COPY {} ({}) FROM STDIN {}").format(
        Identifier("pg_temp", stage_name(load)), names(column.name for column in load.columns), COPY_FORMAT
    )


def fill_stage(load: Load, query: Composable) -> Composed:
    """Fill the stage with the rows of a query, which returns the columns of the load in order."""
    columns = names(column.name for column in load.columns)
    return SQL("INSERT INTO {} ({}) {}").format(Identifier("pg_temp", stage_name(load)), columns, query)


def analyze_stage(load: Load) -> Composed:
    return SQL("ANALYZE {}").format(Identifier("pg_temp", stage_name(load)))


@kept
def probe(schema: str, load: Load) -> Composed:
    """Select the keys of the stored events before and after a batch of events.

    The keys are null if the batch is not new, because events of its metrics within its time are stored. For other
    tables, they are those of %(keys)s that are stored. Each is looked up in the index, because right after a table was
    filled Postgres takes many rows to have the same key, and would read all of it.
    """
    if load.table.ordered_by is None:
        return SQL(
            "SELECT ARRAY(SELECT stored.key FROM unnest(%(keys)s::text[]) AS probed (key) CROSS JOIN LATERAL"
            " (SELECT {key} AS key FROM {table} WHERE {key} = probed.key ORDER BY {order} LIMIT 1) AS stored)"
        ).format(
            key=Identifier(load.table.identity[0]),
            table=qualified(schema, load.table),
            order=names(load.table.primary_key),
        )
    within, beside = _near(schema, load.table)
    first = SQL("{} ORDER BY event_at LIMIT 1").format(within)
    return SQL("SELECT CASE WHEN NOT EXISTS ({}) THEN ARRAY(SELECT near.key FROM ({}) AS near) END").format(
        _by_span(first), _by_span(beside)
    )


def _near(schema: str, table: Table) -> tuple[Composed, Composed]:
    """Return queries for the stored events of a metric within the time of a batch, and before and after it.

    Those before and after it are the nearest %(most)s that are at most %(margin)s away. So the cost follows from the
    size of the batch and not from that of the table.
    """
    stored = SQL("SELECT event_at, key, extracted_at FROM {} WHERE metric_key = span.metric_key AND {}")
    before, after, within = (
        stored.format(qualified(schema, table), SQL(condition))
        for condition in (
            "event_at < span.first AND event_at >= span.first - %(margin)s ORDER BY event_at DESC LIMIT %(most)s",
            "event_at > span.last AND event_at <= span.last + %(margin)s ORDER BY event_at LIMIT %(most)s",
            "event_at BETWEEN span.first AND span.last",
        )
    )
    return within, SQL("({}) UNION ALL ({})").format(before, after)


def _by_span(query: Composed) -> Composed:
    """Return a query for the metrics of a batch: %(metrics)s, and the times of their first and last event in it.

    OFFSET 0 makes Postgres run it for each metric, which uses an index, instead of joining the whole table.
    """
    return SQL(
        "SELECT near.* FROM unnest(%(metrics)s::text[], %(first)s::timestamptz[], %(last)s::timestamptz[])"
        " AS span (metric_key, first, last) CROSS JOIN LATERAL ({} OFFSET 0) AS near"
    ).format(query)


@kept
def outdated(schema: str, load: Load) -> Composed:
    """Select the older of two rows of an event with different times: time, key, and true where the staged one stays.

    It is the one that was extracted earlier. Only rows that are near the stage are found, see `_near`.
    """
    newer = SQL("(stage.extracted_at >= near.extracted_at OR {})").format(is_future(Identifier("near", "extracted_at")))
    return SQL(
        "SELECT CASE WHEN {newer} THEN near.event_at ELSE stage.event_at END AS event_at, stage.key, {newer}"
        " FROM ({near}) AS near JOIN {stage} AS stage ON stage.key = near.key AND stage.event_at <> near.event_at"
    ).format(
        near=_by_span(SQL(" UNION ALL ").join(_near(schema, load.table))),
        stage=Identifier("pg_temp", stage_name(load)),
        newer=newer,
    )


def delete_row(schema: str, table: Table) -> Composed:
    """Delete the row with the primary key in the placeholders of its columns' names."""
    condition = SQL(" AND ").join(SQL("{} = {}").format(Identifier(n), Placeholder(n)) for n in table.primary_key)
    return SQL("DELETE FROM {} WHERE {}").format(qualified(schema, table), condition)


def only_inserts(load: Load) -> bool:
    """Return whether a load, into a table with one key column, never changes a stored row."""
    return len(load.table.primary_key) == 1 and not _changing(load) and load.absent is Absent.KEEP


@kept
def stored_keys(schema: str, load: Load) -> Composed:
    """Select those of %(keys)s that are stored, looking each up in the index. For tables with one key column."""
    return SQL(
        "SELECT stored.key FROM unnest(%(keys)s::text[]) AS looked_up (key)"
        " CROSS JOIN LATERAL (SELECT {0} AS key FROM {1} WHERE {0} = looked_up.key OFFSET 0) AS stored"
    ).format(names(load.table.primary_key), qualified(schema, load.table))


@kept
def stored_owners(schema: str, load: Load) -> Composed:
    """Select those of %(owners)s, values of `absent_per`, that have stored rows. Each is looked up in the index."""
    assert load.absent_per is not None
    return SQL(
        "SELECT owner FROM unnest(%(owners)s::text[]) AS owners (owner) CROSS JOIN LATERAL"
        " (SELECT FROM {} WHERE esp_integration_id = %(account)s AND {} = owner ORDER BY {} LIMIT 1) AS stored"
    ).format(qualified(schema, load.table), Identifier(load.absent_per), names(load.table.primary_key))


def copy_into(schema: str, load: Load, columns: Iterable[str]) -> Composed:
    """Copy loaded rows directly into the table."""
    return SQL("COPY {} ({}) FROM STDIN {}").format(qualified(schema, load.table), names(columns), COPY_FORMAT)


@kept
def upsert(schema: str, load: Load) -> Composed:
    """Merge the stage into its table and select (rows to write, new among the rows to write, rows written).

    Staged rows with a null in their key are not stored; they only help to find out which stored rows are absent.
    Rows that would not change are filtered out first, because ON CONFLICT would lock each of them, which is a write.
    Rows are merged in the order of their key, so that two transactions with common rows wait instead of deadlocking.

    Of event tables, which can be partitioned, rows are new that were not stored when the statement began: partitioned
    tables do not return the xmax of a row, which shows it even if another transaction has just inserted it.
    """
    written = [*(column.name for column in load.columns), *_filled_in(load)]
    is_partitionable = load.table.ordered_by is not None
    return SQL(
        "WITH incoming AS MATERIALIZED (\n"
        "    SELECT {values}, {is_new} AS __is_new FROM {unmerged}\n"
        "), merged AS (\n"
        "    INSERT INTO {table} AS stored ({columns})\n"
        "    SELECT {columns} FROM incoming ORDER BY {order}\n"
        "    ON CONFLICT ({key}) {action}\n"
        "    RETURNING {was_new} AS is_new\n"
        ")\n"
        "SELECT (SELECT count(*) FROM incoming), {new}, count(*) FROM merged"
    ).format(
        table=qualified(schema, load.table),
        columns=names(written),
        values=SQL(", ").join(SQL("{} AS {}").format(_value(name), Identifier(name)) for name in written),
        is_new=_is_new(load),
        unmerged=_unmerged(schema, load),
        order=names(staged_key(load)),
        key=names(load.table.primary_key),
        action=_on_conflict(load),
        was_new=SQL("true") if is_partitionable else SQL("xmax = 0"),
        new=SQL(
            "(SELECT count(*) FROM incoming WHERE __is_new)" if is_partitionable else "count(*) FILTER (WHERE is_new)"
        ),
    )


@kept
def count_unmerged(schema: str, load: Load) -> Composed:
    """Count the staged rows that are not stored, or that would still change a stored row."""
    return SQL("SELECT count(*) FROM {}").format(_unmerged(schema, load))


def _unmerged(schema: str, load: Load) -> Composed:
    """Return the staged rows that a merge has to write, as a FROM clause and its condition.

    Stored rows are looked up one by one in the index of the primary key (OFFSET 0 sees to that). Postgres, which takes
    each of them to lie on a page that has to be read, would read the whole table for a batch of a few thousand rows.
    """
    same = SQL(" AND ").join(
        SQL("{} = {}").format(Identifier("existing", name), _value(name)) for name in load.table.primary_key
    )
    join = SQL("LATERAL (SELECT * FROM {table} AS existing WHERE {same} OFFSET 0) AS existing ON true")
    return SQL("{stage} AS stage LEFT JOIN {join} WHERE {has_key} AND ({is_new} OR {changes})").format(
        stage=Identifier("pg_temp", stage_name(load)),
        join=join.format(table=qualified(schema, load.table), same=same),
        has_key=SQL(" AND ").join(SQL("{} IS NOT NULL").format(Identifier("stage", name)) for name in staged_key(load)),
        is_new=_is_new(load),
        changes=_changes(load, "existing", "stage"),
    )


def _is_new(load: Load) -> Composed:
    """Return the condition that a staged row is not stored."""
    return SQL("{} IS NULL").format(Identifier("existing", load.table.primary_key[0]))


def _value(name: str) -> Composable:
    """Return the expression for a column's value: from the stage, or filled in by the database."""
    return _FILLED_IN.get(name) or Identifier("stage", name)


def _filled_in(load: Load) -> list[str]:
    return [column.name for column in load.table.columns if column.name in _FILLED_IN]


def staged_key(load: Load) -> list[str]:
    """Return the columns of the primary key that a loaded row has: all except those that the database fills in."""
    return [name for name in load.table.primary_key if name not in _FILLED_IN]


def _changing(load: Load) -> list[Column]:
    """Return the columns that an upsert may change in a stored row."""
    columns = [*load.columns, *(column for column in load.table.columns if column.merge is Merge.CLEAR)]
    return [
        column
        for column in columns
        if column.name not in load.table.primary_key and load.merge_of(column) is not Merge.KEEP
    ]


def _compared(load: Load) -> list[Column]:
    """Return the columns that cause an update if they differ."""
    return [column for column in _changing(load) if load.merge_of(column) is not Merge.STAMP]


def _changes(load: Load, stored: str, incoming: str) -> Composable:
    """Return the condition under which a stored row would change and may change. `stored`, `incoming` are aliases."""
    compared = _compared(load)
    if not compared:
        return SQL("false")
    conditions: list[Composable] = [
        SQL("({}) IS DISTINCT FROM ({})").format(
            SQL(", ").join(Identifier(stored, column.name) for column in compared),
            SQL(", ").join(_merged(load, column, stored, incoming) for column in compared),
        ),
    ]
    if load.update_where:
        either = (SQL(" AND ").join(matches(each, stored)) for each in load.update_where)
        conditions.append(SQL("({})").format(SQL(" OR ").join(either)))
    return SQL("({})").format(SQL(" AND ").join(conditions))


def _on_conflict(load: Load) -> Composable:
    if not _compared(load):
        return SQL("DO NOTHING")
    assignments: list[Composable] = [
        SQL("{} = {}").format(Identifier(column.name), _merged(load, column, "stored", "excluded"))
        for column in _changing(load)
    ]
    if "__synced_at" in _filled_in(load):
        assignments.append(SQL("__synced_at = excluded.__synced_at"))
    return SQL("DO UPDATE SET {} WHERE {}").format(SQL(", ").join(assignments), _changes(load, "stored", "excluded"))


def _merged(load: Load, column: Column, stored: str, incoming: str) -> Composable:
    """Return the expression for a column of a stored row after the merge. `stored`, `incoming` are aliases."""
    old, new, merge = Identifier(stored, column.name), Identifier(incoming, column.name), load.merge_of(column)
    match merge:
        case Merge.EARLIEST:
            return SQL("least({}, {})").format(old, new)
        case Merge.LATEST:
            return SQL("greatest({}, {})").format(old, new)
        case Merge.FROM_LATEST_ROW:
            return SQL("coalesce({}, {}, {})").format(_unless_older("updated_at", old, new, stored, incoming), old, new)
        case Merge.CLEAR:
            value: Composable = SQL("NULL")
        case Merge.UNLESS_NULL:
            value = SQL("coalesce({}, {})").format(new, old)
        case _:
            value = new
    if load.newer_by is None:
        return value
    believed = SQL(" AND NOT {}").format(is_future(Identifier(stored, load.newer_by)))
    return _unless_older(load.newer_by, old, value, stored, incoming, believed)


def is_future(time: Composable) -> Composed:
    """Return the condition that a time was recorded with a clock that was ahead: by more than any run accepts."""
    return SQL("{} > now() + interval '1 hour'").format(time)


def _unless_older(
    time: str, old: Identifier, new: Composable, stored: str, incoming: str, condition: Composable = _ALWAYS
) -> Composed:
    """Return the expression for the new value, or for the old one if that is newer and a condition holds."""
    return SQL("CASE WHEN {0} > {1}{2} THEN {3} ELSE {4} END").format(
        Identifier(stored, time), Identifier(incoming, time), condition, old, new
    )


def matches(pairs: Mapping[str, object], stored: str = "stored") -> list[Composed]:
    """Return the conditions that a stored row has these values.

    None means null, NOT_NULL any other value, and False also null.
    """

    def match(name: str, value: object) -> Composed:
        column = Identifier(stored, name)
        if value is None:
            return SQL("{} IS NULL").format(column)
        if value is NOT_NULL:
            return SQL("{} IS NOT NULL").format(column)
        if value is False:
            return SQL("{} IS NOT TRUE").format(column)
        return SQL("{} = {}").format(column, Literal(value))

    return [match(name, value) for name, value in pairs.items()]
