"""The seam between the dialects of the API and everything else: what any of them offers."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Protocol

from klaviyo_pg.klaviyo.http import Traffic
from klaviyo_pg.klaviyo.known import KnownPeople
from klaviyo_pg.klaviyo.rows import (
    Beginning,
    Campaign,
    Count,
    EventPage,
    Exclusion,
    Flow,
    Group,
    MembershipPage,
    Metric,
    Page,
    Profile,
)
from klaviyo_pg.windows import Window


class Source(Protocol):
    """A Klaviyo account, as it can be read.

    Every method reads page by page and raises MissingScope where the key lacks a scope, Unavailable where the API
    gives no answer in spite of all retries, and one of the other errors of klaviyo_pg.errors where it is no use to go
    on. Windows of events are kept exactly, whatever the API makes of its bounds.
    """

    reads_all_metrics_at_once: bool
    """Whether `events` without a metric is the way to read everything, events of unknown metrics included."""

    looks_up_memberships: bool
    """Whether `memberships` finds only people whose addresses it is given, so that events have to be read first."""

    events_tell_consent: bool
    """Whether the people on event pages come with their consent."""

    events_in_request: int
    """Events on a full page."""
    event_requests_a_minute: int | None
    """What the API allows; None where that was never published."""

    counts_by: timedelta
    """The stretches of time that `counts` tells apart: an hour or a day."""

    @property
    def traffic(self) -> Traffic:
        """Requests sent so far."""
        ...

    def account_id(self) -> str | None:
        """Klaviyo's id of the account; None where this dialect does not tell it."""
        ...

    def metrics(self) -> Iterator[Page[Metric]]: ...

    def campaigns(self) -> Iterator[Page[Campaign]]: ...

    def flows(self) -> Iterator[Page[Flow]]: ...

    def lists(self) -> Iterator[Page[Group]]: ...

    def segments(self) -> Iterator[Page[Group]]: ...

    def events(
        self, window: Window, metric_id: str | None = None, known: KnownPeople | None = None
    ) -> Iterator[EventPage]:
        """Events that happened in the window, of one metric or of all, with the people in them who are not known yet.

        A person whose record has changed since is given again.
        """
        ...

    def beginning(self, metric_id: str, window: Window) -> Beginning | None:
        """Where the events of a metric begin in a window with both bounds; None where that cannot be told.

        It costs a request or two, and spares counting what is empty or small.
        """
        ...

    def counts(self, metric_id: str, window: Window) -> Iterator[Count]:
        """How many events of a metric there are, by those stretches of `counts_by` that have any, in order of time.

        The window has both bounds, and begins and ends where such a stretch does. Raises Refused where the source
        does not count this metric.
        """
        ...

    def profiles(self, window: Window) -> Iterator[Page[Profile]]:
        """People whose profile changed in the window, with consent and list suppressions."""
        ...

    def exclusions(self) -> Iterator[Page[Exclusion]]:
        """All addresses that are excluded from e-mail marketing; one address may come for several reasons."""
        ...

    def people(self, ids: Sequence[str]) -> Iterator[Page[Profile]]:
        """The people with these ids; those who are gone are left out."""
        ...

    def memberships(self, list_id: str, window: Window, addresses: Iterable[str] = ()) -> Iterator[MembershipPage]:
        """People who joined the list in the window and are still on it, as far as this dialect tells without addresses;
        of the addresses (e-mail addresses and phone numbers) those that are on it. Also whom it must not write to.

        Raises NotFound where the list has been deleted since it was listed.
        """
        ...
