"""A Klaviyo account in memory. Knows no HTTP and no database."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from klaviyo_pg.errors import Incomplete
from klaviyo_pg.klaviyo.dialect import Dialect
from klaviyo_pg.klaviyo.pace import Pace
from klaviyo_pg.klaviyo.page_sizes import PageSizes
from klaviyo_pg.rows import (
    Attribution,
    Campaign,
    CustomMetric,
    Exclusion,
    Flow,
    Form,
    Group,
    Image,
    MappedMetric,
    Membership,
    Metric,
    Profile,
    Record,
    Reject,
    Report,
    Suppression,
    Tag,
    TagGroup,
    Template,
)
from klaviyo_pg.settings import Settings
from tests.fake_requests import Requests
from tests.fake_source import FakeSource
from tests.rows import profile_row

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

DIALECT = Dialect(
    looks_up_memberships=False,
    lists_people=True,
    reads_attributions=True,
    reads_messages=True,
    reads_reports=True,
    event_requests_per_minute=None,
    people_requests_per_minute=None,
    count_interval=timedelta(hours=1),
    longest_count=timedelta(days=365),
    exclusion_reasons=(None,),
)
"""The traits of the current dialect, without its rate limits; exclusions are read all at once."""


def present() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class Event(NamedTuple):
    """An event of the account."""

    id: str
    at: datetime
    metric_id: str | None
    profile_id: str
    list_name: str | None = None
    message: str | None = None
    flow: str | None = None
    email: str | None = None


@dataclass
class FakeAccount(Requests):
    """A Klaviyo account in memory: its data, its page sizes, what it received, and its faults.

    `profiles` are people with the time of their last change. `members` has the members of each list. `unreadable` are
    records that cannot be read, by kind of read and number of the page. `incomplete` has the error of a part that the
    account refuses, by kind of read; the other parts are what the account has. `miscounts` are added to the true count
    of the interval that contains a time. The metrics of `counts_nothing` are counted as if they had no events. `now` is
    the clock of the account's source, `api_now` that of the API; None: they are the same. `described` is what
    the account says about itself, `attributions` are those of each event, and `hidden_attributions` cannot be read on
    any page of events.
    `reports` and `records` are those of each stream. `changed` are the times of the last change of records.
    """

    account_id: str | None = "ACCOUNT"
    described: dict[str, Any] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    custom_metrics: list[CustomMetric] = field(default_factory=list)
    mapped_metrics: list[MappedMetric] = field(default_factory=list)
    campaigns: list[Campaign] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    lists: list[Group] = field(default_factory=list)
    segments: list[Group] = field(default_factory=list)
    tags: list[Tag | TagGroup] = field(default_factory=list)
    templates: list[Template] = field(default_factory=list)
    forms: list[Form] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    reports: dict[str, list[Report]] = field(default_factory=dict)
    records: dict[str, list[Record]] = field(default_factory=dict)
    changed: dict[str, datetime] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    attributions: dict[str, list[Attribution]] = field(default_factory=dict)
    hidden_attributions: list[Reject] = field(default_factory=list)
    profiles: dict[str, tuple[Profile, datetime]] = field(default_factory=dict)
    members: dict[str, list[Membership]] = field(default_factory=dict)
    suppressions: list[Suppression] = field(default_factory=list)
    exclusions: list[Exclusion] = field(default_factory=list)
    unreadable: dict[tuple[str, int], Reject] = field(default_factory=dict)
    incomplete: dict[str, Incomplete] = field(default_factory=dict)
    miscounts: dict[tuple[str, datetime], int] = field(default_factory=dict)
    events_per_page: int = 100
    rows_per_page: int = 100
    reads_all_metrics_at_once: bool = True
    dialect: Dialect = DIALECT
    counts_nothing: set[str] = field(default_factory=set)
    now: Callable[[], datetime] = present
    api_now: Callable[[], datetime | None] | None = None

    def open(self, settings: Settings, pace: Pace, sizes: PageSizes) -> FakeSource:
        """Open an API client, as klaviyo_pg.klaviyo.dialects.open_source does."""
        return FakeSource(self)

    def set_traits(self, **traits: Any) -> None:
        """Change some traits of the dialect."""
        self.dialect = replace(self.dialect, **traits)

    def add_metric(self, metric_id: str, name: str) -> None:
        self.metrics.append(Metric(metric_id, name, None, LONG_AGO, LONG_AGO))

    def add_list(self, list_id: str, name: str) -> None:
        """Add a list without members."""
        self.lists.append(Group(list_id, name, LONG_AGO))
        self.members[list_id] = []

    def add_person(self, profile_id: str, updated: datetime, **fields: Any) -> None:
        """Add a person, or change one; the address follows from the id."""
        values = {"email": f"{profile_id}@example.com", "list_suppressions": (), "consents": (), **fields}
        self.profiles[profile_id] = (profile_row(profile_id, **values), updated)

    def add_events(self, metric_id: str | None, *times: datetime, person: str = "P0") -> list[str]:
        """Add events of a metric, and return their ids."""
        first = len(self.events)
        ids = [f"E{first + number:05}" for number in range(len(times))]
        self.events += [Event(each, at, metric_id, person) for each, at in zip(ids, times, strict=True)]
        return ids

    def attribute(self, event_id: str, to: str, **related: str) -> None:
        """Attribute an event to another one, and to messages: campaign_id="C1", for example."""
        values: dict[str, Any] = {**dict.fromkeys(Attribution._fields), "attributed_event_id": to, **related}
        values |= {"id": f"of{event_id}to{to}", "event_id": event_id, "at": 0, "is_included": True}
        row = Attribution(**values)
        self.attributions.setdefault(event_id, []).append(row)

    def add_member(self, list_id: str, profile_id: str, joined: datetime) -> None:
        self.members[list_id].append(Membership(list_id, profile_id, joined))
