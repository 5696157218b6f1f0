"""SQL, composed from the catalogue's names with psycopg.sql. Nothing here talks to a database."""

from collections.abc import Iterable, Mapping

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from klaviyo_pg.catalogue import Absent, Column, Load, Merge, Table, View

ESP_SOURCE = "Klaviyo"
COPY_FORMAT = SQL("(FORMAT csv, DELIMITER E'\\t', QUOTE E'\\x01', NULL '')")

_FILLED_IN: Mapping[str, Composable] = {
    "esp_source": Literal(ESP_SOURCE),
    "esp_integration_id": SQL("%(integration_id)s"),
    "__synced_at": SQL("now()"),
}


def names(names: Iterable[str]) -> Composed:
    """Column names with commas between."""
    return SQL(", ").join(map(Identifier, names))


def column_definition(column: Column) -> Composed:
    return Composed([Identifier(column.name), SQL(" "), SQL(column.type.sql)])


def create_table(schema: str, table: Table) -> Composed:
    columns = SQL(",\n    ").join(map(column_definition, table.columns))
    return SQL("CREATE TABLE {} (\n    {},\n    PRIMARY KEY ({})\n)").format(
        Identifier(schema, table.name), columns, names(table.primary_key)
    )


def index_name(table: Table, columns: Iterable[str]) -> str:
    return "_".join((table.name, *columns, "idx"))


def create_index(schema: str, table: Table, columns: Iterable[str]) -> Composed:
    return SQL("CREATE INDEX {} ON {} ({})").format(
        Identifier(index_name(table, columns)), Identifier(schema, table.name), names(columns)
    )


def add_column(schema: str, table: Table, column: Column) -> Composed:
    return SQL("ALTER TABLE {} ADD COLUMN {}").format(Identifier(schema, table.name), column_definition(column))


def comments(schema: str, table: Table | View) -> list[Composed]:
    """The catalogue's descriptions as comments of the database."""
    name = Identifier(schema, table.name)
    return [
        SQL("COMMENT ON {} {} IS {}").format(
            SQL("VIEW" if isinstance(table, View) else "TABLE"), name, Literal(table.description)
        ),
        *(comment(schema, table, column) for column in table.columns),
    ]


def comment(schema: str, table: Table | View, column: Column) -> Composed:
    return SQL("COMMENT ON COLUMN {} IS {}").format(
        Identifier(schema, table.name, column.name), Literal(column.description)
    )


def stage_name(load: Load) -> str:
    return f"stage_{load.table.name}"


def create_stage(schema: str, load: Load) -> Composed:
    """A temporary table for the rows that come: typed like its table, without index, gone with the transaction."""
    return SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
        Identifier("pg_temp", stage_name(load)),
        names(column.name for column in load.columns),
        Identifier(schema, load.table.name),
    )


def drop_stage(load: Load) -> Composed:
    return SQL("DROP TABLE {}").format(Identifier("pg_temp", stage_name(load)))


def copy_stage(load: Load) -> Composed:
    """COPY in the form that klaviyo_pg.postgres.load writes: tabs between, \\x01 around, nothing for null."""
    return SQL("COPY {} ({}) FROM STDIN {}").format(
        Identifier("pg_temp", stage_name(load)), names(column.name for column in load.columns), COPY_FORMAT
    )


def probe(schema: str, load: Load) -> Composed:
    """The transaction's time, and whether any of the keys in %(keys)s is stored; for tables with one key column."""
    return SQL("SELECT now(), EXISTS (SELECT FROM {} WHERE {} = ANY(%(keys)s))").format(
        Identifier(schema, load.table.name), names(load.table.primary_key)
    )


def copy_into(schema: str, load: Load, columns: Iterable[str]) -> Composed:
    """The same COPY, straight into the table."""
    return SQL("COPY {} ({}) FROM STDIN {}").format(Identifier(schema, load.table.name), names(columns), COPY_FORMAT)


def upsert(schema: str, load: Load) -> Composed:
    """Merge the stage into its table and answer (inserted, updated).

    Staged rows without a whole key are not stored; they only say, beside others, what is absent.
    Rows that would not change are left out beforehand: ON CONFLICT would lock them, and so write to each. Rows are
    merged in the order of their key, so that two transactions that share rows wait instead of deadlocking.
    """
    table = Identifier(schema, load.table.name)
    written = [*(column.name for column in load.columns), *_filled_in(load)]
    return SQL(
        "WITH merged AS (\n"
        "    INSERT INTO {table} AS stored ({columns})\n"
        "    SELECT {values} FROM {stage} AS stage LEFT JOIN {table} AS known ON {same}\n"
        "    WHERE {whole} AND ({is_new} OR {changes})\n"
        "    ORDER BY {order}\n"
        "    ON CONFLICT ({key}) {action}\n"
        "    RETURNING xmax = 0 AS is_new\n"
        ")\n"
        "SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM merged"
    ).format(
        table=table,
        columns=names(written),
        values=SQL(", ").join(_value(name) for name in written),
        stage=Identifier("pg_temp", stage_name(load)),
        same=SQL(" AND ").join(
            SQL("{} = {}").format(Identifier("known", name), _value(name)) for name in load.table.primary_key
        ),
        whole=SQL(" AND ").join(SQL("{} IS NOT NULL").format(Identifier("stage", name)) for name in _staged_key(load)),
        is_new=SQL("{} IS NULL").format(Identifier("known", load.table.primary_key[0])),
        changes=_changes(load, "known", "stage"),
        order=SQL(", ").join(Identifier("stage", name) for name in _staged_key(load)),
        key=names(load.table.primary_key),
        action=_on_conflict(load),
    )


