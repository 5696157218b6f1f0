"""The requests of the legacy dialect. Klaviyo retired it on 2024-06-30; archives, proxies and emulators still serve it.

v1 expects the key in the query of every URL, so no URL of this dialect may be shown. v2 takes it as a header.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from itertools import islice
from typing import NamedTuple, TypeVar

import msgspec

from klaviyo_pg import rows
from klaviyo_pg.errors import Incomplete, NotFound, TooMuch
from klaviyo_pg.klaviyo import properties
from klaviyo_pg.klaviyo.client import Client
from klaviyo_pg.klaviyo.collections import in_parts, refuse_circle
from klaviyo_pg.klaviyo.dialect import Dialect
from klaviyo_pg.klaviyo.documents import DocumentDecoder, records, reject
from klaviyo_pg.klaviyo.legacy import rows as legacy_rows
from klaviyo_pg.klaviyo.legacy import shapes
from klaviyo_pg.klaviyo.people_cache import KnownPeople, PendingPeople, PeopleCache
from klaviyo_pg.traffic import Traffic
from klaviyo_pg.windows import FULL_READ, AnyWindow, Window

_PAGE = "100"  # rows, the most that v1 allows
_SMALL_PAGE = "10"  # rows, requested if larger pages take too long
_EXCLUSIONS_PAGE = "5000"
_ADDRESSES_PER_LOOKUP = 100  # the most that v2 allows
_MOST_READS = 5  # of one page, while rows leave the collection
_MOVING = "others kept leaving while they were read. The next run reads all of them again."
_ALL_METRICS = "api/v1/metrics/timeline"
_EARLIEST = 10**9  # `since` is a Unix time of ten digits

_TIMELINE = DocumentDecoder(shapes.Timeline, data=shapes.Event)
_NUMBERED = DocumentDecoder(shapes.Numbered, data=msgspec.Raw)
_RECORDS = DocumentDecoder(shapes.Records, records=msgspec.Raw)

Row = TypeVar("Row")


class _TimelinePage(NamedTuple):
    """A page of a timeline, the records that were taken out of it, and the time of the request."""

    page: shapes.Timeline
    rejects: list[rows.Reject]
    read_at: datetime


class LegacySource:
    """A Klaviyo account through v1 and v2. See `klaviyo_pg.klaviyo.source.Source`."""

    dialect = Dialect(
        looks_up_memberships=True,
        lists_people=False,
        reads_attributions=False,
        reads_messages=False,
        reads_reports=False,
        event_requests_per_minute=None,
        people_requests_per_minute=None,
        count_interval=timedelta(days=1),
        longest_count=timedelta(days=31),  # the longest time that one export may span
        exclusion_reasons=(None,),
    )

    def __init__(self, v1: Client, v2: Client, events_page_size: int = int(_PAGE)) -> None:
        self._v1, self._v2 = v1, v2
        self._events_page = str(min(int(_PAGE), events_page_size))

    @property
    def events_per_page(self) -> int:
        return int(self._events_page)

    @property
    def traffic(self) -> Traffic:
        return Traffic.total([self._v1.traffic, self._v2.traffic])

    @property
    def api_time(self) -> datetime | None:
        return max((each.api_time for each in (self._v1, self._v2) if each.api_time), default=None)

    @cached_property
    def reads_all_metrics_at_once(self) -> bool:
        """False if there is no timeline of all metrics, as in archives that only have one for each metric.

        Asking for it takes a request.
        """
        try:
            self._v1.get(_ALL_METRICS, {"since": str(_EARLIEST), "sort": "asc", "count": "1"})
        except NotFound:
            return False
        return True

    def account(self) -> rows.Account | None:
        """Return None, because these APIs do not have it. A small request detects a wrong key or a wrong dialect."""
        self._v1.get("api/v1/metrics", {"page": "0", "count": "1"})
        return None

    def metrics(self) -> Iterator[rows.Page[rows.Metric]]:
        return self._numbered("api/v1/metrics", shapes.Metric, shapes.Metric.row)

    def custom_metrics(self) -> Iterator[rows.Page[rows.CustomMetric]]:
        """Return no pages: these APIs have no custom metrics."""
        return iter(())

    def mapped_metrics(self) -> Iterator[rows.Page[rows.MappedMetric]]:
        """Return no pages: these APIs have no mapped metrics."""
        return iter(())

    def campaigns(self) -> Iterator[rows.Page[rows.Campaign]]:
        return self._numbered("api/v1/campaigns", shapes.Campaign, shapes.Campaign.row)

    def flows(self) -> Iterator[rows.Page[rows.Flow]]:
        return self._numbered("api/v1/flows", shapes.Flow, shapes.Flow.row)

    def lists(self) -> Iterator[rows.Page[rows.Group]]:
        read_at = datetime.now(UTC)
        names, rejects = legacy_rows.read_records(
            self._v2.get("api/v2/lists", read=records), msgspec.json.Decoder(shapes.ListName).decode
        )
        groups = []
        for name in names:
            try:
                details = self._v2.get(f"api/v2/list/{name.list_id}", read=legacy_rows.reader_of(shapes.ListDetails))
                created, updated = shapes.moment(details.created), shapes.moment(details.updated)
                groups.append(rows.Group(name.list_id, name.list_name, created, updated))
            except NotFound:
                continue  # deleted since the lists were read
            except ValueError as error:
                rejects.append(reject(msgspec.json.encode([name, details]), error))
        yield rows.Page(groups, rejects, read_at)

    def segments(self) -> Iterator[rows.Page[rows.Group]]:
        """Read the segments that campaigns are sent to, because v2 does not list segments.

        A campaign that cannot be read may hide a segment.
        """
        for page in self._numbered("api/v1/campaigns", shapes.Campaign, legacy_rows.segments):
            rejects = [each._replace(reason=f"The segments of a campaign: {each.reason}") for each in page.rejects]
            groups = [group for groups in page.rows for group in groups]
            yield rows.Page(groups, rejects, page.read_at, incomplete=page.incomplete)

    def templates(self, window: AnyWindow) -> Iterator[rows.Page[rows.Template]]:
        """Return no pages: templates are read through the current dialect only."""
        return iter(())

    def forms(self, window: AnyWindow) -> Iterator[rows.Page[rows.Form]]:
        """Return no pages: these APIs have no forms."""
        return iter(())

    def images(self, window: AnyWindow) -> Iterator[rows.Page[rows.Image]]:
        """Return no pages: these APIs have no images."""
        return iter(())

    def records(self, stream: str, window: AnyWindow, subject: str | None = None) -> Iterator[rows.Page[rows.Record]]:
        """Return no pages: what is read on request is read through the current dialect only."""
        return iter(())

    def tags(self) -> Iterator[rows.Page[rows.Tag | rows.TagGroup]]:
        """Return no pages: these APIs have no tags."""
        return iter(())

    def campaign_reports(self, window: Window, metric_id: str) -> Iterator[rows.Page[rows.Report]]:
        """Return no pages: these APIs have no reports."""
        return iter(())

    def flow_reports(self, window: Window, metric_id: str) -> Iterator[rows.Page[rows.Report]]:
        """Return no pages: these APIs have no reports."""
        return iter(())

    def events(
        self, window: AnyWindow, metric_id: str | None = None, known_people: KnownPeople | None = None
    ) -> Iterator[rows.EventPage]:
        """Read a timeline until the end of the window: it takes a time to begin at, but none to end at.

        A metric that has been deleted has no events. Raises NotFound if there is no timeline of all metrics.
        """
        path = _ALL_METRICS if metric_id is None else f"api/v1/metric/{metric_id}/timeline"
        _, end = window.seconds
        try:
            for page, rejects, read_at in self._timeline(path, _since(window)):
                known = known_people or PendingPeople(PeopleCache())
                event_page = legacy_rows.event_page(page.data, window, known, rejects, read_at)
                properties.check_metric(event_page.events, metric_id)
                yield event_page
                if page.data and min(event.timestamp for event in page.data) >= end:
                    return
        except NotFound:
            if metric_id is None:
                raise

    def _timeline(self, path: str, since: str) -> Iterator[_TimelinePage]:
        """Read the pages of a timeline. Raises BadAnswer for a page that has already been read."""
        token: str | None = since
        followed, count = set[str](), self._events_page
        smallest = min(count, _SMALL_PAGE, key=int)
        while token is not None:
            refuse_circle(token, followed, path)
            read_at = datetime.now(UTC)
            query = {"since": token, "sort": "asc", "count": count}
            try:
                page, rejects = self._v1.get(path, query, read=_TIMELINE.decode, can_ask_for_less=count != smallest)
            except TooMuch:
                if count == smallest:
                    raise
                count = smallest
                continue
            followed.add(token)
            yield _TimelinePage(page, list(rejects), read_at)
            token = page.next or None

    def beginning(self, metric_id: str, window: Window) -> rows.Beginning | None:
        query = {"since": _since(window), "sort": "asc", "count": self._events_page}
        path = f"api/v1/metric/{metric_id}/timeline"
        try:
            page, rejects = self._v1.get(path, query, read=_TIMELINE.decode, can_ask_for_less=True)
        except NotFound:
            return rows.Beginning(None, 0)  # the metric has been deleted
        times = [event.timestamp for event in page.data]
        if rejects or times != sorted(times):  # if it ignores `sort`, it need not begin with the first event
            return None
        if page.next and times and times[0] == times[-1]:  # events of one second do not show an order
            return None
        start, end = window.seconds
        within = [at for at in times if start <= at < end]
        first = datetime.fromtimestamp(min(within), UTC) if within else None
        if not page.next or (times and max(times) >= end):
            return rows.Beginning(first, len(within))
        return rows.Beginning(first, None) if first else None

    def counts(self, metric_id: str, window: Window) -> Iterator[rows.Count]:
        start = window.start
        while start < window.end:
            end = min(window.end, start + self.dialect.longest_count)
            query = {"start_date": f"{start:%Y-%m-%d}", "end_date": f"{end:%Y-%m-%d}", "unit": "day"}
            query["measurement"] = "count"
            export = self._v1.get(f"api/v1/metric/{metric_id}/export", query, read=legacy_rows.reader_of(shapes.Export))
            yield from legacy_rows.counts(export, start, end)
            start = end

    def profiles(self, window: AnyWindow) -> Iterator[rows.Page[rows.Profile]]:
        """Return no pages: these APIs do not list people. Events include them, and `people` reads the others."""
        return iter(())

    def latest_change(self, window: AnyWindow) -> datetime | None:
        return None

    def profile_ids(self, window: AnyWindow) -> Iterator[rows.Page[rows.ProfileId]]:
        """Return no pages: these APIs do not list people."""
        return iter(())

    def event_owner(self, event_id: str) -> str | None:
        """Return None: these APIs do not return single events."""
        return None

    def people(self, ids: Sequence[str]) -> Iterator[rows.Page[rows.Profile]]:
        for person_id in ids:
            read_at = datetime.now(UTC)
            try:
                people, rejects = self._v1.get(f"api/v1/person/{person_id}", read=legacy_rows.one_person)
            except NotFound:
                continue  # merged into another person, or erased
            yield rows.Page(people, rejects, read_at)

    def exclusions(
        self, reason: str | None = None, window: AnyWindow = FULL_READ
    ) -> Iterator[rows.Page[rows.Exclusion]]:
        return self._numbered("api/v1/people/exclusions", shapes.Exclusion, shapes.Exclusion.row, _EXCLUSIONS_PAGE)

    def memberships(
        self, list_id: str, window: AnyWindow, addresses: Iterable[str] = ()
    ) -> Iterator[rows.MembershipPage]:
        """Look up addresses in the list, and read who is suppressed for it."""
        parts = {
            "members": partial(self._members, list_id, addresses),
            "suppressions": partial(self._suppressed, list_id),
        }
        return in_parts(
            parts, lambda incomplete: rows.MembershipPage((), (), (), datetime.now(UTC), incomplete=incomplete)
        )

    def _members(self, list_id: str, addresses: Iterable[str]) -> Iterator[rows.MembershipPage]:
        for batch in _batches(addresses):
            yield self._looked_up(list_id, batch)

    def _looked_up(self, list_id: str, addresses: list[str]) -> rows.MembershipPage:
        read_at = datetime.now(UTC)
        by_kind = {
            "emails": [address for address in addresses if "@" in address],
            "phone_numbers": [address for address in addresses if "@" not in address],
        }
        body = {kind: values for kind, values in by_kind.items() if values}
        members = self._v2.get(f"api/v2/list/{list_id}/members", body=body, read=records)
        subscribed, unreadable = legacy_rows.read_records(
            self._v2.get(f"api/v2/list/{list_id}/subscribe", body=body, read=records), shapes.decode_member
        )
        subscriber_ids = {member.id for member in subscribed}

        def row(raw: bytes) -> rows.Membership:
            member = shapes.decode_member(raw)
            return rows.Membership(list_id, member.id, shapes.moment(member.created), member.id in subscriber_ids)

        memberships, rejects = legacy_rows.read_records(members, row)
        return rows.MembershipPage(memberships, (), [*rejects, *unreadable], read_at)

    def _suppressed(self, list_id: str) -> Iterator[rows.MembershipPage]:
        def row(raw: bytes) -> rows.Suppression:
            record = shapes.decode_member(raw)
            return rows.Suppression(list_id, record.id, shapes.moment(record.created), record.reason)

        for page in self._marked(f"api/v2/list/{list_id}/exclusions/all", row):
            yield rows.MembershipPage((), page.rows, page.rejects, page.read_at)

    def segment_members(self, segment_id: str, window: AnyWindow) -> Iterator[rows.Page[rows.Membership]]:
        """Read all members of a segment. These APIs do not say when they became members."""
        if window != FULL_READ:
            return iter(())
        return self._marked(
            f"api/v2/group/{segment_id}/members/all",
            lambda raw: rows.Membership(segment_id, shapes.decode_member(raw).id, None),
        )

    def _marked(self, path: str, row: Callable[[bytes], Row]) -> Iterator[rows.Page[Row]]:
        """Read the pages of a v2 collection, each of which has the marker of the next one."""
        marker: int | str | None = ""
        followed = set[int | str]()
        while marker is not None:
            refuse_circle(marker, followed, path)
            followed.add(marker)
            read_at = datetime.now(UTC)
            query = {"marker": str(marker)} if marker != "" else {}
            page, unreadable = self._v2.get(path, query, read=_RECORDS.decode)
            readable, rejects = legacy_rows.read_records(page.records, row)
            yield rows.Page(readable, [*unreadable, *rejects], read_at)
            marker = page.marker

    def _numbered(
        self, path: str, shape: type[msgspec.Struct], row: Callable[..., Row], count: str = _PAGE
    ) -> Iterator[rows.Page[Row]]:
        """Read the numbered pages of a v1 collection. The last one is incomplete if rows may be missing from them."""
        decode = msgspec.json.Decoder(shape).decode
        numbers = _PageNumbers()
        while (number := numbers.next) is not None:
            if numbers.are_moving:
                yield rows.Page((), (), datetime.now(UTC), incomplete=Incomplete(["some rows"], _MOVING))
                return
            read_at = datetime.now(UTC)
            page, unreadable = self._v1.get(path, {"page": str(number), "count": count}, read=_NUMBERED.decode)
            readable, rejects = legacy_rows.read_records(page.data, lambda raw: row(decode(raw)))
            yield rows.Page(readable, [*unreadable, *rejects], read_at)
            numbers.follow(number, page, len(page.data) + len(unreadable))


class _PageNumbers:
    """The numbers of the pages of a v1 collection, in the order in which to read them.

    A row that leaves the collection while it is read moves those after it forward. Some of them can get to a page that
    was read before. A smaller total shows it, and such pages are read again.
    """

    def __init__(self) -> None:
        self.next: int | None = 0
        self._rows_per_page, self._total = 1, 0
        self._reads = Counter[int]()

    @property
    def are_moving(self) -> bool:
        """True if rows move so often that reading on may not end."""
        return self._reads[self.next or 0] >= _MOST_READS

    def follow(self, number: int, page: shapes.Numbered, row_count: int) -> None:
        """Determine the page after one that has so many rows. One without rows is the last, whatever its total says."""
        self._reads[number] += 1
        self._rows_per_page = max(self._rows_per_page, row_count)
        moved, self._total = self._total - page.total, page.total
        if moved > 0:
            self.next = max(0, number - 1 - (moved - 1) // self._rows_per_page)
        elif not row_count or page.end >= page.total - 1:
            self.next = None
        else:
            self.next = number + 1


def _since(window: AnyWindow) -> str:
    """Return the `since` of a timeline that includes the start of a window: `since` itself is exclusive."""
    return str(_EARLIEST if window.start is None else max(_EARLIEST, int(window.start.timestamp()) - 1))


def _batches(addresses: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(addresses)
    while batch := list(islice(remaining, _ADDRESSES_PER_LOOKUP)):
        yield batch
