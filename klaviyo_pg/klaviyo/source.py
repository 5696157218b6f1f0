"""The protocol that both dialects of the API implement. The rest of the project knows no more of a dialect."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from klaviyo_pg.klaviyo.dialect import Dialect
from klaviyo_pg.klaviyo.people_cache import KnownPeople
from klaviyo_pg.rows import (
    Account,
    Beginning,
    Campaign,
    Count,
    CustomMetric,
    EventPage,
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
    Report,
    Tag,
    TagGroup,
    Template,
)
from klaviyo_pg.traffic import Traffic
from klaviyo_pg.windows import FULL_READ, AnyWindow, Window


class Source(Protocol):
    """A Klaviyo account that can be read.

    Every method reads page by page. It raises MissingScope if the key lacks a scope, Unavailable if the API does not
    respond in spite of all retries, and other errors of klaviyo_pg.errors if a retry cannot help. Windows of events are
    exact, however the API interprets their bounds.
    """

    dialect: Dialect
    """The traits of the API's dialect."""

    @property
    def reads_all_metrics_at_once(self) -> bool:
        """True if `events` without a metric reads everything, including events of unknown metrics."""
        ...

    @property
    def events_per_page(self) -> int:
        """The number of events on a full page."""
        ...

    @property
    def traffic(self) -> Traffic:
        """The requests sent so far."""
        ...

    @property
    def api_time(self) -> datetime | None:
        """The present according to the API's last response; None if it does not send the time."""
        ...

    def account(self) -> Account | None:
        """Return the account; None if this dialect does not have it."""
        ...

    def metrics(self) -> Iterator[Page[Metric]]: ...

    def campaigns(self) -> Iterator[Page[Campaign]]: ...

    def flows(self) -> Iterator[Page[Flow]]: ...

    def lists(self) -> Iterator[Page[Group]]: ...

    def segments(self) -> Iterator[Page[Group]]: ...

    def custom_metrics(self) -> Iterator[Page[CustomMetric]]:
        """Read the custom metrics. A dialect that does not have them returns no pages."""
        ...

    def mapped_metrics(self) -> Iterator[Page[MappedMetric]]:
        """Read the mapped metrics. A dialect that does not have them returns no pages."""
        ...

    def tags(self) -> Iterator[Page[Tag | TagGroup]]:
        """Read the tags, and the groups that they are in. A dialect without tags returns no pages."""
        ...

    def campaign_reports(self, window: Window, metric_id: str) -> Iterator[Page[Report]]:
        """Read the performance of the campaigns that were sent on a day, a window from midnight to midnight.

        The day is that of the account's time zone, whatever the zone of the window is. Conversions are counted by a
        metric. Raises QuotaUsedUp if the API answers no more requests for a while.
        """
        ...

    def flow_reports(self, window: Window, metric_id: str) -> Iterator[Page[Report]]:
        """Read the performance of messages of flows by day, of up to 60 days, like `campaign_reports`.

        Days on which nothing was sent are left out.
        """
        ...

    def events(
        self, window: AnyWindow, metric_id: str | None = None, known_people: KnownPeople | None = None
    ) -> Iterator[EventPage]:
        """Read the events of a window, of one metric or of all, with the people in them who are not known yet.

        A person whose record has changed is included again.
        """
        ...

    def beginning(self, metric_id: str, window: Window) -> Beginning | None:
        """Find the first event of a metric in a window. Return None if the first page does not show it.

        This takes a request or two and avoids counting what is empty or small.
        """
        ...

    def counts(self, metric_id: str, window: Window) -> Iterator[Count]:
        """Count the events of a metric by `Dialect.count_interval`, in ascending order.

        Intervals without events are left out. The window must begin and end on the bounds of intervals. Raises Refused
        if the source does not count this metric.
        """
        ...

    def profiles(self, window: AnyWindow) -> Iterator[Page[Profile]]:
        """Read the people whose profile changed in the window, with consent and list suppressions.

        In ascending order of the time of change if the dialect supports it; the pages' `reached` says how far.
        """
        ...

    def latest_change(self, window: AnyWindow) -> datetime | None:
        """Return when the last of the people who changed in a window changed; None if that is unknown."""
        ...

    def profile_ids(self, window: AnyWindow) -> Iterator[Page[ProfileId]]:
        """Read the ids of the people whose profile was created in the window.

        In ascending order of that time if the dialect supports it; the pages' `reached` says how far. A dialect that
        cannot list people returns no pages.
        """
        ...

    def event_owner(self, event_id: str) -> str | None:
        """Return the id of the profile that an event belongs to now; None if it has none, or the dialect cannot say.

        Raises NotFound if the event no longer exists, and Refused if the API does not accept its ID.
        """
        ...

    def exclusions(self, reason: str | None = None, window: AnyWindow = FULL_READ) -> Iterator[Page[Exclusion]]:
        """Read the addresses that are excluded from email marketing. An address can occur with several reasons.

        With a reason, only those that have it, whose profiles were created in the window. In ascending order of that
        time if the dialect supports it; the pages' `reached` says how far.
        """
        ...

    def people(self, ids: Sequence[str]) -> Iterator[Page[Profile]]:
        """Read the people with these ids. Ids that no longer exist are left out."""
        ...

    def memberships(self, list_id: str, window: AnyWindow, addresses: Iterable[str] = ()) -> Iterator[MembershipPage]:
        """Read the people who joined a list in the window and are still on it, and those who are suppressed for it.

        A dialect that cannot list members looks up the addresses (email addresses and phone numbers) instead. Raises
        NotFound if the list no longer exists.
        """
        ...

    def segment_members(self, segment_id: str, window: AnyWindow) -> Iterator[Page[Membership]]:
        """Read the people who became members of a segment in the window and still are.

        In ascending order of that time if the dialect supports it; the pages' `reached` says how far. A dialect that
        does not know that time returns no pages unless the window is a full read. Raises NotFound if the segment no
        longer exists.
        """
        ...

    def templates(self, window: AnyWindow) -> Iterator[Page[Template]]:
        """Read the templates that changed in the window. A dialect that does not have them returns no pages."""
        ...

    def forms(self, window: AnyWindow) -> Iterator[Page[Form]]:
        """Read the forms that changed in the window, with their versions. A dialect without forms returns no pages."""
        ...

    def images(self, window: AnyWindow) -> Iterator[Page[Image]]:
        """Read the images that changed in the window. A dialect that does not have them returns no pages."""
        ...

    def records(self, stream: str, window: AnyWindow, subject: str | None = None) -> Iterator[Page[Record]]:
        """Read a collection that is read on request, by the name of its stream. A dialect without it returns no pages.

        One that can be read by the time of the last change is limited to the window, others are read in full.
        """
        ...
