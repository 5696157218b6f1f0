"""The current dialect: JSON:API, revision 2026-07-15. Reads its pages into the rows that all dialects share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from klaviyo_pg.errors import BadAnswer, Garbled, TooMuch
from klaviyo_pg.klaviyo import properties, resources, rows
from klaviyo_pg.klaviyo.documents import DocumentDecoder, reject
from klaviyo_pg.klaviyo.http import Client, Endpoint, Traffic
from klaviyo_pg.klaviyo.known import Known, KnownPeople
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
_decode_aggregate = msgspec.json.Decoder(resources.AggregateDocument).decode
_decode_profile = msgspec.json.Decoder(resources.Profile).decode


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
            yield rows.Page([_metric(found) for found in document.data], rejects, read_at)

    def campaigns(self) -> Iterator[rows.Page[rows.Campaign]]:
        for channel, archived in product(CHANNELS, ("false", "true")):
            query = {
                "filter": f"equals(messages.channel,'{channel}'),equals(archived,{archived})",
                "include": "campaign-messages",
                "fields[campaign]": "name,status,audiences,created_at,updated_at,send_time",
                "fields[campaign-message]": "definition.content",
            }
            for document, rejects, read_at in self._pages(CAMPAIGNS, _CAMPAIGNS, query):
                contents = {
                    message.id: message.attributes.definition.content if message.attributes.definition else None
                    for message in document.included
                }
                yield rows.Page([_campaign(found, channel, contents) for found in document.data], rejects, read_at)

    def flows(self) -> Iterator[rows.Page[rows.Flow]]:
        for archived in ("false", "true"):
            query = {"filter": f"equals(archived,{archived})", "fields[flow]": "name,status,created,updated"}
            for document, rejects, read_at in self._pages(FLOWS, _FLOWS, query):
                yield rows.Page([_flow(found) for found in document.data], rejects, read_at)

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
        conditions = [f"equals(metric_id,{_quoted(metric_id)})"] if metric_id else []
        query = {
            "filter": ",".join([*conditions, *_between("datetime", window)]),
            "sort": "datetime",
            "include": "profile",
            "fields[event]": "timestamp,event_properties",
            "fields[profile]": _PERSON_FIELDS,
        }
        for document, rejects, read_at in self._pages(EVENTS, _EVENTS, query):
            page = _event_page(document, window, known or KnownPeople(), rejects, read_at)
            properties.check_metric(page.events, metric_id)
            yield page

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
        yield from self._client.post(AGGREGATES, body, read=partial(_counts, start=start, end=end))

    def profiles(self, window: Window) -> Iterator[rows.Page[rows.Profile]]:
        query = {
            "filter": ",".join(_between("updated", window)),
            "sort": "updated",
            "fields[profile]": _PERSON_FIELDS,
            "additional-fields[profile]": "subscriptions",
        }
        for document, rejects, read_at in self._pages(PROFILES, _PROFILES, query):
            yield rows.Page([profile(found) for found in document.data], rejects, read_at)

    def exclusions(self) -> Iterator[rows.Page[rows.Exclusion]]:
        for reason in SUPPRESSION_REASONS:
            query = {
                "filter": f'equals({_SUPPRESSION},"{reason}")',
                "fields[profile]": "email",
                "additional-fields[profile]": "subscriptions",
            }
            for document, rejects, read_at in self._pages(PROFILES, _PROFILES, query):
                found, nameless = _exclusions(document.data)
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
                yield rows.Page([profile(found) for found in document.data], rejects, read_at)

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


def _counts(answer: bytes, start: datetime, end: datetime) -> list[rows.Count]:
    try:
        found = _decode_aggregate(answer).data.attributes
        starts = [moment for date in found.dates if (moment := rows.utc(date))]
        totals = [sum(each) for each in zip(*(row.measurements.count for row in found.data), strict=True)]
        return [
            rows.Count(max(begins, start), ends, round(count))
            for begins, ends, count in zip(starts, [*starts[1:], end], totals, strict=False)
        ]
    except (ValueError, OverflowError, RecursionError) as error:
        raise Garbled(f"The answer is not an aggregate of Klaviyo's API ({error}).") from None


def _metric(found: resources.Metric) -> rows.Metric:
    said = found.attributes
    category = said.integration and said.integration.category
    return rows.Metric(
        found.id, said.name, properties.plain_text(category), rows.utc(said.created), rows.utc(said.updated)
    )


def _campaign(
    found: resources.Campaign, channel: str, contents: Mapping[str, resources.Content | None]
) -> rows.Campaign:
    said = found.attributes
    audiences = said.audiences or resources.Audiences()
    included, excluded = audiences.included or [], audiences.excluded or []
    related = found.relationships and found.relationships.messages
    messages = [contents.get(message.id) for message in (related and related.data) or ()]
    content = next((message for message in messages if message is not None), resources.Content())
    return rows.Campaign(
        id=found.id,
        name=said.name,
        list_id=included[0] if included else None,
        from_email=content.from_email,
        from_name=content.from_label,
        subject=content.subject,
        status=said.status,
        sent_at=rows.utc(said.send_time),
        campaign_type=channel,
        created=rows.utc(said.created_at),
        updated=rows.utc(said.updated_at),
        included=included,
        excluded=excluded,
    )


def _flow(found: resources.Flow) -> rows.Flow:
    said = found.attributes
    return rows.Flow(found.id, said.name, said.status, rows.utc(said.created), rows.utc(said.updated))


def _exclusions(found: list[resources.Profile]) -> tuple[list[rows.Exclusion], list[rows.Reject]]:
    exclusions, rejects = [], []
    for row in found:
        email, suppression = row.attributes.email, _marketing(row.attributes).suppression
        if email and email.strip("\0") and suppression:
            exclusions += [rows.Exclusion(email, why.reason, rows.utc(why.timestamp)) for why in suppression]
        else:
            raw = msgspec.json.encode({"id": row.id, "suppression": suppression}).decode()
            lacks = "e-mail address" if suppression else "reason for that"
            rejects.append(rows.Reject(raw, f"The suppressed profile has no {lacks}.", hides=False))
    return exclusions, rejects


def _marketing(said: resources.ProfileAttributes) -> resources.Marketing:
    email = said.subscriptions and said.subscriptions.email
    return (email and email.marketing) or resources.Marketing()


def profile(found: resources.Profile) -> rows.Profile:
    """A person as all dialects give it."""
    said, place = found.attributes, found.attributes.location or resources.Location()
    custom, consent = said.properties or {}, _marketing(found.attributes)
    return rows.Profile(
        id=found.id,
        email=said.email,
        timezone=place.timezone,
        first_name=said.first_name,
        last_name=said.last_name,
        source=properties.text(custom.get("$source")),
        address1=place.address1,
        address2=place.address2,
        city=place.city,
        state=place.region,
        zip=place.zip,
        country=place.country,
        phone_number=said.phone_number,
        longitude=properties.number(place.longitude),
        latitude=properties.number(place.latitude),
        created=rows.utc(said.created),
        properties=properties.texts(custom, without=("$source",)),
        consent=consent.consent,
        consent_timestamp=rows.utc(consent.consent_timestamp),
        list_suppressions=[(each.list_id, rows.utc(each.timestamp)) for each in consent.list_suppressions or ()],
    )


def _related(event: resources.Event) -> tuple[str | None, str | None]:
    """The ids of an event's metric and profile."""
    related = event.relationships
    return (None, None) if related is None else (_id(related.metric), _id(related.profile))


