"""The rows that both dialects of the API are read into, and the pages that carry them. Knows no polars and no SQL."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from klaviyo_pg.errors import Incomplete

Row = TypeVar("Row", covariant=True)
TIMES = "q"
"""The type of an array of times, for the module `array`."""
KEY_LENGTH = 32
"""The length of a key: an MD5 in hexadecimal digits."""


class Reject(NamedTuple):
    """A record that cannot be read or stored: its text, unchanged, and the reason.

    `hides` is true if the record may be a row that the warehouse already has. Then the read is incomplete, and a row
    that is missing from it must not be treated as deleted. If some values of the record were `replaced`, the record
    itself is stored, and this is its original.
    """

    raw: str
    reason: str
    hides: bool = True
    replaced: int = 0


class Page(NamedTuple, Generic[Row]):
    """Rows, the records of the same page that could not be read, and the time of the request.

    `reached` is a time of the stream's cursor: this page and those before it contain everything from before that time.
    It is None where the dialect cannot say. `incomplete` says that the API refused a part of the collection, so that a
    row that is missing from it must not be treated as deleted.
    """

    rows: Sequence[Row]
    rejects: Sequence[Reject]
    read_at: datetime
    reached: datetime | None = None
    incomplete: Incomplete | None = None


class Account(NamedTuple):
    """The account, as Klaviyo describes it."""

    id: str
    name: str | None = None
    website: str | None = None
    industry: str | None = None
    timezone: str | None = None
    currency: str | None = None
    locale: str | None = None
    is_test: bool | None = None


class Metric(NamedTuple):
    """A kind of event, and the integration that sends it."""

    id: str
    name: str | None
    category: str | None
    created: datetime | None
    updated: datetime | None
    integration_id: str | None = None
    integration_name: str | None = None


class CustomMetric(NamedTuple):
    """Several metrics, or some of their events, that count as one. `metric_ids` and `definition` are JSON."""

    id: str
    name: str | None
    aggregation_method: str | None
    metric_ids: str
    definition: str | None
    created: datetime | None
    updated: datetime | None


class MappedMetric(NamedTuple):
    """The metric that the account uses for a purpose, such as revenue. The purpose is the id."""

    id: str
    metric_id: str | None
    custom_metric_id: str | None
    updated: datetime | None


class CampaignMessage(NamedTuple):
    """A message of a campaign. `send_at` and `last_send_at` are the first and the last of its times of sending.

    `variation_of` is the ID of the message that it is a variation of.
    """

    id: str
    campaign_id: str
    channel: str | None = None
    label: str | None = None
    subject: str | None = None
    preview_text: str | None = None
    body: str | None = None
    from_email: str | None = None
    from_name: str | None = None
    reply_to_email: str | None = None
    template_id: str | None = None
    status: str | None = None
    send_at: datetime | None = None
    last_send_at: datetime | None = None
    is_local: bool | None = None
    created: datetime | None = None
    updated: datetime | None = None
    variation_of: str | None = None


class Campaign(NamedTuple):
    """A campaign. `included` and `excluded` are ids of lists and segments."""

    id: str
    name: str | None
    list_id: str | None
    from_email: str | None
    from_name: str | None
    subject: str | None
    status: str | None
    sent_at: datetime | None
    campaign_type: str | None
    created: datetime | None
    updated: datetime | None
    included: Sequence[str]
    excluded: Sequence[str]
    archived: bool | None = None
    scheduled_at: datetime | None = None
    messages: Sequence[CampaignMessage] = ()
    tags: Sequence[str] | None = None


class FlowAction(NamedTuple):
    """A step of a flow, and the steps that follow it. `definition` is JSON."""

    id: str
    flow_id: str
    action_type: str | None = None
    status: str | None = None
    next_id: str | None = None
    next_if_true_id: str | None = None
    next_if_false_id: str | None = None
    definition: str | None = None
    created: datetime | None = None
    updated: datetime | None = None


class FlowMessage(NamedTuple):
    """A message that an action of a flow sends. Its times are those of the action."""

    id: str
    flow_id: str
    flow_action_id: str
    channel: str | None = None
    name: str | None = None
    subject: str | None = None
    preview_text: str | None = None
    body: str | None = None
    from_email: str | None = None
    from_name: str | None = None
    reply_to_email: str | None = None
    template_id: str | None = None
    status: str | None = None
    is_transactional: bool | None = None
    uses_smart_sending: bool | None = None
    is_variation: bool | None = None
    created: datetime | None = None
    updated: datetime | None = None


class Flow(NamedTuple):
    """A flow, which the warehouse calls an automation."""

    id: str
    name: str | None
    status: str | None
    created: datetime | None
    updated: datetime | None
    archived: bool | None = None
    trigger_type: str | None = None
    actions: Sequence[FlowAction] = ()
    messages: Sequence[FlowMessage] = ()
    tags: Sequence[str] | None = None


class Group(NamedTuple):
    """A list or a segment. `tags` are IDs; None where the response does not include them, as for all that has tags.

    Only segments have the states, and only in a dialect that returns them.
    """

    id: str
    name: str | None
    created: datetime | None
    updated: datetime | None = None
    tags: Sequence[str] | None = None
    is_active: bool | None = None
    is_starred: bool | None = None
    is_processing: bool | None = None


class Tag(NamedTuple):
    """A tag, and the group that it is in."""

    id: str
    name: str | None = None
    group_id: str | None = None


class TagGroup(NamedTuple):
    """A group of tags."""

    id: str
    name: str | None = None
    is_exclusive: bool | None = None
    is_default: bool | None = None


class Template(NamedTuple):
    """An email template."""

    id: str
    name: str | None = None
    editor_type: str | None = None
    html: str | None = None
    text: str | None = None
    created: datetime | None = None
    updated: datetime | None = None


class FormVersion(NamedTuple):
    """A version of a form. `ab_test_variation` is None outside of tests."""

    id: str
    form_id: str
    form_type: str | None = None
    variation_name: str | None = None
    ab_test_variation: str | None = None
    status: str | None = None
    created: datetime | None = None
    updated: datetime | None = None


class Form(NamedTuple):
    """A sign-up form. `versions` is None if they are unknown, `rejects` are those that could not be read."""

    id: str
    name: str | None = None
    status: str | None = None
    is_ab_test: bool | None = None
    created: datetime | None = None
    updated: datetime | None = None
    versions: Sequence[FormVersion] | None = None
    rejects: Sequence[Reject] = ()


class Image(NamedTuple):
    """An image in the account's library, and the size of its file in bytes."""

    id: str
    name: str | None = None
    image_url: str | None = None
    format: str | None = None
    size: int | None = None
    is_hidden: bool | None = None
    updated: datetime | None = None


