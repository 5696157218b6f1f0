"""People: profiles that changed, profiles that only lists and events name, and members with incomplete records."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple

import polars as pl

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import details, lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.rows import Page, Profile
from pipeline.batch import Batch, protection_of
from pipeline.run import transact
from pipeline.streams.stream import Reading, Reads, Stream, by_rows, collected
from transforms import people
from transforms.digests import NO_DIGEST, digest_of

_BATCH_ROWS = 2_000  # people in one transaction: a page has a hundred
_INCOMPLETE_FOR = timedelta(days=7)  # after that, the source has no more about a person than the warehouse
_FILLS = (loads.MEMBERS, loads.MEMBER_ATTRIBUTES, loads.MEMBER_CONSENTS, loads.LIST_SUPPRESSIONS_OF_PEOPLE)


def _open_profiles(reading: Reading) -> Reads:
    return Reads(reading.source.profiles(reading.window), partial(people_batch, reading))


def _open_unknown(reading: Reading) -> Reads:
    return Reads(_unknown_people(reading), partial(people_batch, reading))


def _unknown_people(reading: Reading) -> Iterator[Page[Profile]]:
    yield from _by_ids(reading, lookups.unknown_members)
    if not reading.source.lists_people:
        since = reading.run.as_of - _INCOMPLETE_FOR
        yield from _by_ids(reading, lambda account, *page: lookups.incomplete_members(account, since, *page))


def _by_ids(reading: Reading, look_up: Callable[[Account, str, int], list[str]]) -> Iterator[Page[Profile]]:
    """Read the people whose ids `look_up` returns, starting after an id."""

    def next_ids(after: str) -> list[str]:
        return transact(reading.session, reading.run, lambda account: look_up(account, after, _BATCH_ROWS))

    after = ""
    while ids := next_ids(after):
        yield from reading.source.people(ids)
        after = ids[-1]


class _Read(NamedTuple):
    """People by what a batch has to store of their details: nothing, all of them, or what differs.

    `digests` are those to store, by id.
    """

    unchanged: list[Profile]
    new: list[Profile]
    changed: list[Profile]
    digests: dict[str, int]


def people_batch(reading: Reading, pages: Sequence[Page[Profile]]) -> Batch:
    """Make a batch of people who were read with their consents.

    Their details, of which each person has many rows, are left out if the digest shows that they are stored.
    """
    if not pages:
        return Batch()
    rows, rejects = collected(pages)
    read, at, integration_id = people.latest(rows), pages[0].read_at, reading.integration_id
    unchanged, new, changed, digests = _compared(reading, read)
    attributes = [people.attributes(each, at, integration_id) for each in (new, changed)]
    consents = [people.consents(each, integration_id) for each in (new, changed)]
    digests |= dict.fromkeys((each for made in attributes for each in made.unstorable), NO_DIGEST)
    has_digests = reading.source.lists_people
    load = loads.MEMBERS if has_digests else loads.UNDIGESTED_MEMBERS
    members = people.members(read, load, at, integration_id, digests if has_digests else {})
    frames = [
        (load, members.frame),
        *zip((loads.NEW_MEMBER_ATTRIBUTES, loads.MEMBER_ATTRIBUTES), (each.frame for each in attributes), strict=True),
        *zip((loads.NEW_MEMBER_CONSENTS, loads.MEMBER_CONSENTS), (each.consents for each in consents), strict=True),
        (loads.LIST_SUPPRESSIONS_OF_PEOPLE, pl.concat(each.suppressions for each in consents)),
    ]
    nul_characters = {
        "members": members.nul_characters + sum(each.nul_characters for each in attributes),
        "member_consents": sum(each.nul_characters for each in consents),
    }
    rejected = {"members": rejects, "member_attributes": [reject for each in attributes for reject in each.rejects]}
    return Batch(frames, rejected, nul_characters, _detail_rows(unchanged))


def _compared(reading: Reading, read: Sequence[Profile]) -> _Read:
    """Compare people with what is stored of them.

    If another reader stores one of them before this batch is, neither the digest nor the details are overwritten by
    what was left out here. The next run reads the person again, because of the overlap.
    """
    digest = digest_of(reading.integration_id, protection_of(reading.run.settings))
    ids = [each.id for each in read]
    stored = transact(reading.session, reading.run, lambda account: details.stored(account, ids))
    result = _Read([], [], [], {})
    for person in read:
        known = stored.get(person.id)
        made = digest(person) if reading.source.lists_people else NO_DIGEST
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


PROFILES = Stream(
    "profiles",
    _open_profiles,
    by_rows,
    _BATCH_ROWS,
    _FILLS,
    schedule="every daily run, from a day before its watermark on",
    cursor="updated",
)
PEOPLE = Stream(
    "people",
    _open_unknown,
    by_rows,
    _BATCH_ROWS,
    _FILLS,
    schedule="every daily run, after lists and events: people who are missing or incomplete",
)