def _id(related: resources.Relationship | None) -> str | None:
    return None if related is None or related.data is None else related.data.id


def _event_page(
    document: resources.EventDocument,
    window: Window,
    known: KnownPeople,
    rejects: list[rows.Reject],
    read_at: datetime,
) -> rows.EventPage:
    people, emails = _people(document.included, known, rejects)
    start, end = window.seconds
    within = [event for event in document.data if start <= event.attributes.timestamp < end]
    said = properties.read([event.id for event in within], [event.attributes.event_properties for event in within])
    found = said.readable(within, rejects)
    related = [_related(event) for event in found]
    profile_ids = [profile_id for _, profile_id in related]
    events = properties.events(
        ids=[event.id for event in found],
        at=[event.attributes.timestamp for event in found],
        metric_ids=[metric_id for metric_id, _ in related],
        profile_ids=profile_ids,
        emails=[emails.get(profile_id) for profile_id in profile_ids],
        properties=[event.attributes.event_properties for event in found],
        known=said.known,
    )
    return rows.EventPage(events, people, rejects, read_at)


def _people(
    included: list[msgspec.Raw], known: KnownPeople, rejects: list[rows.Reject]
) -> tuple[list[rows.Profile], dict[str | None, str | None]]:
    """The people on a page who were not known yet, and the addresses of all, by id."""
    new: list[rows.Profile] = []
    emails: dict[str | None, str | None] = {}
    for raw in included:
        record = bytes(raw)
        person = known.get(record)
        if person is None:
            try:
                found = profile(_decode_profile(record))
            except (msgspec.MsgspecError, RecursionError) as error:
                rejects.append(reject(record, error))
                continue
            person = Known(found.id, found.email)
            known.add(record, person)
            new.append(found)
        emails[person.id] = person.email
    return new, emails
