"""The warehouse as a sink: a batch, with everything that has to be true at the same moment, in one transaction."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl

from klaviyo_pg.catalogue import Load, events, loads
from klaviyo_pg.postgres import attributions, departures, details, event_tables, placeholders
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erased_people
from klaviyo_pg.postgres.ledgers import run_ledger
from klaviyo_pg.postgres.lines import frame_of
from klaviyo_pg.postgres.load import Merged, merge
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.postgres.partitions import Partitioning
from klaviyo_pg.rows import Lines, Reject
from klaviyo_pg.traffic import Traffic
from pipeline.batch import Batch, Protected
from pipeline.chunks import Chunk
from pipeline.outcome import RowCounts
from pipeline.runs import Run, transact
from pipeline.session import Session
from transforms.clean import conformed, last_by
from transforms.erased import (
    ErasedPeople,
    Frames,
    excluded_addresses,
    hashed,
    member_keys,
    unclaimed_exclusions,
    without,
    without_exclusions,
    words_in,
)
from transforms.keys import md5

_REJECT = {"table_name": pl.String(), "reason": pl.String(), "raw": pl.String(), "is_erased": pl.Boolean()}
_UNCOUNTED = (loads.SWEEPS, loads.SWEPT_EXCLUSIONS, loads.SWEPT_ROWS)
"""Loads of what a full read has found so far, which another load counts."""
_PLACEHOLDERS = (loads.CAMPAIGN_PLACEHOLDERS, loads.FLOW_PLACEHOLDERS)
_ERASED = "The record of a person who was erased could not be stored."

Record = Callable[[Account], None]
"""Records, in the transaction of a batch, what is true once it is stored."""


def store(
    session: Session,
    run: Run,
    chunk: Chunk,
    batch: Protected,
    traffic: Traffic,
    guard: Guard,
    record: Record,
    is_complete: bool = True,
) -> RowCounts:
    """Merge a batch, count its rows, and record what has to be recorded with it; return the counts by table.

    Waits for a database that is away; nothing is ever half stored. Rows that a batch which is not complete lacks are
    not treated as deleted. Raises UnconfirmedLoss, and stores nothing, where the guard does not believe that rows are
    absent.
    """

    def write(account: Account) -> RowCounts:
        counts = _merge(account, session.partitioning, run, chunk, batch, guard, is_complete)
        run_ledger.add_counts(account, run.id, counts)
        record(account)
        run_ledger.add_requests(account, run.id, traffic)
        return counts

    return transact(session, run, write)


def _merge(
    account: Account,
    partitioning: Partitioning,
    run: Run,
    chunk: Chunk,
    batch: Protected,
    guard: Guard,
    is_complete: bool,
) -> RowCounts:
    has_erased = erased_people.exist(account)
    parts = _storable(account, batch, has_erased)
    for load, rows in parts:
        if load.table.ordered_by:
            partitioning.prepare(account, load.table, rows)
    merges = _merge_parts(account, parts, batch, guard, is_complete)
    if batch.has_attributions and not _is_hidden(batch, loads.EVENT_ATTRIBUTIONS):
        _delete_withdrawn(account, merges.known, parts)
    if merges.has_overwritten:
        details.record_outdated(account)
    _follow_merges(account, parts)
    rejects = {
        table: [*batch.rejects.get(table, ()), *merges.unstorable.get(table, ())]
        for table in {**batch.rejects, **merges.unstorable}
    }
    _count_others(merges.counts, batch, rejects)
    _store_rejects(account, run, chunk, rejects, has_erased)
    return {table: numbers for table, numbers in merges.counts.items() if any(numbers.values())}


class _Merges(NamedTuple):
    """The result of merging the parts of a batch.

    `counts` and `unstorable` are by table. `known` has the events of which some were stored before. `has_overwritten`
    says that details of people were overwritten.
    """

    counts: dict[str, dict[str, int]]
    unstorable: dict[str, list[Reject]]
    known: list[tuple[Load, pl.DataFrame | Lines]]
    has_overwritten: bool


def _merge_parts(
    account: Account,
    parts: Sequence[tuple[Load, pl.DataFrame | Lines]],
    batch: Batch,
    guard: Guard,
    is_complete: bool,
) -> _Merges:
    """Merge the parts one after the other: what becomes of one can keep details of people out of those after it."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(run_ledger.COUNTS, 0))
    unstorable: dict[str, list[Reject]] = defaultdict(list)
    known: list[tuple[Load, pl.DataFrame | Lines]] = []
    outdated: set[str] = set()
    has_overwritten = False
    for load, rows in parts:
        table = load.table.name
        has_all = not _is_hidden(batch, load) and (is_complete or load.absent_per is not None)
        merged, newer = _merge_part(account, load, rows, has_all, guard, outdated)
        outdated |= newer
        has_overwritten |= load in loads.OVERWRITING_MEMBERS and merged.updated > 0
        if load.table in events.EVENT_TABLES and merged.inserted < merged.rows:
            known.append((load, rows))
        if load in _UNCOUNTED:
            counts[table]["rejected"] += len(merged.unstorable)  # the end of the full read depends on it
            continue
        unstorable[table] += (Reject(row, reason, replaced=replaced) for row, reason, replaced in merged.unstorable)
        for name, number in merged.counts.items():
            counts[table][name] += number
    return _Merges(counts, unstorable, known, has_overwritten)