class Record(NamedTuple):
    """A row of a table that is filled on request: its ID, and the values by column."""

    table: str
    id: str
    values: Mapping[str, Any]


class Report(NamedTuple):
    """The performance of a message, sent on a day, of a campaign or a flow: its owner. Rates are from 0 to 1."""

    day: date
    owner_id: str
    message_id: str | None
    channel: str | None
    variation_id: str | None
    metric_id: str  # by which conversions are counted
    statistics: Mapping[str, int | float | None]


class Exclusion(NamedTuple):
    """An email address that is suppressed for all marketing. `member_id` is None where the API does not include it."""

    email: str
    reason: str
    since: datetime | None
    member_id: str | None = None


class Membership(NamedTuple):
    """A person's place on a list or in a segment. `is_subscribed` is None where the API does not include it."""

    list_id: str
    member_id: str
    joined: datetime | None
    is_subscribed: bool | None = None


class Suppression(NamedTuple):
    """A person who is suppressed for one list."""

    list_id: str
    member_id: str
    since: datetime | None
    reason: str | None = None


class MembershipPage(NamedTuple):
    """One page of a list: its members, and the people who are suppressed for it.

    `reached` and `incomplete` are those of `Page`.
    """

    rows: Sequence[Membership]
    suppressions: Sequence[Suppression]
    rejects: Sequence[Reject]
    read_at: datetime
    reached: datetime | None = None
    incomplete: Incomplete | None = None


class Consent(NamedTuple):
    """A person's consent to marketing on one channel. `can_receive` says if Klaviyo would send."""

    channel: str
    consent: str | None = None
    can_receive: bool | None = None
    method: str | None = None
    method_detail: str | None = None
    timestamp: datetime | None = None
    updated: datetime | None = None
    double_optin: bool | None = None


class ProfileId(NamedTuple):
    """The id of a person, and when their profile was created."""

    id: str
    created: datetime | None


