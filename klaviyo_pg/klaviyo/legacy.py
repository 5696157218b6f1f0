"""The legacy dialect: v1 and v2, which Klaviyo retired on 2024-06-30; archives, proxies and emulators speak it still.

v1 wants the key in the query of each URL, so no URL of this dialect may ever be shown; v2 takes it as a header.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

import msgspec

from klaviyo_pg.errors import BadAnswer, Garbled, NotFound, TooMuch
from klaviyo_pg.klaviyo import legacy_shapes as shapes
from klaviyo_pg.klaviyo import properties, rows
from klaviyo_pg.klaviyo.documents import DocumentDecoder, is_object, records, reject
from klaviyo_pg.klaviyo.http import Client, Traffic
from klaviyo_pg.klaviyo.known import Known, KnownPeople
from klaviyo_pg.windows import Window

_PAGE = "100"  # rows of a v1 page, at most
_SMALL_PAGE = "10"  # where larger ones take too long
_EXCLUSIONS_PAGE = "5000"
_LOOKED_UP = 100  # addresses in one question, at most
_COUNTED_AT_ONCE = timedelta(days=31)  # the longest stretch of one export
_EARLIEST = 10**9  # `since` is a unix time of ten digits

_TIMELINE = DocumentDecoder(shapes.Timeline, data=shapes.Event)
_NUMBERED = DocumentDecoder(shapes.Numbered, data=msgspec.Raw)
_EXCLUDED = DocumentDecoder(shapes.Records, records=msgspec.Raw)

Row = TypeVar("Row")


class LegacySource:
    """A Klaviyo account through v1 and v2. See `klaviyo_pg.klaviyo.source.Source`."""

    reads_all_metrics_at_once = False
    looks_up_memberships = True
    events_tell_consent = True
    events_in_request = int(_PAGE)
    event_requests_a_minute: int | None = None
    counts_by = timedelta(days=1)

    def __init__(self, v1: Client, v2: Client) -> None:
        self._v1, self._v2 = v1, v2

    @property
    def traffic(self) -> Traffic:
        return Traffic.total([self._v1.traffic, self._v2.traffic])

    def account_id(self) -> str | None:
        """Not told by these APIs; asks for something small, so that a wrong key or a wrong dialect is noticed."""
        self._v1.get("api/v1/metrics", {"page": "0", "count": "1"})
        return None

    def metrics(self) -> Iterator[rows.Page[rows.Metric]]:
        return self._numbered("api/v1/metrics", shapes.Metric, shapes.Metric.row)

    def campaigns(self) -> Iterator[rows.Page[rows.Campaign]]:
        return self._numbered("api/v1/campaigns", shapes.Campaign, shapes.Campaign.row)

    def flows(self) -> Iterator[rows.Page[rows.Flow]]:
        return self._numbered("api/v1/flows", shapes.Flow, shapes.Flow.row)

    def lists(self) -> Iterator[rows.Page[rows.Group]]:
        read_at = datetime.now(UTC)
        names, rejects = _each(self._v2.get("api/v2/lists", read=records), msgspec.json.Decoder(shapes.ListName).decode)
        found = []
        for named in names:
            try:
                details = self._v2.get(f"api/v2/list/{named.list_id}", read=_as(shapes.ListDetails))
                found.append(rows.Group(named.list_id, named.list_name, shapes.moment(details.created)))
            except NotFound:
                continue  # deleted since it was listed
            except ValueError as error:
                rejects.append(reject(msgspec.json.encode([named, details]), error))
        yield rows.Page(found, rejects, read_at)

    def segments(self) -> Iterator[rows.Page[rows.Group]]:
        """Those that campaigns go to: v2 lists no segments."""
        for page in self._numbered("api/v1/campaigns", shapes.Campaign, _segments):
            yield rows.Page([group for found in page.rows for group in found], (), page.read_at)

    def events(
        self, window: Window, metric_id: str | None = None, known: KnownPeople | None = None
    ) -> Iterator[rows.EventPage]:
        """The timeline is a sequence by token; `since` takes a time to begin with, and reading stops at the end."""
        path = "api/v1/metrics/timeline" if metric_id is None else f"api/v1/metric/{metric_id}/timeline"
        _, end = window.seconds
        since: str | None = _since(window)
        followed, count = set[str](), _PAGE
        while since is not None and since not in followed:
            followed.add(since)
            read_at = datetime.now(UTC)
            try:
                page, rejects = self._v1.get(
                    path,
                    {"since": since, "sort": "asc", "count": count},
                    read=_TIMELINE.decode,
                    can_be_less=count != _SMALL_PAGE,
                )
            except NotFound:
                return  # the metric has been deleted
            except TooMuch:
                if count == _SMALL_PAGE:
                    raise
                count = _SMALL_PAGE
                followed.discard(since)
                continue
            found = _event_page(page.data, window, known or KnownPeople(), list(rejects), read_at)
            properties.check_metric(found.events, metric_id)
            yield found
            if page.next in followed:
                raise BadAnswer(f"The API answered with a page of {path} that has been read before.")
            is_beyond = bool(page.data) and min(event.timestamp for event in page.data) >= end
            since = None if is_beyond else page.next or None

    def beginning(self, metric_id: str, window: Window) -> rows.Beginning | None:
        query = {"since": _since(window), "sort": "asc", "count": _PAGE}
        try:
            path = f"api/v1/metric/{metric_id}/timeline"
            page, rejects = self._v1.get(path, query, read=_TIMELINE.decode, can_be_less=True)
        except NotFound:
            return rows.Beginning(None, 0)  # the metric has been deleted
        start, end = window.seconds
        times = [event.timestamp for event in page.data]
        if rejects or times != sorted(times):  # in another order than asked for, it need not begin with the first
            return None
        if page.next and times and times[0] == times[-1]:  # in one second there is no order to be seen
            return None
        within = [at for at in times if start <= at < end]
        first = datetime.fromtimestamp(min(within), UTC) if within else None
        if not page.next or (times and max(times) >= end):
            return rows.Beginning(first, len(within))
        return rows.Beginning(first, None) if first else None

    def counts(self, metric_id: str, window: Window) -> Iterator[rows.Count]:
        assert window.start is not None and window.end is not None
        start = window.start
        while start < window.end:
            end = min(window.end, start + _COUNTED_AT_ONCE)
            query = {"start_date": f"{start:%Y-%m-%d}", "end_date": f"{end:%Y-%m-%d}", "unit": "day"}
            query["measurement"] = "count"
            export = self._v1.get(f"api/v1/metric/{metric_id}/export", query, read=_as(shapes.Export))
            yield from _counts(export, start, end)
            start = end

    def profiles(self, window: Window) -> Iterator[rows.Page[rows.Profile]]:
        """Nothing: these APIs list no people. They come with events; `people` completes the others."""
        return iter(())

    def people(self, ids: Sequence[str]) -> Iterator[rows.Page[rows.Profile]]:
        for person_id in ids:
            read_at = datetime.now(UTC)
            try:
                found, rejects = self._v1.get(f"api/v1/person/{person_id}", read=_one_person)
            except NotFound:
                continue  # merged into another, or erased
            yield rows.Page(found, rejects, read_at)

    def exclusions(self) -> Iterator[rows.Page[rows.Exclusion]]:
        return self._numbered("api/v1/people/exclusions", shapes.Exclusion, shapes.Exclusion.row, _EXCLUSIONS_PAGE)

    def memberships(self, list_id: str, window: Window, addresses: Iterable[str] = ()) -> Iterator[rows.MembershipPage]:
        """Look up addresses in the list, and read who is excluded from it."""
        for batch in _batches(addresses):
            yield self._looked_up(list_id, batch)
        yield from self._excluded(list_id)

    def _looked_up(self, list_id: str, addresses: list[str]) -> rows.MembershipPage:
        read_at = datetime.now(UTC)
        question = {
            "emails": [address for address in addresses if "@" in address],
            "phone_numbers": [address for address in addresses if "@" not in address],
        }
        asked = {name: values for name, values in question.items() if values}
        members = self._v2.get(f"api/v2/list/{list_id}/members", body=asked, read=records)
        subscribed, unreadable = _each(
            self._v2.get(f"api/v2/list/{list_id}/subscribe", body=asked, read=records), shapes.decode_member
        )
        may_be_written_to = {member.id for member in subscribed}

        def row(raw: bytes) -> rows.Membership:
            member = shapes.decode_member(raw)
            return rows.Membership(list_id, member.id, shapes.moment(member.created), member.id in may_be_written_to)

        found, rejects = _each(members, row)
        return rows.MembershipPage(found, (), [*rejects, *unreadable], read_at)

    def _excluded(self, list_id: str) -> Iterator[rows.MembershipPage]:
        def row(raw: bytes) -> rows.Suppression:
            record = shapes.decode_member(raw)
            return rows.Suppression(list_id, record.id, shapes.moment(record.created))

        marker: int | str | None = ""
        followed = set[int | str]()
        while marker is not None:
            followed.add(marker)
            read_at = datetime.now(UTC)
            query = {"marker": str(marker)} if marker != "" else {}
            page, unreadable = self._v2.get(f"api/v2/list/{list_id}/exclusions/all", query, read=_EXCLUDED.decode)
            suppressions, rejects = _each(page.records, row)
            yield rows.MembershipPage((), suppressions, [*unreadable, *rejects], read_at)
            if page.marker in followed:
                raise BadAnswer("The API answered with a page of list exclusions that has been read before.")
            marker = page.marker

    def _numbered(
        self, path: str, shape: type[msgspec.Struct], row: Callable[..., Row], count: str = _PAGE
    ) -> Iterator[rows.Page[Row]]:
        """All numbered pages of a v1 collection. A page without rows is the last, whatever it says of the total."""
        decode = msgspec.json.Decoder(shape).decode
        number, is_last = 0, False
        while not is_last:
            read_at = datetime.now(UTC)
            page, unreadable = self._v1.get(path, {"page": str(number), "count": count}, read=_NUMBERED.decode)
            found, rejects = _each(page.data, lambda raw: row(decode(raw)))
            yield rows.Page(found, [*unreadable, *rejects], read_at)
            number, is_last = number + 1, not (page.data or unreadable) or page.end >= page.total - 1


def _since(window: Window) -> str:
    """What a timeline has to begin behind, as it takes `since` to be exclusive."""
    return str(_EARLIEST if window.start is None else max(_EARLIEST, int(window.start.timestamp()) - 1))


def _as(kind: type[Row]) -> Callable[[bytes], Row]:
    """Reads an answer as one thing of a kind."""

    def read(body: bytes) -> Row:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Garbled(f"The answer is not one of the legacy API ({error}): check KLAVIYO_BASE_URL.") from None

    return read


def _one_person(body: bytes) -> tuple[list[rows.Profile], list[rows.Reject]]:
    found, rejects = _each([body], _person)
    if rejects and not is_object(body):
        raise Garbled("The answer is not a person of the legacy API: check KLAVIYO_BASE_URL.")
    return found, rejects


def _each(found: Iterable[msgspec.Raw | bytes], row: Callable[[bytes], Row]) -> tuple[list[Row], list[rows.Reject]]:
    """The rows of records, and the records that are none."""
    read, rejects = [], []
    for record in map(bytes, found):
        try:
            read.append(row(record))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            rejects.append(reject(record, error))
    return read, rejects


def _counts(answer: shapes.Export, start: datetime, end: datetime) -> Iterator[rows.Count]:
    """Counts by day; days outside of what was asked for are left out."""
    day = timedelta(days=1)
    for series in answer.results[0].data if answer.results else ():
        try:
            begins, events = shapes.moment(series.date), round(sum(series.values))
        except (ValueError, OverflowError) as error:
            raise Garbled(f"The answer is not an export of the legacy API ({error}).") from None
        if events and begins is not None and start <= begins < end:
            yield rows.Count(begins, min(end, begins + day), events)


def _segments(campaign: shapes.Campaign) -> list[rows.Group]:
    groups = [*(campaign.lists or []), *(campaign.excluded_lists or [])]
    return [group.row() for group in groups if group.list_type == "segment"]


def _person(raw: bytes) -> rows.Profile:
    return shapes.person(shapes.decode_person(raw))


def _batches(addresses: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(addresses)
    while batch := list(islice(waiting, _LOOKED_UP)):
        yield batch


def _event_page(
    found: list[shapes.Event], window: Window, known: KnownPeople, rejects: list[rows.Reject], read_at: datetime
) -> rows.EventPage:
    start, end = window.seconds
    within = [event for event in found if start <= event.timestamp < end]
    said = properties.read([event.id for event in within], [event.event_properties for event in within])
    stored = said.readable(within, rejects)
    people: list[rows.Profile] = []
    met = [_met(event.person, known, people, rejects) for event in stored]
    events = properties.events(
        ids=[event.id for event in stored],
        at=[event.timestamp for event in stored],
        metric_ids=[event.statistic_id for event in stored],
        profile_ids=[person and person.id for person in met],
        emails=[person and person.email for person in met],
        properties=[event.event_properties for event in stored],
        known=said.known,
    )
    return rows.EventPage(events, people, rejects, read_at)


def _met(raw: msgspec.Raw, known: KnownPeople, people: list[rows.Profile], rejects: list[rows.Reject]) -> Known | None:
    """The person of an event; put among `people` where not known yet, among `rejects` where unreadable."""
    record = bytes(raw)
    if record == b"null":
        return None
    person = known.get(record)
    if person is not None:
        return person
    found, rejected = _each([raw], _person)
    rejects += rejected
    for each in found:
        person = Known(each.id, each.email or None)
        known.add(record, person)
        people.append(each)
    return person