def _merge_part(
    account: Account, load: Load, rows: pl.DataFrame | Lines, has_all: bool, guard: Guard, outdated: Collection[str]
) -> tuple[Merged, set[str]]:
    """Merge the rows of one load, and return the people whose details must not be stored after them.

    Details of the people in `outdated` are left out.
    """
    if load.table in events.EVENT_TABLES:
        single = event_tables.one_copy(account, load.table, rows)
        return merge(account, load, single, has_all, guard, departures.detect_merges), set()
    assert isinstance(rows, pl.DataFrame)  # only events are lines
    frame = details.without(load, rows, outdated)
    merged = merge(account, load, frame, has_all, guard)
    if load in _PLACEHOLDERS:
        if merged.inserted and load is loads.CAMPAIGN_PLACEHOLDERS:
            placeholders.follow_messages(account)
        return Merged(merged.inserted, merged.inserted, 0, 0, merged.unstorable), set()  # the others were not read
    newer = details.outdated(account, load, frame)
    if merged.unstorable:
        details.clear(account, load, frame)
    return merged, newer


def _follow_merges(account: Account, parts: Sequence[tuple[Load, pl.DataFrame | Lines]]) -> None:
    """Let stored events of profiles that were merged into others follow them: the batch can have been read before."""
    of_events = [(load, rows) for load, rows in parts if load.table in events.EVENT_TABLES and len(rows)]
    if of_events and departures.has_merges(account):
        departures.follow_again(account, {member for load, rows in of_events for member in _members(load, rows)})


def _members(load: Load, rows: pl.DataFrame | Lines) -> Iterable[str]:
    """Return the member keys of events. Lines have an empty text instead of null."""
    if isinstance(rows, Lines):
        return rows.values(list(load.schema).index("member_key"))
    return rows.get_column("member_key").drop_nulls().unique()


def _is_hidden(batch: Batch, load: Load) -> bool:
    """Return whether a record that could not be read may be a row of this load that the warehouse has."""
    return any(reject.hides for reject in batch.rejects.get(load.table.name, ()))


def _delete_withdrawn(
    account: Account, known: Sequence[tuple[Load, pl.DataFrame | Lines]], parts: Sequence[tuple[Load, Any]]
) -> None:
    """Delete what events that were stored before are no longer attributed to."""
    frames = [rows for load, rows in parts if load.table is loads.EVENT_ATTRIBUTIONS.table]
    kept = frozenset(key for frame in frames for key in frame.get_column("key"))
    for load, rows in known:
        attributions.delete_withdrawn(account, load, rows, kept)


