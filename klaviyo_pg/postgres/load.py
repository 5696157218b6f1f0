"""Loading frames into tables: COPY into a stage, then one upsert. The caller owns the transaction."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import polars as pl
import psycopg
from psycopg import errors
from psycopg.sql import Composed

from klaviyo_pg.catalogue import Absent, Load
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.catalogue.shared import ESP_SOURCE
from klaviyo_pg.catalogue.types import JSON, TEXT
from klaviyo_pg.postgres import absence_statements, attributions, statements
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.dropped_rows import check_stored
from klaviyo_pg.postgres.lines import frame_of, spans_of
from klaviyo_pg.postgres.losses import Guard, Missing, judge
from klaviyo_pg.repair import REASON, repaired
from klaviyo_pg.rows import Lines

_UNSTORABLE = (psycopg.DataError, errors.StatementTooComplex, errors.ProgramLimitExceeded)
INDEXABLE = 2_000
"""The longest text, in bytes, that is stored in a column with an index: an entry has at most about 2,700."""
_ROWS_AT_ONCE = 2_000  # converted to text at a time, so that a frame is not in memory twice
_MARGIN = timedelta(days=3)  # by which an event's time may change to be noticed at once: the usual LOOKBACK_DAYS
_NEAREST = 500  # stored events that are looked at before and after a batch, for those whose time has changed
_NOW = "now"  # the time of the transaction, which Postgres reads in a third of the time that a written one takes
_PROBES = 64  # keys that are looked up to find out if a batch is new

Inspect = Callable[[Account, Load], None]


class Unstorable(NamedTuple):
    """A row that Postgres refused, as JSON, and the reason. If values were `replaced`, the rest of it is stored."""

    row: str
    reason: str
    replaced: int = 0


class Merged(NamedTuple):
    """The result of loading a frame: row counts, and the rows that could not be stored."""

    rows: int
    inserted: int
    updated: int
    unchanged: int
    unstorable: list[Unstorable]

    @property
    def counts(self) -> dict[str, int]:
        """The row counts, by the columns of `run_tables`."""
        return {
            "rows_read": self.rows,
            "inserted": self.inserted,
            "updated": self.updated,
            "unchanged": self.unchanged,
        }


def merge(
    account: Account,
    load: Load,
    frame: pl.DataFrame | Lines,
    is_complete: bool = True,
    guard: Guard | None = None,
    inspect: Inspect | None = None,
) -> Merged:
    """Merge a frame, or lines of an event table, into its table.

    The frame has exactly the schema of the load and one row for each key. Rows that Postgres cannot store are left out
    and returned; all others are stored. Only a complete frame can make stored rows absent. `inspect` is called while
    the rows are staged, before they are merged; not if no row of the frame is stored yet.

    Raises UnconfirmedLoss if more rows would become absent than the guard believes.
    """
    if not len(frame) and not (is_complete and _can_lose(account, load)):
        return Merged(0, 0, 0, 0, [])  # as most frames of a daily run are
    if isinstance(frame, Lines):
        return _merge(account, load, frame, is_complete, guard, inspect)
    conformed = _without_idle(account, load, frame.select(*load.schema))
    if conformed.is_empty() and load.absent_per:
        return Merged(0, 0, 0, 0, [])
    if statements.only_inserts(load):
        return _insert_missing(account, load, conformed)
    return _merge(account, load, conformed, is_complete, guard, inspect)


def _can_lose(account: Account, load: Load) -> bool:
    """Return whether there are stored rows that an empty frame makes absent."""
    if load.absent is Absent.KEEP or load.absent_per:
        return False
    return account.is_true(absence_statements.has_present(account.schema, load))


def _without_idle(account: Account, load: Load, frame: pl.DataFrame) -> pl.DataFrame:
    """Remove the rows that only say that someone has none, where none are stored either: most people have no
    suppressions.
    """
    key = statements.staged_key(load)
    owner = load.absent_per
    if owner is None or owner != key[0]:
        return frame
    is_idle = pl.any_horizontal(pl.col(key).is_null())
    owners = frame.filter(is_idle).get_column(owner).to_list()
    if not owners:
        return frame
    stored = account.column(statements.stored_owners(account.schema, load), owners=owners)
    return frame.filter(~is_idle | pl.col(owner).is_in(stored))


def _insert_missing(account: Account, load: Load, frame: pl.DataFrame) -> Merged:
    """Insert the rows that are not stored yet. If all are, nothing is written, not even to a stage."""
    [key] = load.table.primary_key
    stored = account.column(statements.stored_keys(account.schema, load), keys=frame.get_column(key).to_list())
    missing = frame.filter(~pl.col(key).is_in(stored))
    if missing.is_empty():
        return Merged(frame.height, 0, 0, frame.height, [])
    merged = _merge(account, load, missing, True, None, None)
    known = frame.height - missing.height
    return merged._replace(rows=merged.rows + known, unchanged=merged.unchanged + known)


def _merge(
    account: Account,
    load: Load,
    rows: pl.DataFrame | Lines,
    is_complete: bool,
    guard: Guard | None,
    inspect: Inspect | None,
) -> Merged:
    if isinstance(rows, Lines) and len(set(rows.each_key())) < len(rows):
        rows = frame_of(load, rows)  # an event whose time has changed is two rows for the primary key
    count, too_long = _count(load, rows), list[Unstorable]()
    if isinstance(rows, pl.DataFrame):
        rows, too_long = _indexable(load, rows)
    if load.mostly_new and not too_long and _append(account, load, rows):
        return Merged(count, count, 0, 0, [])
    account.execute(statements.create_stage(account.schema, load))
    unstorable = [*too_long, *_copy_to_stage(account, load, rows)]
    missing = sum(not each.replaced for each in unstorable)
    if inspect is not None:
        inspect(account, load)
    inserted, updated = _upsert(account, load)
    if inserted and load.table in EVENT_TABLES:
        outdated, moved = _delete_outdated(account, load, rows)
        outdated = min(outdated, inserted)
        inserted, updated = inserted - outdated, updated + min(moved, outdated)
    if load.absent is not Absent.KEEP and is_complete and not missing:
        _retire_absent(account, load, guard)
    account.execute(statements.drop_stage(load))
    return Merged(count, inserted, updated, count - missing - inserted - updated, unstorable)


def _count(load: Load, rows: pl.DataFrame | Lines) -> int:
    """Return the number of rows that have a key."""
    if isinstance(rows, Lines):
        return len(rows)
    return rows.drop_nulls([name for name in load.table.primary_key if name in rows.columns]).height


def _indexable(load: Load, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[Unstorable]]:
    """Split off the rows that no index could hold: the stage has none, so only the merge would find out."""
    indexed = {name for names in (load.table.primary_key, *load.table.indexes) for name in names}
    texts = [each.name for each in load.columns if each.name in indexed and each.type is TEXT]
    if not texts:
        return frame, []
    is_long = pl.any_horizontal(pl.col(texts).str.len_bytes() > INDEXABLE).fill_null(False)
    reason = f"A value of {' or '.join(texts)} is longer than {INDEXABLE:,} bytes."
    long = frame.filter(is_long)
    rows = [Unstorable(row.write_ndjson().strip(), reason) for row in long.iter_slices(1)]
    return (frame.filter(~is_long), rows) if rows else (frame, [])


def merge_stored(
    account: Account, load: Load, query: Composed, is_complete: bool = True, guard: Guard | None = None
) -> Merged:
    """Merge the rows of a query, one for each key, as `merge` does with a frame."""
    account.execute(statements.create_stage(account.schema, load))
    rows = account.execute(statements.fill_stage(load, query)).rowcount
    account.execute(statements.analyze_stage(load))
    inserted, updated = _upsert(account, load)
    if is_complete:
        _retire_absent(account, load, guard)
    account.execute(statements.drop_stage(load))
    return Merged(rows, inserted, updated, rows - inserted - updated, [])


def _upsert(account: Account, load: Load) -> tuple[int, int]:
    """Merge the stage, and return the numbers of rows inserted and updated. Raises DatabaseUnusable if it lost rows.

    Fewer rows may be written than expected because another transaction has just written the same ones. Only if some
    are still to be written has something suppressed them.
    """
    row = account.execute(statements.upsert(account.schema, load)).fetchone()
    assert row is not None
    to_write, new, written = row
    if written < to_write:
        lost = account.scalar(statements.count_unmerged(account.schema, load))
        check_stored(account, load.table, to_write, to_write - lost)
    inserted = min(new, written)
    return inserted, written - inserted


def _delete_outdated(account: Account, load: Load, frame: pl.DataFrame | Lines) -> tuple[int, int]:
    """Delete the older rows of events that have another time now.

    Return the number of these events, and of those of which a stored row was deleted.
    """
    found = account.execute(statements.outdated(account.schema, load), **_near(frame)).fetchall()
    if found:
        rows = [{"event_at": at, "key": key} for at, key, _ in found]
        account.execute_many(statements.delete_row(account.schema, load.table), rows)
        attributions.forget(account, rows)
    return len({key for _, key, _ in found}), len({key for _, key, is_moved in found if is_moved})


def _retire_absent(account: Account, load: Load, guard: Guard | None) -> None:
    """Delete or mark absent rows, if the guard believes that they are.

    Rows that belong to a loaded row, such as the lists of a campaign, are as believable as that row, unless the load
    doubts them. If fewer rows were retired than were missing, those that are left are counted.
    """
    schema, missing = account.schema, None
    if guard and (load.absent_per is None or load.is_doubted):
        missing, is_believed = judge(account, guard, _missing(schema, load))
        if not is_believed or not missing:
            return
    elif guard and not guard.believes_losses:
        return
    retired = account.execute(absence_statements.retire(schema, load)).rowcount
    if load.absent_per is None and (missing is None or retired < missing):
        left = account.scalar(absence_statements.count(schema, load))
        check_stored(account, load.table, retired + left, retired)


def _missing(schema: str, load: Load) -> Missing:
    among = absence_statements.present_keys(schema, load) if load.absent_per else None
    return Missing(
        load.table, absence_statements.keys(schema, load), absence_statements.count_present(schema, load), among
    )


def _probed(load: Load, rows: pl.DataFrame | Lines) -> Mapping[str, object]:
    """Return the values with which `statements.probe` looks for stored rows."""
    if isinstance(rows, Lines) or load.table.ordered_by is not None:
        return _near(rows)
    keys = rows.get_column(load.table.identity[0])
    return {"keys": keys.gather_every(max(1, rows.height // _PROBES)).to_list()}


def _append(account: Account, load: Load, rows: pl.DataFrame | Lines) -> bool:
    """Append the rows that have a key directly to their table, which takes a third of the time of a merge.

    Returns False, and changes nothing, if some of the rows are already stored or cannot be stored.
    """
    key = statements.staged_key(load)
    if isinstance(rows, pl.DataFrame):
        rows = rows.drop_nulls(key)
    if not len(rows):
        return True
    near = account.scalar(statements.probe(account.schema, load), **_probed(load, rows))
    if near is None or _has_key(rows, load.table.identity[0], near):
        return False
    values = {"esp_source": ESP_SOURCE, "esp_integration_id": account.integration_id, "__synced_at": _NOW}
    filled_in = {name: pl.lit(value) for name, value in values.items() if name in load.table.column_names}
    statement = statements.copy_into(account.schema, load, [*load.schema, *filled_in])
    try:
        if isinstance(rows, Lines):
            end = b"\t" + as_copy_text(pl.DataFrame().select(**filled_in))
            _copy_texts(account, load, statement, (text.replace(b"\n", end) for text in rows.text), len(rows))
        else:
            _copy_all(account, load, statement, rows.sort(key).with_columns(**filled_in))
    except (psycopg.IntegrityError, *_UNSTORABLE):
        return False
    return True


def _copy_to_stage(account: Account, load: Load, rows: pl.DataFrame | Lines) -> list[Unstorable]:
    """Copy rows to the stage, except those that Postgres refuses."""
    statement = statements.copy_stage(load)
    if isinstance(rows, Lines):
        try:
            _copy_texts(account, load, statement, rows.text, len(rows))
            return []
        except _UNSTORABLE:
            rows = frame_of(load, rows)
    documents = [column.name for column in load.columns if column.type is JSON]
    return _copy(account, load, statement, rows, documents)


def _near(rows: pl.DataFrame | Lines) -> dict[str, object]:
    """Return the values that finding events near a batch needs: its metrics, and the time of their first and last."""
    at = pl.col("event_at")
    if isinstance(rows, Lines):
        spans = spans_of(rows)
    else:
        spans = rows.lazy().group_by("metric_key").agg(at.min().alias("first"), at.max().alias("last")).collect()
    columns = spans.drop_nulls().rename({"metric_key": "metrics"}).to_dict(as_series=False)
    return {**columns, "margin": _MARGIN, "most": _NEAREST}


def _has_key(rows: pl.DataFrame | Lines, column: str, keys: Sequence[str]) -> bool:
    """Return whether one of the rows has one of the keys, which are in this column."""
    if isinstance(rows, Lines):
        return not set(keys).isdisjoint(rows.each_key())
    return bool(rows.get_column(column).is_in(keys).any())


def _copy(
    account: Account, load: Load, statement: Composed, frame: pl.DataFrame, documents: Sequence[str]
) -> list[Unstorable]:
    """Copy a frame. If Postgres refuses a value, halve the frame until the row with that value is alone.

    If a document is what it refuses, the rest of the row is stored.
    """
    if frame.is_empty():
        return []
    try:
        _copy_all(account, load, statement, frame)
    except _UNSTORABLE as error:
        if frame.height == 1:
            replaced = _copy_repaired(account, load, statement, frame, documents)
            reason = REASON if replaced else error.diag.message_primary or str(error)
            return [Unstorable(frame.write_ndjson().strip(), reason, replaced)]
        half = frame.height // 2
        halves = (frame[:half], frame[half:])
        return [each for part in halves for each in _copy(account, load, statement, part, documents)]
    return []


def _copy_repaired(
    account: Account, load: Load, statement: Composed, row: pl.DataFrame, documents: Sequence[str]
) -> int:
    """Copy a row with repaired documents, or else without documents. Return the number of replaced values, or 0."""
    repairs = {name: repaired(text.encode()) for name in documents if (text := row.item(0, name)) is not None}
    texts = {name: repair.text.decode() for name, repair in repairs.items() if repair}
    replaced = sum(repair.replaced for repair in repairs.values() if repair)
    for values, count in ((texts, replaced), (dict.fromkeys(repairs), len(repairs))):
        try:
            if count:
                changed = row.with_columns(pl.lit(text).alias(name) for name, text in values.items())
                _copy_all(account, load, statement, changed)
                return count
        except _UNSTORABLE:
            continue
    return 0


def _copy_all(account: Account, load: Load, statement: Composed, frame: pl.DataFrame) -> None:
    """Copy a frame, and roll back to the state before it if that fails, or if the database stored fewer rows."""
    slices = _without_equal_times(frame).iter_slices(_ROWS_AT_ONCE)
    _copy_texts(account, load, statement, map(as_copy_text, slices), frame.height)


def _without_equal_times(frame: pl.DataFrame) -> pl.DataFrame:
    """Write times that are the same in all rows as text once: they take most of the time of writing a person's rows."""
    columns = (frame.get_column(name) for name, dtype in frame.schema.items() if dtype.is_temporal())
    equal = [column for column in columns if column.null_count() == 0 and column.min() == column.max()]
    texts = {column.name: as_copy_text(column.head(1).to_frame()).decode().rstrip("\n") for column in equal}
    return frame.with_columns(pl.lit(text).alias(name) for name, text in texts.items())


def _copy_texts(account: Account, load: Load, statement: Composed, texts: Iterable[bytes], count: int) -> None:
    """Copy rows that are text already, as `_copy_all` does."""
    with account.connection.transaction(), account.connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for text in texts:
                copy.write(text)
        check_stored(account, load.table, count, cursor.rowcount)


def as_copy_text(frame: pl.DataFrame) -> bytes:
    """Return a frame in the format `statements.COPY_FORMAT`.

    JSON contains many double quotes but no control characters, so with \\x01 as the quote few values need quoting.
    """
    buffer = io.BytesIO()
    frame.write_csv(
        buffer,
        include_header=False,
        separator="\t",
        quote_char="\x01",
        quote_style="necessary",
        null_value="",
        datetime_format="%Y-%m-%d %H:%M:%S%.6f%:z",
    )
    return buffer.getvalue()
