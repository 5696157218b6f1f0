"""People: profiles that changed, and incomplete people, who have only an ID and an address from lists and events."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

import polars as pl

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.errors import Incomplete
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import details, lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.lookups import DIGITS
from klaviyo_pg.rows import Page, Profile, ProfileId, Reject
from klaviyo_pg.windows import AnyWindow
from pipeline.batch import Batch, protection_of
from pipeline.streams.stream import Finish, OpenedChunk, Reading, Stream, by_rows, collected, nothing
from transforms import people
from transforms.clean import Cleaned
from transforms.digests import NO_DIGEST, digest_of

_BATCH_ROWS = 1_000  # people in one transaction, in ten requests: what a kill costs each reader at most
LOOKED_UP_AT_ONCE = 1_000  # ids, in ten requests
EVENT_OWNERS = "event_owners"
"""The name of the stream that asks whether missing profiles were merged. Streams that find missing ones need it."""
_INCOMPLETE_FOR = timedelta(days=7)  # after that, the source has no more about a person than the warehouse
_FILLS = (loads.MEMBERS, loads.MEMBER_ATTRIBUTES, loads.MEMBER_CONSENTS, loads.LIST_SUPPRESSIONS_OF_PEOPLE)


class LookedUp(NamedTuple):
    """Ids that were looked for (`rows`), the people who had to be looked up by id, and the ids that are missing."""

    rows: Sequence[str]
    people: Sequence[Page[Profile]]
    missing: Sequence[str]
    rejects: Sequence[Reject]
    read_at: datetime
    reached: datetime | None = None
    incomplete: Incomplete | None = None


def _open_profiles(reading: Reading) -> OpenedChunk:
    return _open_people(reading, reading.source.profiles(reading.window))


def _open_incomplete(reading: Reading) -> OpenedChunk:
    if reading.source.dialect.lists_people:
        return open_looked_up(reading, _looked_up(reading))
    since = reading.run.as_of - _INCOMPLETE_FOR
    pages = (page for ids in _incomplete(reading, since) for page in reading.source.people(ids))
    return _open_people(reading, pages)


def _open_people(reading: Reading, pages: Iterable[Page[Profile]]) -> OpenedChunk:
    return OpenedChunk(pages, partial(people_batch, reading), prepare=partial(with_stored, reading))


def _looked_up(reading: Reading) -> Iterator[LookedUp]:
    for ids in _incomplete(reading):
        pages, missing = look_up(reading, ids)
        rejects = [reject for page in pages for reject in page.rejects]
        yield LookedUp(ids, pages, missing, rejects, reading.session.now())


def _incomplete(reading: Reading, since: datetime | None = None) -> Iterator[list[str]]:
    """Yield the ids of the people whose complete record is not stored, some at a time."""
    digits, after = reading.subject or DIGITS, ""

    def next_ids(account: Account) -> list[str]:
        return lookups.incomplete_members(account, since, digits, after, LOOKED_UP_AT_ONCE)

    while ids := reading.transact(next_ids):
        yield ids
        after = ids[-1]


def look_up(reading: Reading, ids: Sequence[str]) -> tuple[list[Page[Profile]], list[str]]:
    """Read profiles by ID. Return them, and the IDs that are missing; none where a record was unreadable."""
    pages = list(reading.source.people(ids)) if ids else []
    if any(reject.hides for page in pages for reject in page.rejects):
        return pages, []
    found = set(ids_of(pages))
    return pages, [each for each in ids if each not in found]


def ids_of(pages: Iterable[Page[Profile]]) -> list[str]:
    """Return the IDs of the people on pages."""
    return [person.id for page in pages for person in page.rows]


class WithStored(NamedTuple):
    """Pages of people, and what is stored of these people, by ID."""

    pages: Sequence[Page[Profile]]
    stored: Mapping[str, details.Stored]


def with_stored(reading: Reading, pages: Sequence[Page[Profile]]) -> WithStored:
    """Look up what is stored of the people on pages."""
    ids = ids_of(pages)
    stored = reading.transact(lambda account: details.stored(account, ids)) if ids else {}
    return WithStored(pages, stored)


def open_looked_up(reading: Reading, pages: Iterable[LookedUp], finish: Finish = nothing) -> OpenedChunk:
    """Return how people who were looked up are read."""

    def prepare(pages: Sequence[LookedUp]) -> tuple[Sequence[LookedUp], WithStored]:
        return pages, with_stored(reading, [each for page in pages for each in page.people])

    return OpenedChunk(pages, lambda prepared: _looked_up_batch(reading, *prepared), finish, prepare=prepare)


def _looked_up_batch(reading: Reading, pages: Sequence[LookedUp], found: WithStored) -> Batch:
    """Make a batch of people who were looked up, and of those who are missing."""
    missing = [(each, page.read_at) for page in pages for each in page.missing]
    batch = people_batch(reading, found)
    rejects = {**batch.rejects, "members": [reject for page in pages for reject in page.rejects]}
    frames = [*batch.frames, (loads.MISSING_PROFILES, people.missing(missing))]
    return Batch(frames, rejects, batch.nul_characters, batch.unchanged)


class _Difference(NamedTuple):
    """People by what a batch has to store of their details: nothing, all of them, or what differs.

    `digests` are those to store, by id.
    """

    unchanged: list[Profile]
    new: list[Profile]
    changed: list[Profile]
    digests: dict[str, int]


def people_batch(reading: Reading, found: WithStored) -> Batch:
    """Make a batch of people who were read with their consents.

    Their details, of which each person has many rows, are left out if the digest shows that they are stored.
    """
    if not found.pages:
        return Batch()
    rows, rejects = collected(found.pages)
    read, at, integration_id = people.latest(rows), found.pages[0].read_at, reading.integration_id
    unchanged, new, changed, digests = _compared(reading, read, found.stored)
    attributes = [people.attributes(each, at, integration_id) for each in (new, changed)]
    consents = [people.consents(each, integration_id) for each in (new, changed)]
    digests |= dict.fromkeys((each for made in attributes for each in made.unstorable), NO_DIGEST)
    members = _members(reading, read, at, digests)
    frames = [
        *((load, made.frame) for load, made in members),
        *zip((loads.NEW_MEMBER_ATTRIBUTES, loads.MEMBER_ATTRIBUTES), (each.frame for each in attributes), strict=True),
        *zip((loads.NEW_MEMBER_CONSENTS, loads.MEMBER_CONSENTS), (each.consents for each in consents), strict=True),
        (loads.LIST_SUPPRESSIONS_OF_PEOPLE, pl.concat(each.suppressions for each in consents)),
    ]
    nul_characters = {
        "members": sum(made.nul_characters for _, made in members) + sum(each.nul_characters for each in attributes),
        "member_consents": sum(each.nul_characters for each in consents),
    }
    rejected = {"members": rejects, "member_attributes": [reject for each in attributes for reject in each.rejects]}
    return Batch(frames, rejected, nul_characters, _detail_rows(unchanged))


def _members(
    reading: Reading, read: Sequence[Profile], at: datetime, digests: Mapping[str, int]
) -> list[tuple[Load, Cleaned]]:
    """Return the frames of people: first of those with their consent, then of those whose consent is unknown."""
    has_digests = reading.source.dialect.lists_people
    whole = loads.MEMBERS if has_digests else loads.UNDIGESTED_MEMBERS
    by_load = {
        whole: [each for each in read if each.consents is not None],
        loads.MEMBERS_WITHOUT_CONSENT: [each for each in read if each.consents is None],
    }
    kept = digests if has_digests else {}
    return [(load, people.members(each, load, at, reading.integration_id, kept)) for load, each in by_load.items()]


def _compared(reading: Reading, read: Sequence[Profile], stored: Mapping[str, details.Stored]) -> _Difference:
    """Compare people with what is stored of them.

    If another reader stores one of them before this batch is, neither the digest nor the details are overwritten by
    what was left out here. The next run reads the person again, because of the overlap.
    """
    digest = digest_of(reading.integration_id, protection_of(reading.run.settings))
    result = _Difference([], [], [], {})
    for person in read:
        known = stored.get(person.id)
        made = digest(person) if reading.source.dialect.lists_people else NO_DIGEST
        if known and known.digest == made != NO_DIGEST:
            result.unchanged.append(person)
            continue
        result.digests[person.id] = made
        (result.changed if known and known.is_complete else result.new).append(person)
    return result


def _detail_rows(unchanged: Sequence[Profile]) -> dict[str, int]:
    return {
        "member_attributes": sum(len(each.properties) for each in unchanged),
        "member_consents": sum(len(each.consents or ()) for each in unchanged),
        "list_suppressions": sum(len(each.list_suppressions or ()) for each in unchanged),
    }


def probe(source: Source, window: AnyWindow, subject: str | None) -> Iterator[Page[ProfileId]]:
    """Begin to read the people who were created in a window."""
    return source.profile_ids(window)


PROFILES = Stream(
    "profiles",
    _open_profiles,
    by_rows,
    _BATCH_ROWS,
    _FILLS,
    schedule="every daily run, from a day before its watermark on",
    probe=probe,
    cursor="updated",
)
PEOPLE = Stream(
    "people",
    _open_incomplete,
    by_rows,
    LOOKED_UP_AT_ONCE,
    (*_FILLS, loads.MISSING_PROFILES),
    schedule="every daily run, after lists and events, and at the end of a backfill: people who are incomplete",
    probe=probe,
    subject="first digits of keys",
    needs=frozenset({EVENT_OWNERS}),
    shown_as="incomplete people",
)