def _count_others(counts: Mapping[str, dict[str, int]], batch: Batch, rejects: Mapping[str, Sequence[Reject]]) -> None:
    """Count the rows of a batch that were not merged: rejects, and what is stored already."""
    for table, records in batch.rejects.items():
        counts[table]["rows_read"] += sum(not record.replaced for record in records)
    for table, records in rejects.items():
        counts[table]["rejected"] += sum(not record.replaced for record in records)
        counts[table]["replaced_values"] += sum(record.replaced for record in records)
    for table, unchanged in batch.unchanged.items():
        counts[table]["rows_read"] += unchanged
        counts[table]["unchanged"] += unchanged
    for table, nul_characters in batch.nul_characters.items():
        counts[table]["nul_characters"] += nul_characters


def _storable(account: Account, batch: Protected, has_erased: bool) -> Sequence[tuple[Load, pl.DataFrame | Lines]]:
    """Return the rows of a batch without the people who were erased. Only if lines have one are they made frames."""
    if not has_erased:
        return [*batch.lines, *batch.frames]
    members = {member for load, lines in batch.lines for member in _members(load, lines)}
    if not (members and any(erased_people.among(account, members, set()))):
        return [*batch.lines, *_without(account, batch.frames)]
    frames = [(load, frame_of(load, lines)) for load, lines in batch.lines]
    return _without(account, [*frames, *batch.frames])


def _without(account: Account, frames: Frames) -> Frames:
    """Remove the people who were erased. An address that someone else has now is not theirs any more."""
    no_one = ErasedPeople(account.integration_id)
    addresses = {no_one.key_of(each) for each in excluded_addresses(frames)}
    erased = ErasedPeople(account.integration_id, *erased_people.among(account, member_keys(frames), addresses))
    theirs = unclaimed_exclusions(frames, erased)
    return without(without_exclusions(frames, theirs - erased_people.owned(account, sorted(theirs))), erased)


def _mentioned(account: Account, texts: Sequence[str]) -> list[bool]:
    """Return of each text if it mentions a person who was erased."""
    no_one = ErasedPeople(account.integration_id)
    words = {word for text in texts for word in words_in(text)}
    keys = words | {hashed(word) for word in words}
    erased = ErasedPeople(
        account.integration_id, *erased_people.among(account, keys, {no_one.key_of(word) for word in words})
    )
    return [bool(erased) and erased.is_in(text) for text in texts]


def _store_rejects(
    account: Account, run: Run, chunk: Chunk, rejects: Mapping[str, Sequence[Reject]], has_erased: bool
) -> None:
    """Store rejects, of which each record has one row. Of a person who was erased, only the fact is stored."""
    records = [(table, reason, raw) for table, records in rejects.items() for raw, reason, *_ in records]
    texts = [f"{raw} {reason}" for _, reason, raw in records]
    erased = _mentioned(account, texts) if has_erased and texts else [False] * len(texts)
    rows = [(*record, is_erased) for record, is_erased in zip(records, erased, strict=True)]
    if not rows:
        return
    origin = json.dumps([run.integration_id, chunk.stream])  # whichever window it is read with
    frame = pl.DataFrame(rows, _REJECT, orient="row").with_columns(
        pl.col("raw").str.replace_all("\x00", "\\u0000", literal=True),
        pl.col("reason").str.replace_all("\x00", "", literal=True),
        key=md5(pl.lit(origin) + pl.col("raw")),
        run_id=pl.lit(run.id),
        stream=pl.lit(chunk.key),
        rejected_at=pl.lit(datetime.now(UTC)),
    )
    frame = frame.with_columns(
        raw=pl.when(~pl.col("is_erased")).then(pl.col("raw")),
        reason=pl.when(pl.col("is_erased")).then(pl.lit(_ERASED)).otherwise(pl.col("reason")),
    )
    merge(account, loads.REJECTS, conformed(frame.pipe(last_by, "key"), loads.REJECTS))