def _value(name: str) -> Composable:
    """What is written to a column: what the stage brings, or what the database fills in."""
    return _FILLED_IN.get(name) or Identifier("stage", name)


def _filled_in(load: Load) -> list[str]:
    return [column.name for column in load.table.columns if column.name in _FILLED_IN]


def _staged_key(load: Load) -> list[str]:
    return [name for name in load.table.primary_key if name not in _FILLED_IN]


def _changing(load: Load) -> list[Column]:
    """The columns that an upsert may write to a row that is there."""
    columns = [*load.columns, *(column for column in load.table.columns if column.merge is Merge.CLEAR)]
    return [
        column
        for column in columns
        if column.name not in load.table.primary_key and load.merge_of(column) is not Merge.KEEP
    ]


def _compared(load: Load) -> list[Column]:
    """The columns that are a reason to touch a row that is there."""
    return [column for column in _changing(load) if load.merge_of(column) is not Merge.STAMP]


def _changes(load: Load, stored: str, came: str) -> Composable:
    """Whether a row that is there would change, and may: a condition over the two sides of a merge."""
    compared = _compared(load)
    if not compared:
        return SQL("false")
    conditions: list[Composable] = [
        SQL("({}) IS DISTINCT FROM ({})").format(
            SQL(", ").join(Identifier(stored, column.name) for column in compared),
            SQL(", ").join(_merged(load, column, stored, came) for column in compared),
        ),
        *_matches(load.only_where, stored),
    ]
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


def _merged(load: Load, column: Column, stored: str, came: str) -> Composable:
    """What a column becomes when a row comes that is there already: an expression over the two sides of a merge."""
    old, new, merge = Identifier(stored, column.name), Identifier(came, column.name), load.merge_of(column)
    match merge:
        case Merge.EARLIEST:
            return SQL("least({}, {})").format(old, new)
        case Merge.LATEST:
            return SQL("greatest({}, {})").format(old, new)
        case Merge.OF_LATEST:
            return SQL("coalesce({}, {}, {})").format(_if_newer("updated_at", old, new, stored, came), old, new)
        case Merge.CLEAR:
            return SQL("NULL")
        case Merge.AS_IT_COMES:
            return new
        case _ if load.newer_by:
            return _if_newer(load.newer_by, old, new, stored, came)
    return new


def _if_newer(time: str, old: Identifier, new: Identifier, stored: str, came: str) -> Composed:
    """The new value, unless the stored row is newer."""
    return SQL("CASE WHEN {0} > {1} THEN {2} ELSE {3} END").format(
        Identifier(stored, time), Identifier(came, time), old, new
    )


def _matches(pairs: Mapping[str, object], stored: str = "stored") -> list[Composed]:
    def match(name: str, value: object) -> Composed:
        column = Identifier(stored, name)
        if value is None:
            return SQL("{} IS NULL").format(column)
        if value is ...:
            return SQL("{} IS NOT NULL").format(column)
        return SQL("{} = {}").format(column, Literal(value))

    return [match(name, value) for name, value in pairs.items()]


def end_absent(schema: str, load: Load) -> Composed:
    """Delete or mark the account's rows that a complete extraction, now in the stage, does not hold."""
    stage = Identifier("pg_temp", stage_name(load))
    same = SQL(" AND ").join(
        SQL("{} = {}").format(Identifier("stage", name), Identifier("stored", name)) for name in _staged_key(load)
    )
    conditions = [
        SQL("stored.esp_integration_id = %(integration_id)s"),
        *_matches(load.within),
        SQL("NOT EXISTS (SELECT FROM {} AS stage WHERE {})").format(stage, same),
    ]
    if load.absent_beside:
        beside = Identifier(load.absent_beside)
        conditions.append(SQL("stored.{0} IN (SELECT {0} FROM {1})").format(beside, stage))
    if load.newer_by:
        newest = SQL("{} <= (SELECT min({}) FROM {})")
        conditions.append(newest.format(Identifier("stored", load.newer_by), Identifier(load.newer_by), stage))
    table = Identifier(schema, load.table.name)
    if load.absent is Absent.GO:
        return SQL("DELETE FROM {} AS stored WHERE {}").format(table, SQL(" AND ").join(conditions))
    mark = Identifier(next(column.name for column in load.table.columns if column.merge is Merge.CLEAR))
    return SQL("UPDATE {} AS stored SET {mark} = now(), __synced_at = now() WHERE stored.{mark} IS NULL AND {}").format(
        table, SQL(" AND ").join(conditions), mark=mark
    )
