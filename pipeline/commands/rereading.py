"""Rereading: what the next daily run reads in full again, and about how many requests that takes. Sends none.

Nothing that is stored is deleted: the ledger records that the watermarks of streams no longer count.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from klaviyo_pg.catalogue import DATA, TABLES
from klaviyo_pg.catalogue.account import ACCOUNTS
from klaviyo_pg.catalogue.membership import LIST_NAMES, MEMBER_LISTS
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.klaviyo.dialect import Dialect
from klaviyo_pg.postgres import lookups, member_lists, segments
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import report_ledger, run_ledger, watermarks
from klaviyo_pg.settings import Settings
from pipeline.commands.check.forecast import ROWS_PER_PAGE, pages
from pipeline.commands.check.sizes import TEMPLATES_PER_PAGE
from pipeline.streams import DEPARTURES, REPORTS, STREAMS, content, on_request
from pipeline.streams.events import EVENTS
from pipeline.streams.lists import LIST_MEMBERS
from pipeline.streams.people import PEOPLE, PROFILES
from pipeline.streams.reports import LONGEST
from pipeline.streams.segments import SEGMENT_MEMBERS, chosen_of_stored
from pipeline.streams.selection import check_names, selection_of
from pipeline.streams.stream import Stream

_NOT_BY_ITSELF = (EVENTS, PEOPLE, *DEPARTURES)  # they follow from events, and from what else is missing
_BY_CHANGE = (PROFILES, *content.STREAMS, *on_request.BY_CHANGE)
_BY_SUBJECT = (LIST_MEMBERS, SEGMENT_MEMBERS)
_NOT_FROM_SOURCE = frozenset(table.name for table in TABLES if table not in DATA) - EVENTS.tables
_OF_PEOPLE = (PROFILES, on_request.MEMBER_PREDICTIONS)


class Reread(NamedTuple):
    """A stream that the next daily run reads in full, and about how many requests that takes; None if it is unknown.

    `is_every_run` says that every daily run reads it in full.
    """

    stream: str
    requests: int | None
    is_every_run: bool = False


def streams_to_read(names: Collection[str], settings: Settings, dialect: Dialect) -> list[Stream]:
    """Return the streams that fill tables, in order, without events. member_lists is derived, and needs no stream.

    Raises BadSettings where there is no such table, where only events or runs themselves fill it, and where TABLES or
    SEGMENTS leaves it out.
    """
    _check_names(names)
    selected = selection_of(settings)
    filling = {name: _streams_of(name, dialect) for name in names if name != ACCOUNTS.name}
    for name, streams in filling.items():
        if not streams:
            raise BadSettings(
                f"The rows of {name} come with events. To read them again, run klaviyo-pg backfill --start DATE "
                "--restart."
            )
        if not any(stream.name in selected.streams for stream in streams):
            raise BadSettings(f"TABLES leaves out {name}, so that the next daily run would not read it. Add it there.")
        if SEGMENT_MEMBERS in streams and not settings.segments:
            raise BadSettings(f"SEGMENTS is empty, so that no run reads {name}. Set it.")
    filling.pop(MEMBER_LISTS.name, None)
    wanted = {stream.name for streams in filling.values() for stream in streams} & selected.streams
    return [stream for stream in STREAMS.values() if stream.name in wanted]


def _check_names(names: Collection[str]) -> None:
    """Raise BadSettings if there is no table of one of these names, or if runs fill it themselves."""
    check_names([name for name in names if name not in _NOT_FROM_SOURCE and name not in EVENTS.tables])
    for name in names:
        if name in _NOT_FROM_SOURCE:
            when = " whenever they read lists" if name == LIST_NAMES.name else ""
            raise BadSettings(f"Klaviyo has no rows of {name}: runs write them{when}.")


def _streams_of(table: str, dialect: Dialect) -> list[Stream]:
    filling = (stream for stream in STREAMS.values() if stream not in _NOT_BY_ITSELF and table in stream.tables)
    return [stream for stream in filling if _is_offered(stream, dialect)]


def _is_offered(stream: Stream, dialect: Dialect) -> bool:
    return (dialect.lists_people or stream not in _OF_PEOPLE) and (dialect.reads_reports or stream not in REPORTS)


def derives_member_lists(names: Collection[str], streams: Iterable[Stream]) -> bool:
    """Return whether member_lists is among the tables to read again, or derived from what these streams fill."""
    return MEMBER_LISTS.name in names or any(MEMBER_LISTS.name in stream.tables for stream in streams)


def read_again(account: Account, streams: Collection[Stream], tables: Collection[str]) -> None:
    """Let the next daily run read streams in full, and derive all of member_lists if the tables or streams concern it.

    It does not resume an unfinished run, which has read some of the streams. The caller keeps runs of the account out.
    """
    watermarks.outdate(account, [stream.name for stream in streams if stream not in REPORTS])
    report_ledger.forget_all(account, [stream.name for stream in streams if stream in REPORTS])
    if derives_member_lists(tables, streams):
        member_lists.derive_whole_next(account)
    run_ledger.begin_anew(account, "daily")


def requests_for(account: Account, streams: Sequence[Stream], dialect: Dialect, settings: Settings) -> list[Reread]:
    """Estimate the requests that reading streams in full takes, by the number of rows that are stored."""
    return [_requests_for(account, stream, dialect, settings) for stream in streams]


def _requests_for(account: Account, stream: Stream, dialect: Dialect, settings: Settings) -> Reread:
    if stream in REPORTS:
        return Reread(stream.name, -(-settings.report_days // LONGEST[stream.name]))
    if stream in _BY_SUBJECT:
        if dialect.looks_up_memberships:
            return Reread(stream.name, None)
        members = lookups.rows_by_subject(account, stream.table, f"{stream.subject}_id")
        if stream is SEGMENT_MEMBERS:
            chosen = chosen_of_stored(settings, segments.existing(account)).ids
            members = {each: members.get(each, 0) for each in chosen}
        return Reread(stream.name, sum(map(pages, members.values())))
    if stream in _BY_CHANGE:
        size = TEMPLATES_PER_PAGE if stream is content.TEMPLATES else ROWS_PER_PAGE
        return Reread(stream.name, pages(lookups.rows(account, stream.table), size))
    return Reread(stream.name, None, is_every_run=True)
