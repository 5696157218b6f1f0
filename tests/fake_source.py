"""The source that reads an account in memory: `klaviyo_pg.klaviyo.source.Source`, page by page."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from klaviyo_pg.errors import NotFound
from klaviyo_pg.klaviyo.people_cache import KnownPeople, KnownPerson
from klaviyo_pg.rows import (
    Account,
    Attribution,
    Beginning,
    Campaign,
    Count,
    CustomMetric,
    EventPage,
    Events,
    Exclusion,
    Flow,
    Form,
    Group,
    Image,
    MappedMetric,
    Membership,
    MembershipPage,
    Metric,
    Page,
    Profile,
    ProfileId,
    Record,
    Reject,
    Report,
    Tag,
    TagGroup,
    Template,
)
from klaviyo_pg.traffic import Traffic
from klaviyo_pg.windows import FULL_READ, AnyWindow, Window, floor
from tests.fake_requests import Request

if TYPE_CHECKING:  # the account opens its source
    from tests.fakes import Event, FakeAccount

_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
Row = TypeVar("Row")


class FakeSource:
    """A source that reads a `FakeAccount`. See `klaviyo_pg.klaviyo.source.Source`.

    Like a real one it must not be used by two threads at once, which it checks.
    """

    def __init__(self, account: FakeAccount) -> None:
        self._account = account
        self._in_use = threading.Lock()
        self.dialect = account.dialect
        self.reads_all_metrics_at_once = account.reads_all_metrics_at_once
        self.events_per_page = account.events_per_page
        self.traffic = Traffic()

    @property
    def api_time(self) -> datetime | None:
        clock = self._account.api_now or self._account.now
        return clock()

    def account(self) -> Account | None:
        self._request(Request("account", None, FULL_READ, 0))
        account_id = self._account.account_id
        return Account(account_id, **self._account.described) if account_id else None

    def metrics(self) -> Iterator[Page[Metric]]:
        return self._collection("metrics", self._account.metrics)

    def custom_metrics(self) -> Iterator[Page[CustomMetric]]:
        return self._collection("custom_metrics", self._account.custom_metrics)

    def mapped_metrics(self) -> Iterator[Page[MappedMetric]]:
        return self._collection("mapped_metrics", self._account.mapped_metrics)

    def campaigns(self) -> Iterator[Page[Campaign]]:
        return self._collection("campaigns", self._account.campaigns)

    def flows(self) -> Iterator[Page[Flow]]:
        return self._collection("flows", self._account.flows)

    def lists(self) -> Iterator[Page[Group]]:
        return self._collection("lists", self._account.lists)

    def segments(self) -> Iterator[Page[Group]]:
        return self._collection("segments", self._account.segments)

    def tags(self) -> Iterator[Page[Tag | TagGroup]]:
        return self._collection("tags", self._account.tags)

    def campaign_reports(self, window: Window, metric_id: str) -> Iterator[Page[Report]]:
        return self._reports("campaign_reports", window, metric_id)

    def flow_reports(self, window: Window, metric_id: str) -> Iterator[Page[Report]]:
        return self._reports("flow_reports", window, metric_id)

    def _reports(self, kind: str, window: Window, metric_id: str) -> Iterator[Page[Report]]:
        rows = self._account.reports.get(kind, ())
        within = [
            row._replace(metric_id=metric_id) for row in rows if window.start.date() <= row.day < window.end.date()
        ]
        for page, rejects in self._pages(kind, metric_id, window, within, self._account.rows_per_page):
            yield Page(page, rejects, self._account.now())

    def exclusions(self, reason: str | None = None, window: AnyWindow = FULL_READ) -> Iterator[Page[Exclusion]]:
        """Read the exclusions, with a reason those that have it. Number N belongs to a profile created on day N."""
        if reason is None:
            yield from self._collection("exclusions", self._account.exclusions)
            return
        start, end = window.seconds
        days = [(each, _LONG_AGO + timedelta(days=day)) for day, each in enumerate(self._account.exclusions)]
        within = [(each, at) for each, at in days if reason == each.reason and start <= at.timestamp() < end]
        for page, rejects in self._pages("exclusions", reason, window, within, self._account.rows_per_page):
            yield Page([each for each, _ in page], rejects, self._account.now(), page[-1][1] if page else None)
        if incomplete := self._account.incomplete.get("exclusions"):
            yield Page((), (), self._account.now(), incomplete=incomplete)

    def _collection(self, kind: str, rows: Sequence[Row]) -> Iterator[Page[Row]]:
        for page, rejects in self._pages(kind, None, FULL_READ, rows, self._account.rows_per_page):
            yield Page(page, rejects, self._account.now())
        if incomplete := self._account.incomplete.get(kind):
            yield Page((), (), self._account.now(), incomplete=incomplete)

    def events(
        self, window: AnyWindow, metric_id: str | None = None, known_people: KnownPeople | None = None
    ) -> Iterator[EventPage]:
        events = self._events(window, metric_id)
        for page, rejects in self._pages("events", metric_id, window, events, self.events_per_page):
            people = self._new_people(page, known_people)
            attributions, hidden = self._attributions(page), self._account.hidden_attributions
            yield EventPage(self._columns(page), people, rejects, self._account.now(), None, attributions, hidden)

    def _events(self, window: AnyWindow, metric_id: str | None) -> list[Event]:
        """Return the events of a window in order of time."""
        start, end = window.seconds
        return sorted(
            (
                event
                for event in self._account.events
                if start <= event.at.timestamp() < end and metric_id in (None, event.metric_id)
            ),
            key=lambda event: (event.at, event.id),
        )

    def _new_people(self, events: Iterable[Event], known_people: KnownPeople | None) -> list[Profile]:
        new = []
        for profile_id in dict.fromkeys(event.profile_id for event in events):
            profile, _ = self._account.profiles.get(profile_id, (None, None))
            record = repr(profile).encode()
            if profile is not None and known_people is not None and not known_people.get(record):
                known_people.add(record, KnownPerson(profile.id, profile.email))
                new.append(profile)
        return new

    def _attributions(self, events: Sequence[Event]) -> list[Attribution]:
        attributions = self._account.attributions if self.dialect.reads_attributions else {}
        return [
            row._replace(at=int(event.at.timestamp())) for event in events for row in attributions.get(event.id, ())
        ]

    def _columns(self, events: Sequence[Event]) -> Events:
        columns: dict[str, list[Any]] = {name: [None] * len(events) for name in Events._fields}
        columns["id"] = [event.id for event in events]
        columns["at"] = [int(event.at.timestamp()) for event in events]
        columns["metric_id"] = [event.metric_id for event in events]
        columns["profile_id"] = [event.profile_id for event in events]
        columns["email"] = [event.email for event in events]
        columns["list_name"] = [event.list_name for event in events]
        columns["message"] = [event.message for event in events]
        columns["flow"] = [event.flow for event in events]
        columns["properties"] = [_properties(event) for event in events]
        return Events(**columns)

    def beginning(self, metric_id: str, window: Window) -> Beginning | None:
        self._request(Request("beginning", metric_id, window, 0))
        events = self._events(window, metric_id)
        first = events[0].at if events else None
        return Beginning(first, len(events) if len(events) <= self.events_per_page else None)

    def counts(self, metric_id: str, window: Window) -> Iterator[Count]:
        self._request(Request("counts", metric_id, window, 0))
        if metric_id in self._account.counts_nothing:
            return
        numbers = {
            start: len(list(events))
            for start, events in groupby(self._events(window, metric_id), key=lambda event: self._interval(event.at))
        }
        for (miscounted, at), difference in self._account.miscounts.items():
            if miscounted == metric_id and window.start <= at < window.end:
                start = self._interval(at)
                numbers[start] = numbers.get(start, 0) + difference
        for start, number in sorted(numbers.items()):
            yield Count(start, start + self.dialect.count_interval, number)

    def _interval(self, at: datetime) -> datetime:
        return floor(at, self.dialect.count_interval)

    def profiles(self, window: AnyWindow) -> Iterator[Page[Profile]]:
        if not self.dialect.lists_people:
            return
        start, end = window.seconds
        changed = sorted(
            ((person, updated) for person, updated in self._account.profiles.values()),
            key=lambda each: (each[1], each[0].id),
        )
        within = [each for each in changed if start <= each[1].timestamp() < end]
        for page, rejects in self._pages("profiles", None, window, within, self._account.rows_per_page):
            reached = page[-1][1] if page else None
            yield Page([person for person, _ in page], rejects, self._account.now(), reached)

    def latest_change(self, window: AnyWindow) -> datetime | None:
        self._request(Request("latest_change", None, window, 0))
        start, end = window.seconds
        times = [updated for _, updated in self._account.profiles.values() if start <= updated.timestamp() < end]
        return max(times, default=None)

    def profile_ids(self, window: AnyWindow) -> Iterator[Page[ProfileId]]:
        start, end = window.seconds
        people = [(person.created, person.id) for person, _ in self._account.profiles.values() if person.created]
        within = [ProfileId(each, created) for created, each in sorted(people) if start <= created.timestamp() < end]
        for page, rejects in self._pages("profile_ids", None, window, within, self._account.rows_per_page):
            yield Page(page, rejects, self._account.now(), page[-1].created if page else None)

    def event_owner(self, event_id: str) -> str | None:
        self._request(Request("event_owner", event_id, FULL_READ, 0))
        return next((event.profile_id for event in self._account.events if event.id == event_id), None)

    def people(self, ids: Sequence[str]) -> Iterator[Page[Profile]]:
        people = [self._account.profiles[each][0] for each in ids if each in self._account.profiles]
        return self._collection("people", people)

    def memberships(self, list_id: str, window: AnyWindow, addresses: Iterable[str] = ()) -> Iterator[MembershipPage]:
        if self.dialect.looks_up_memberships and list_id in self._account.members:
            return self._looked_up(list_id, window, list(addresses))
        return self._members(list_id, window)

    def _members(self, list_id: str, window: AnyWindow) -> Iterator[MembershipPage]:
        if list_id not in self._account.members:
            self._request(Request("memberships", list_id, window, 0))
            raise NotFound
        start, end = window.seconds
        members = sorted(
            (each for each in self._account.members[list_id] if each.joined and start <= each.joined.timestamp() < end),
            key=lambda each: (each.joined or _LONG_AGO, each.member_id),
        )
        for page, rejects in self._pages("memberships", list_id, window, members, self._account.rows_per_page):
            yield MembershipPage(page, (), rejects, self._account.now(), page[-1].joined if page else None)

    def segment_members(self, segment_id: str, window: AnyWindow) -> Iterator[Page[Membership]]:
        if self.dialect.looks_up_memberships and window != FULL_READ:
            return  # such a dialect does not say when anybody joined
        for page in self._members(segment_id, window):
            yield Page(page.rows, page.rejects, page.read_at, page.reached)

    def templates(self, window: AnyWindow) -> Iterator[Page[Template]]:
        return self._changed("templates", window, self._account.templates)

    def forms(self, window: AnyWindow) -> Iterator[Page[Form]]:
        return self._changed("forms", window, self._account.forms)

    def images(self, window: AnyWindow) -> Iterator[Page[Image]]:
        return self._changed("images", window, self._account.images)

    def records(self, stream: str, window: AnyWindow, subject: str | None = None) -> Iterator[Page[Record]]:
        if not self.dialect.lists_people:
            return
        start, end = window.seconds
        rows = [
            (row, at)
            for row in self._account.records.get(stream, ())
            if start <= (at := self._account.changed.get(row.id, _LONG_AGO)).timestamp() < end
            and subject in (None, row.values.get("coupon_id"))
        ]
        rows.sort(key=lambda row: row[1])
        for page, rejects in self._pages(stream, subject, window, rows, self._account.rows_per_page):
            reached = page[-1][1] if page and page[-1][0].id in self._account.changed else None
            yield Page([row for row, _ in page], rejects, self._account.now(), reached)

    def _changed(self, kind: str, window: AnyWindow, rows: Sequence[Any]) -> Iterator[Page[Any]]:
        """Read rows in the order of their last change. A dialect that does not list people does not have them."""
        if not self.dialect.lists_people:
            return
        start, end = window.seconds
        within = [each for each in rows if start <= each.updated.timestamp() < end]
        within.sort(key=lambda each: (each.updated, each.id))
        for page, rejects in self._pages(kind, None, window, within, self._account.rows_per_page):
            yield Page(page, rejects, self._account.now(), page[-1].updated if page else None)
        if incomplete := self._account.incomplete.get(kind):
            yield Page((), (), self._account.now(), incomplete=incomplete)

    def _looked_up(self, list_id: str, window: AnyWindow, addresses: Sequence[str]) -> Iterator[MembershipPage]:
        members = {self._account.profiles[each.member_id][0].email: each for each in self._account.members[list_id]}
        for page, rejects in self._pages("memberships", list_id, window, addresses, self._account.rows_per_page):
            yield MembershipPage([members[each] for each in page if each in members], (), rejects, self._account.now())
        suppressed = [each for each in self._account.suppressions if each.list_id == list_id]
        yield MembershipPage(
            (), suppressed, (), self._account.now(), incomplete=self._account.incomplete.get("memberships")
        )

    def _pages(
        self, kind: str, subject: str | None, window: AnyWindow, rows: Sequence[Row], size: int
    ) -> Iterator[tuple[list[Row], list[Reject]]]:
        """Serve the rows page by page, with a request for each; without rows there is one empty page."""
        for number, at in enumerate(range(0, max(1, len(rows)), size)):
            self._request(Request(kind, subject, window, number))
            reject = self._account.unreadable.get((kind, number))
            yield list(rows[at : at + size]), [reject] if reject else []

    def _request(self, request: Request) -> None:
        assert self._in_use.acquire(blocking=False), "another thread uses this source"
        try:
            self.traffic = self.traffic._replace(requests=self.traffic.requests + 1)
            self._account.receive(request)
        finally:
            self._in_use.release()


def _properties(event: Event) -> bytes:
    return json.dumps({"List": event.list_name} if event.list_name else {}).encode()
