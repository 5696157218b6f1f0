"""The rows of the legacy dialect, read from records and responses. Sends no requests."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TypeVar

import msgspec

from klaviyo_pg import rows
from klaviyo_pg.errors import Garbled
from klaviyo_pg.klaviyo import properties
from klaviyo_pg.klaviyo.documents import is_object, read_repaired
from klaviyo_pg.klaviyo.legacy import shapes
from klaviyo_pg.klaviyo.people_cache import KnownPeople, KnownPerson
from klaviyo_pg.windows import DAY, AnyWindow

Row = TypeVar("Row")


def reader_of(kind: type[Row]) -> Callable[[bytes], Row]:
    """Return a function that reads a response as one object of a type, or raises Garbled."""

    def read(body: bytes) -> Row:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Garbled(f"The response is not one of the legacy API ({error}). Check KLAVIYO_BASE_URL.") from None

    return read


def one_person(body: bytes) -> tuple[list[rows.Profile], list[rows.Reject]]:
    """Return the person of a response, or the record that cannot be read. Raises Garbled if it is no person."""
    people, rejects = read_records([body], _person)
    if rejects and not is_object(body):
        raise Garbled("The response is not a person of the legacy API. Check KLAVIYO_BASE_URL.")
    return people, rejects


def read_records(
    records: Iterable[msgspec.Raw | bytes], row: Callable[[bytes], Row]
) -> tuple[list[Row], list[rows.Reject]]:
    """Return the rows of records, and the records that cannot be read."""
    readable, rejects = [], []
    for record in map(bytes, records):
        try:
            readable.append(row(record))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            repaired, originals = read_repaired(record, row, error)
            readable += repaired
            rejects += originals
    return readable, rejects


def counts(export: shapes.Export, start: datetime, end: datetime) -> Iterator[rows.Count]:
    """Yield the counts by day, without days that were not requested. Raises Garbled if they cannot be read."""
    for series in export.results[0].data if export.results else ():
        try:
            begins, events = shapes.moment(series.date), round(sum(series.values))
        except (ValueError, OverflowError) as error:
            raise Garbled(
                f"The response is not an export of the legacy API ({error}). Check KLAVIYO_BASE_URL."
            ) from None
        if events and begins is not None and start <= begins < end:
            yield rows.Count(begins, min(end, begins + DAY), events)


def segments(campaign: shapes.Campaign) -> list[rows.Group]:
    """Return the segments that a campaign was sent to, or not sent to: there is no other list of segments."""
    groups = [*(campaign.lists or []), *(campaign.excluded_lists or [])]
    return [group.row() for group in groups if group.list_type == "segment"]


def _person(raw: bytes) -> rows.Profile:
    return shapes.person(shapes.decode_person(raw))


def event_page(
    events: list[shapes.Event],
    window: AnyWindow,
    known_people: KnownPeople,
    rejects: list[rows.Reject],
    read_at: datetime,
) -> rows.EventPage:
    """Return the events of a page that are in the window, and the people in them who are not known yet."""
    start, end = window.seconds
    within = [event for event in events if start <= event.timestamp < end]
    read = properties.read([event.id for event in within], [event.event_properties for event in within])
    readable = read.readable(within, rejects)
    new: list[rows.Profile] = []
    people = [_person_of(event, known_people, new, rejects) for event in readable]
    columns = properties.events(
        ids=[event.id for event in readable],
        at=[event.timestamp for event in readable],
        metric_ids=[event.statistic_id for event in readable],
        profile_ids=[person and person.id for person in people],
        emails=[person and person.email for person in people],
        properties=[event.event_properties for event in readable],
        extracted=read.extracted,
    )
    return rows.EventPage(columns, new, rejects, read_at)


def _person_of(
    event: shapes.Event, known_people: KnownPeople, new: list[rows.Profile], rejects: list[rows.Reject]
) -> KnownPerson | None:
    """Return the person of an event. Adds a person who is not known yet to `new`, an unreadable one to the rejects.

    The event of an unreadable person still has the person's ID, if that is readable.
    """
    record = bytes(event.person)
    if record == b"null":
        return None
    person = known_people.get(record)
    if person is not None:
        return person
    people, rejected = read_records([record], _person)
    rejects += rejected
    if rejected:
        return next((KnownPerson(each, None) for each in read_records([record], shapes.person_id)[0]), None)
    [row] = people
    person = KnownPerson(row.id, row.email or None)
    known_people.add(record, person)
    new.append(row)
    return person
