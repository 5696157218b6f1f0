"""People: profiles that changed, profiles that only lists and events name, and members with incomplete records."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.rows import Page, Profile
from pipeline.batch import Batch
from pipeline.run import transact
from pipeline.streams.stream import Reading, Reads, Stream, by_rows, collected
from transforms import people

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


def people_batch(reading: Reading, pages: Sequence[Page[Profile]]) -> Batch:
    """Make a batch of people who were read with their consents."""
    if not pages:
        return Batch()
    rows, rejects = collected(pages)
    made = people.people(rows, loads.MEMBERS, pages[0].read_at, reading.integration_id)
    consents = people.consents(rows, reading.integration_id)
    frames = [
        (loads.MEMBERS, made.members),
        (loads.MEMBER_ATTRIBUTES, made.attributes),
        (loads.MEMBER_CONSENTS, consents.consents),
        (loads.LIST_SUPPRESSIONS_OF_PEOPLE, consents.suppressions),
    ]
    rejected = {"members": rejects, "member_attributes": made.rejects}
    return Batch(frames, rejected, {"members": made.nul_characters, "member_consents": consents.nul_characters})


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
