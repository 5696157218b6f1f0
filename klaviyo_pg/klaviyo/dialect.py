"""The traits of a dialect: constants about what its API offers and how it is read. Sends no requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Dialect:
    """The traits of a dialect, as `Source` implements it."""

    looks_up_memberships: bool
    """True if `Source.memberships` needs addresses to look up, so that events must be read first."""

    lists_people: bool
    """True if `Source.profiles` reads everyone who has changed, and `Source.profile_ids` everyone. Otherwise people are
    read from events and by id."""

    reads_attributions: bool
    """True if events are read with their attributions, so that an attribution that is missing was withdrawn."""

    reads_messages: bool
    """True if campaigns are read with their messages, and flows with their actions and messages."""

    reads_reports: bool
    """True if `Source.campaign_reports` and `Source.flow_reports` read anything."""

    event_requests_per_minute: int | None
    """The API's rate limit for events; None if it was never published."""

    people_requests_per_minute: int | None
    """The API's rate limit for profiles; None if it was never published."""

    count_interval: timedelta
    """The length of the intervals that `Source.counts` returns: an hour or a day."""

    longest_count: timedelta
    """The longest window that one request counts."""

    exclusion_reasons: Sequence[str | None]
    """The reasons by which `Source.exclusions` can be read side by side; None: it reads them all at once."""
