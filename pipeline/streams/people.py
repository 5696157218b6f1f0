"""People: profiles that changed, and profiles that lists and events name but nothing has described yet."""

from collections.abc import Iterator, Sequence
from functools import partial

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import lookups
from klaviyo_pg.rows import Page, Profile
from pipeline.batch import Batch
from pipeline.run import transact
from pipeline.streams.stream import Reading, Reads, Stream, by_rows, collected
from transforms import people

_BATCH_ROWS = 2_000  # people in one transaction: a page has a hundred
_FILLS = (loads.MEMBERS, loads.MEMBER_ATTRIBUTES, loads.MEMBER_CONSENTS, loads.LIST_SUPPRESSIONS_OF_PEOPLE)


def _open_profiles(reading: Reading) -> Reads:
    return Reads(reading.source.profiles(reading.window), partial(people_batch, reading))


def _open_unknown(reading: Reading) -> Reads:
    return Reads(_unknown_people(reading), partial(people_batch, reading))


def _unknown_people(reading: Reading) -> Iterator[Page[Profile]]:
    after = ""
    while ids := _unknown_ids(reading, after):
        yield from reading.source.people(ids)
        after = ids[-1]


def _unknown_ids(reading: Reading, after: str) -> list[str]:
    return transact(reading.session, reading.run, lambda account: lookups.unknown_members(account, after, _BATCH_ROWS))


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
    schedule="every daily run, after lists and events: people that they name and the warehouse lacks",
)