class Profile(NamedTuple):
    """A person. `properties` are the values of the custom ones by name: strings unchanged, other values as JSON.

    `list_suppressions` and `consents` are complete; None where the response does not include them. Where `consents` is
    None, `consent` and `consent_timestamp` are unknown, too.
    """

    id: str
    email: str | None
    timezone: str | None
    first_name: str | None
    last_name: str | None
    source: str | None
    address1: str | None
    address2: str | None
    city: str | None
    state: str | None
    zip: str | None
    country: str | None
    phone_number: str | None
    longitude: float | None
    latitude: float | None
    created: datetime | None
    properties: Mapping[str, str | None]
    consent: str | None = None
    consent_timestamp: datetime | None = None
    list_suppressions: Sequence[Suppression] | None = None
    external_id: str | None = None
    organization: str | None = None
    title: str | None = None
    locale: str | None = None
    last_event_date: datetime | None = None
    klaviyo_updated_at: datetime | None = None
    consents: Sequence[Consent] | None = None


class Events(NamedTuple):
    """Events in columns of equal length, as a frame needs them."""

    id: list[str]
    at: list[int]  # Unix seconds
    metric_id: list[str | None]
    profile_id: list[str | None]
    email: list[str | None]
    message: list[str | None]
    flow: list[str | None]
    campaign_name: list[str | None]
    subject: list[str | None]
    list_name: list[str | None]
    value: list[str | None]  # the digits of the API's answer
    value_currency: list[str | None]
    properties: list[bytes]  # JSON, as the API sent it
    is_machine_open: list[bool | None]
    is_bot_click: list[bool | None]
    variation: list[str | None]
    email_domain: list[str | None]  # as the properties have it

    def __len__(self) -> int:
        return len(self.id)


class Lines(NamedTuple):
    """Rows of a load as the text that COPY takes: its columns in order, separated by tabs, and nothing for null.

    No value is quoted, so each line is a row. `keys` are the keys of the rows in their order, each of KEY_LENGTH bytes.
    `times` are their times in Unix seconds, as an array of the type TIMES. `spans` has the first and the last of them
    for each key of a metric.
    """

    text: Sequence[bytes]
    keys: bytes
    times: bytes
    spans: Mapping[str, Sequence[int]]

    def __len__(self) -> int:
        return len(self.keys) // KEY_LENGTH

    def each_key(self) -> Iterator[str]:
        """Yield the keys."""
        keys = self.keys.decode()
        return (keys[at : at + KEY_LENGTH] for at in range(0, len(keys), KEY_LENGTH))

    def values(self, column: int) -> Iterator[str]:
        """Yield the values of a column, by its number."""
        lines = (line for text in self.text for line in text.splitlines())
        return (line.split(b"\t", column + 1)[column].decode() for line in lines)

    @staticmethod
    def joined(several: "Iterable[Lines]") -> "Lines":
        """Join lines of one load. What is loaded last stays, of rows with the same key."""
        parts = list(several)
        spans: dict[str, Sequence[int]] = {}
        for metric_key, (first, last) in (span for part in parts for span in part.spans.items()):
            earliest, latest = spans.get(metric_key, (first, last))
            spans[metric_key] = min(first, earliest), max(last, latest)
        text = [text for part in parts for text in part.text]
        return Lines(text, b"".join(part.keys for part in parts), b"".join(part.times for part in parts), spans)


class Attribution(NamedTuple):
    """An attribution of an event, which happened `at` this time, to a message that caused it.

    If it is not included in the response, only its ID is known.
    """

    id: str
    event_id: str
    at: int  # Unix seconds
    attributed_event_id: str | None
    campaign_id: str | None
    campaign_message_id: str | None
    flow_id: str | None
    flow_message_id: str | None
    variation_id: str | None
    is_included: bool = True


class EventPage(NamedTuple):
    """One page of events, the people in them whose rows are new, and the attributions of the events.

    `hidden` are unreadable records that may be, or refer to, attributions of any event of the page. `people_records`
    are the hashes of the records of people that no earlier page of the read had.
    """

    events: Events
    profiles: Sequence[Profile]
    rejects: Sequence[Reject]
    read_at: datetime
    incomplete: Incomplete | None = None
    attributions: Sequence[Attribution] = ()
    hidden: Sequence[Reject] = ()
    people_records: Sequence[int] = ()


class Beginning(NamedTuple):
    """The time of a metric's first event in a window, and the number of events if one page contains them all."""

    first: datetime | None
    events: int | None


class Count(NamedTuple):
    """The number of events of one metric that the source has in the half-open interval [start, end)."""

    start: datetime
    end: datetime
    events: int


def utc(moment: datetime | None) -> datetime | None:
    """Return a time in UTC. A time without an offset already is."""
    if moment is None or moment.tzinfo is UTC:
        return moment
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # in UTC it is hours before the year 1 or after 9999
        return moment.replace(tzinfo=UTC)
