"""The current dialect: JSON:API, revision 2026-07-15. What is asked for, and page by page; current_rows reads it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from klaviyo_pg.errors import BadAnswer, TooMuch
from klaviyo_pg.klaviyo import current_rows, properties, resources, rows
from klaviyo_pg.klaviyo.documents import DocumentDecoder
from klaviyo_pg.klaviyo.http import Client, Endpoint, Traffic
from klaviyo_pg.klaviyo.known import KnownPeople
from klaviyo_pg.klaviyo.limits import Limit
from klaviyo_pg.windows import Window

REVISION = "2026-07-15"
CHANNELS = ("email", "sms", "mobile_push")  # campaigns can only be listed by channel
SUPPRESSION_REASONS = ("HARD_BOUNCE", "INVALID_EMAIL", "SPAM_COMPLAINT", "UNSUBSCRIBE", "USER_SUPPRESSED")
_IDS_IN_FILTER = 50  # ids in one any(): keeps URLs below 2 KB
_MARGIN = timedelta(seconds=1)  # asked for on both sides of a window: greater-than has been seen to mean or-equal

_COUNTED_AT_ONCE = timedelta(days=365)  # the longest stretch of one question for aggregates is a year
_PERSON_FIELDS = "email,phone_number,first_name,last_name,created,location,properties"
_SUPPRESSION = "subscriptions.email.marketing.suppression.reason"


_XS, _S, _M, _L, _XL = Limit(1, 15), Limit(3, 60), Limit(10, 150), Limit(75, 750), Limit(350, 3500)  # as published

ACCOUNTS = Endpoint("api/accounts", "accounts:read", _XS, name="accounts")
METRICS = Endpoint("api/metrics", "metrics:read", _M, name="metrics")
CAMPAIGNS = Endpoint("api/campaigns", "campaigns:read", _M, 100, "campaigns")
FLOWS = Endpoint("api/flows", "flows:read", _S, 50, "flows")
LISTS = Endpoint("api/lists", "lists:read", _L, 10, "lists")
SEGMENTS = Endpoint("api/segments", "segments:read", _L, 10, "segments")
EVENTS = Endpoint("api/events", "events:read", _XL, 1000, "events")
PROFILES = Endpoint("api/profiles", "profiles:read", _L, 100, "profiles")
AGGREGATES = Endpoint("api/metric-aggregates", "metrics:read", _S, name="metric-aggregates")
LIST_PROFILES = Endpoint("api/lists/{}/profiles", "lists:read and profiles:read", _L, 100, "list profiles")
_SMALLEST_PAGE = 10  # rows, asked for where larger pages take too long
_GOOD_PAGES = 8  # of a smaller size, before a larger one is tried again; twice as many after each failure
_PAGE_SIZE = "page[size]"


class _Document(Protocol):
    links: resources.Links | None


Document = TypeVar("Document", bound=_Document)

_ACCOUNTS = DocumentDecoder(resources.IdentifierDocument, data=resources.Identifier)
_METRICS = DocumentDecoder(resources.MetricDocument, data=resources.Metric)
_CAMPAIGNS = DocumentDecoder(resources.CampaignDocument, data=resources.Campaign, included=resources.Message)
_FLOWS = DocumentDecoder(resources.FlowDocument, data=resources.Flow)
_GROUPS = DocumentDecoder(resources.GroupDocument, data=resources.Group)
_EVENTS = DocumentDecoder(resources.EventDocument, data=resources.Event, included=msgspec.Raw)
_PROFILES = DocumentDecoder(resources.ProfileDocument, data=resources.Profile)


class CurrentSource:
    """A Klaviyo account through the current API. See `klaviyo_pg.klaviyo.source.Source`."""

    reads_all_metrics_at_once = True
    looks_up_memberships = False
    events_tell_consent = False
    events_in_request = EVENTS.page_size
    event_requests_a_minute: int | None = _XL.steady
    counts_by = timedelta(hours=1)

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def traffic(self) -> Traffic:
        return self._client.traffic

    def account_id(self) -> str | None:
        for accounts, _, _ in self._pages(ACCOUNTS, _ACCOUNTS, {"fields[account]": "test_account"}):
            if accounts.data:
                return accounts.data[0].id
        return None

    def metrics(self) -> Iterator[rows.Page[rows.Metric]]:
        for document, rejects, read_at in self._pages(
            METRICS, _METRICS, {"fields[metric]": "name,created,updated,integration"}
        ):
            yield rows.Page([current_rows.metric(found) for found in document.data], rejects, read_at)

    def campaigns(self) -> Iterator[rows.Page[rows.Campaign]]:
        for channel, archived in product(CHANNELS, ("false", "true")):
            query = {
                "filter": f"equals(messages.channel,'{channel}'),equals(archived,{archived})",
                "include": "campaign-messages",
                "fields[campaign]": "name,status,audiences,created_at,updated_at,send_time",
                "fields[campaign-message]": "definition",
            }
            for document, rejects, read_at in self._pages(CAMPAIGNS, _CAMPAIGNS, query):
                contents = {
                    message.id: message.attributes.definition.content if message.attributes.definition else None
                    for message in document.included
                }
                yield rows.Page(
                    [current_rows.campaign(found, channel, contents) for found in document.data], rejects, read_at
                )

    def flows(self) -> Iterator[rows.Page[rows.Flow]]:
        for archived in ("false", "true"):
            query = {"filter": f"equals(archived,{archived})", "fields[flow]": "name,status,created,updated"}
            for document, rejects, read_at in self._pages(FLOWS, _FLOWS, query):
                yield rows.Page([current_rows.flow(found) for found in document.data], rejects, read_at)

    def lists(self) -> Iterator[rows.Page[rows.Group]]:
        return self._groups(LISTS, "list")

    def segments(self) -> Iterator[rows.Page[rows.Group]]:
        return self._groups(SEGMENTS, "segment")

    def _groups(self, endpoint: Endpoint, kind: str) -> Iterator[rows.Page[rows.Group]]:
        for document, rejects, read_at in self._pages(endpoint, _GROUPS, {f"fields[{kind}]": "name,created"}):
            found = [rows.Group(row.id, row.attributes.name, rows.utc(row.attributes.created)) for row in document.data]
            yield rows.Page(found, rejects, read_at)

    def events(
        self, window: Window, metric_id: str | None = None, known: KnownPeople | None = None
    ) -> Iterator[rows.EventPage]:
        query = {
            "filter": _happened(window, metric_id),
            "sort": "datetime",
            "include": "profile",
            "fields[event]": "timestamp,event_properties",
            "fields[profile]": _PERSON_FIELDS,
        }
        for document, rejects, read_at in self._pages(EVENTS, _EVENTS, query):
            page = current_rows.event_page(document, window, known or KnownPeople(), rejects, read_at)
            properties.check_metric(page.events, metric_id)
            yield page

    def beginning(self, metric_id: str, window: Window) -> rows.Beginning | None:
        assert window.start is not None
        times, more, is_readable = self._earliest(metric_id, window)
        if not is_readable:
            return None
        first = datetime.fromtimestamp(min(times), UTC) if times else None
        if not more:
            return rows.Beginning(first, len(times))
        if first is None or self._earliest(metric_id, Window(window.start, first)) != ([], False, True):
            return None  # they did not come in order of time
        return rows.Beginning(first, None)

    def _earliest(self, metric_id: str, window: Window) -> tuple[list[int], bool, bool]:
        """Times of the first page of events in the window, whether more follow, and whether all could be read."""
        query = {"filter": _happened(window, metric_id), "sort": "datetime", "fields[event]": "timestamp"}
        document, rejects, _ = next(self._pages(EVENTS, _EVENTS, query))
        start, end = window.seconds
        times = [at for event in document.data if start <= (at := event.attributes.timestamp) < end]
        return times, bool(document.links and document.links.next), not rejects

    def counts(self, metric_id: str, window: Window) -> Iterator[rows.Count]:
        assert window.start is not None and window.end is not None
        start = window.start
        while start < window.end:
            end = min(window.end, start + _COUNTED_AT_ONCE)
            yield from self._counts(metric_id, start, end)
            start = end

    def _counts(self, metric_id: str, start: datetime, end: datetime) -> Iterator[rows.Count]:
        asked = {
            "metric_id": metric_id,
            "measurements": ["count"],
            "filter": [f"greater-or-equal(datetime,{_moment(start)})", f"less-than(datetime,{_moment(end)})"],
            "interval": "hour",
            "timezone": "UTC",
        }
        body = {"data": {"type": "metric-aggregate", "attributes": asked}}
        yield from self._client.post(AGGREGATES, body, read=partial(current_rows.counts, start=start, end=end))

    def profiles(self, window: Window) -> Iterator[rows.Page[rows.Profile]]:
        query = {
            "filter": ",".join(_between("updated", window)),
            "sort": "updated",
            "fields[profile]": _PERSON_FIELDS,
            "additional-fields[profile]": "subscriptions",
        }
        for document, rejects, read_at in self._pages(PROFILES, _PROFILES, query):
            yield rows.Page([current_rows.profile(found) for found in document.data], rejects, read_at)

    def exclusions(self) -> Iterator[rows.Page[rows.Exclusion]]:
        for reason in SUPPRESSION_REASONS:
            query = {
                "filter": f'equals({_SUPPRESSION},"{reason}")',
                "fields[profile]": "email",
                "additional-fields[profile]": "subscriptions",
            }
            for document, rejects, read_at in self._pages(PROFILES, _PROFILES, query):
                found, nameless = current_rows.exclusions(document.data)
                yield rows.Page(found, [*rejects, *nameless], read_at)

    def people(self, ids: Sequence[str]) -> Iterator[rows.Page[rows.Profile]]:
        for start in range(0, len(ids), _IDS_IN_FILTER):
            wanted = ",".join(_quoted(each) for each in ids[start : start + _IDS_IN_FILTER])
            query = {
                "filter": f"any(id,[{wanted}])",
                "fields[profile]": _PERSON_FIELDS,
                "additional-fields[profile]": "subscriptions",
            }
            for document, rejects, read_at in self._pages(PROFILES, _PROFILES, query):
                yield rows.Page([current_rows.profile(found) for found in document.data], rejects, read_at)

    def memberships(self, list_id: str, window: Window, addresses: Iterable[str] = ()) -> Iterator[rows.MembershipPage]:
        endpoint = LIST_PROFILES._replace(path=LIST_PROFILES.path.format(list_id))
        query = {
            "filter": ",".join(_between("joined_group_at", window)),
            "sort": "joined_group_at",
            "fields[profile]": "joined_group_at",
        }
        for document, rejects, read_at in self._pages(endpoint, _PROFILES, query):
            found = [
                rows.Membership(list_id, row.id, rows.utc(row.attributes.joined_group_at)) for row in document.data
            ]
            yield rows.MembershipPage(found, (), rejects, read_at)

    def _pages(
        self, endpoint: Endpoint, decoder: DocumentDecoder[Document], query: Mapping[str, str]
    ) -> Iterator[tuple[Document, list[rows.Reject], datetime]]:
        """All pages of a collection: document, rejects, time of reading. Refuses a link that it has followed before."""
        parameters: dict[str, str] | None = {name: value for name, value in query.items() if value}
        size = endpoint.page_size
        if parameters is not None and size:
            parameters[_PAGE_SIZE] = str(size)
        link: str | None = endpoint.path
        followed = set[str]()
        good, enough = 0, _GOOD_PAGES
        while link is not None:
            if link in followed:
                raise BadAnswer(f"The API answered with a page of {endpoint.path} that has been read before.")
            followed.add(link)
            read_at = datetime.now(UTC)
            try:
                document, rejects = self._client.get(
                    link, parameters, endpoint, read=decoder.decode, can_be_less=size > _SMALLEST_PAGE
                )
            except TooMuch:
                if size <= _SMALLEST_PAGE:
                    raise
                followed.discard(link)
                size, good, enough = max(_SMALLEST_PAGE, size // 4), 0, enough * 2
                link, parameters = _resized(link, parameters, size)
                continue
            yield document, list(rejects), read_at
            link, parameters = (document.links and document.links.next) or None, None  # it repeats the parameters
            good += 1
            if link is not None and size < endpoint.page_size and good >= enough:
                size, good = min(endpoint.page_size, size * 4), 0
                link, _ = _resized(link, None, size)


def _resized(link: str, parameters: dict[str, str] | None, size: int) -> tuple[str, dict[str, str] | None]:
    """The same page, with fewer rows."""
    if parameters is not None:
        return link, {**parameters, _PAGE_SIZE: str(size)}
    url = urlsplit(link)
    query = [(name, value) for name, value in parse_qsl(url.query, keep_blank_values=True) if name != _PAGE_SIZE]
    return urlunsplit(url._replace(query=urlencode([*query, (_PAGE_SIZE, str(size))]))), None


def _happened(window: Window, metric_id: str | None) -> str:
    """The filter of events in a window, of one metric or of all."""
    conditions = [f"equals(metric_id,{_quoted(metric_id)})"] if metric_id else []
    return ",".join([*conditions, *_between("datetime", window)])


def _between(name: str, window: Window) -> Iterator[str]:
    """The conditions of a window, a second wider on both sides: operators that every time field knows."""
    if window.start is not None:
        yield f"greater-than({name},{_moment(window.start - _MARGIN)})"
    if window.end is not None:
        yield f"less-than({name},{_moment(window.end)})"


def _quoted(text: str) -> str:
    """Text within a filter."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
