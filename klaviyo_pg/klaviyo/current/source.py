"""The requests of the current dialect (JSON:API). The responses are turned into rows elsewhere."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec

from klaviyo_pg import rows
from klaviyo_pg.klaviyo import properties
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.collections import in_parts
from klaviyo_pg.klaviyo.current import content, definitions, records, reports, resources, revisions, tags
from klaviyo_pg.klaviyo.current import rows as current_rows
from klaviyo_pg.klaviyo.current.filters import ARCHIVED, between, moment, quoted
from klaviyo_pg.klaviyo.current.paging import Reached
from klaviyo_pg.klaviyo.current.reader import Reader
from klaviyo_pg.klaviyo.dialect import Dialect
from klaviyo_pg.klaviyo.documents import DocumentDecoder
from klaviyo_pg.klaviyo.pace import Limit
from klaviyo_pg.klaviyo.page_sizes import PageSizes
from klaviyo_pg.klaviyo.people_cache import KnownPeople, PendingPeople, PeopleCache
from klaviyo_pg.settings import Revision
from klaviyo_pg.traffic import Traffic
from klaviyo_pg.windows import FULL_READ, AnyWindow, Window

SUPPRESSION_REASONS = ("HARD_BOUNCE", "INVALID_EMAIL", "SPAM_COMPLAINT", "UNSUBSCRIBE", "USER_SUPPRESSED")
_IDS_IN_FILTER = 100  # ids in one any(): as many as a page of profiles has; the URL then has 4 KB
_PROFILE_FIELDS = (
    "email,phone_number,external_id,first_name,last_name,organization,title,created,location,properties,locale,"
    "last_event_date,updated"
)
_ACCOUNT_FIELDS = "contact_information,industry,locale,preferred_currency,test_account,timezone"
_SUPPRESSION = "subscriptions.email.marketing.suppression.reason"

_XS, _S, _M, _L, _XL = Limit(1, 15), Limit(3, 60), Limit(10, 150), Limit(75, 750), Limit(350, 3500)  # as published

ACCOUNTS = Endpoint("api/accounts", "accounts:read", _XS, name="accounts")
METRICS = Endpoint("api/metrics", "metrics:read", _M, name="metrics")
CUSTOM_METRICS = Endpoint("api/custom-metrics", "metrics:read", _S, name="custom metrics")
MAPPED_METRICS = Endpoint("api/mapped-metrics", "metrics:read", _S, name="mapped metrics")
FLOWS = Endpoint("api/flows", "flows:read", _S, 50, "flows")
LISTS = Endpoint("api/lists", "lists:read", _L, 10, "lists")
SEGMENTS = Endpoint("api/segments", "segments:read", _L, 10, "segments")
TAGS = Endpoint("api/tags", "tags:read", _S, name="tags")
EVENTS = Endpoint("api/events", "events:read", _XL, 1000, "events")
EVENT = Endpoint("api/events/{}", "events:read", _M, name="event")
PROFILES = Endpoint("api/profiles", "profiles:read", _L, 100, "profiles")
AGGREGATES = Endpoint("api/metric-aggregates", "metrics:read", _S, name="metric-aggregates")
LIST_PROFILES = Endpoint("api/lists/{}/profiles", "lists:read and profiles:read", _L, 100, "list profiles")
SEGMENT_PROFILES = Endpoint("api/segments/{}/profiles", "segments:read and profiles:read", _L, 100, "segment profiles")

_DEFINITIONS = DocumentDecoder(resources.ResourceDocument, data=resources.Resource, included=resources.Resource)
_METRICS = DocumentDecoder(resources.MetricDocument, data=resources.Metric)
_FLOWS = DocumentDecoder(resources.FlowDocument, data=resources.Flow, included=resources.Resource)
_GROUPS = DocumentDecoder(resources.GroupDocument, data=resources.Group)
_TAGS = DocumentDecoder(resources.ResourceDocument, data=resources.Resource, included=resources.Resource)
_EVENTS = DocumentDecoder(resources.EventDocument, data=resources.Event, included=msgspec.Raw)
_PROFILES = DocumentDecoder(resources.ProfileDocument, data=resources.Profile)


class CurrentSource:
    """A Klaviyo account through the current API. See `klaviyo_pg.klaviyo.source.Source`."""

    dialect = Dialect(
        looks_up_memberships=False,
        lists_people=True,
        reads_attributions=True,
        reads_messages=True,
        reads_reports=True,
        event_requests_per_minute=_XL.steady,
        people_requests_per_minute=_L.steady,
        count_interval=timedelta(hours=1),
        longest_count=timedelta(days=365),  # the longest time that one request for aggregates may span is a year
        exclusion_reasons=SUPPRESSION_REASONS,
    )
    reads_all_metrics_at_once = True

    def __init__(
        self,
        client: Client,
        sizes: PageSizes | None = None,
        events_page_size: int = EVENTS.page_size,
        revision: Revision = "2026-07-15",
    ) -> None:
        self._client, self._sizes, self._revision = client, sizes or PageSizes(), revision
        self._reader = Reader(client, self._sizes)
        self._events_endpoint = EVENTS._replace(page_size=events_page_size)

    @property
    def events_per_page(self) -> int:
        return self._sizes.of(self._events_endpoint)

    @property
    def traffic(self) -> Traffic:
        return self._client.traffic

    @property
    def api_time(self) -> datetime | None:
        return self._client.api_time

    def account(self) -> rows.Account | None:
        for accounts, _, _ in self._reader.pages(ACCOUNTS, _DEFINITIONS, {"fields[account]": _ACCOUNT_FIELDS}):
            if accounts.data:
                return definitions.account(accounts.data[0])
        return None

    def metrics(self) -> Iterator[rows.Page[rows.Metric]]:
        query = {"fields[metric]": "name,created,updated,integration"}
        for document, rejects, read_at in self._reader.pages(METRICS, _METRICS, query):
            yield rows.Page([current_rows.metric(each) for each in document.data], rejects, read_at)

    def custom_metrics(self) -> Iterator[rows.Page[rows.CustomMetric]]:
        query = {"fields[custom-metric]": "name,definition,created,updated"}
        for document, rejects, read_at in self._reader.pages(CUSTOM_METRICS, _DEFINITIONS, query):
            yield rows.Page([definitions.custom_metric(each) for each in document.data], rejects, read_at)

    def mapped_metrics(self) -> Iterator[rows.Page[rows.MappedMetric]]:
        query = {
            "include": "metric,custom-metric",  # the API refers only to what it includes
            "fields[mapped-metric]": "updated",
            "fields[metric]": "name",
            "fields[custom-metric]": "name",
        }
        for document, rejects, read_at in self._reader.pages(MAPPED_METRICS, _DEFINITIONS, query):
            yield rows.Page([definitions.mapped_metric(each) for each in document.data], rejects, read_at)

    def campaigns(self) -> Iterator[rows.Page[rows.Campaign]]:
        return revisions.CAMPAIGNS[self._revision](self._reader)

    def flows(self) -> Iterator[rows.Page[rows.Flow]]:
        parts = {f"{prefix}flows": partial(self._flows, archived) for archived, prefix in ARCHIVED.items()}
        return in_parts(parts)

    def _flows(self, archived: str) -> Iterator[rows.Page[rows.Flow]]:
        query = {
            "filter": f"equals(archived,{archived})",
            "include": "flow-actions",
            "fields[flow]": "name,status,archived,created,updated,trigger_type",
            "fields[flow-action]": "definition,created,updated",
        }
        for document, rejects, read_at in self._reader.tagged_pages(FLOWS, _FLOWS, query):
            yield rows.Page(current_rows.flows(document, rejects), rejects, read_at)

    def lists(self) -> Iterator[rows.Page[rows.Group]]:
        return self._groups(LISTS, {"fields[list]": "name,created,updated"})

    def segments(self) -> Iterator[rows.Page[rows.Group]]:
        return self._groups(SEGMENTS, {"fields[segment]": "name,created,updated,is_active,is_starred,is_processing"})

    def _groups(self, endpoint: Endpoint, query: Mapping[str, str]) -> Iterator[rows.Page[rows.Group]]:
        for document, rejects, read_at in self._reader.tagged_pages(endpoint, _GROUPS, query):
            yield rows.Page([current_rows.group(each) for each in document.data], rejects, read_at)

    def tags(self) -> Iterator[rows.Page[rows.Tag | rows.TagGroup]]:
        for document, rejects, read_at in self._reader.pages(TAGS, _TAGS, {"include": "tag-group"}):
            yield rows.Page(tags.tags(document), rejects, read_at)

    def campaign_reports(self, window: Window, metric_id: str) -> Iterator[rows.Page[rows.Report]]:
        return reports.of_campaigns(self._client, window, metric_id)

    def flow_reports(self, window: Window, metric_id: str) -> Iterator[rows.Page[rows.Report]]:
        return reports.of_flows(self._client, window, metric_id)

    def events(
        self, window: AnyWindow, metric_id: str | None = None, known_people: KnownPeople | None = None
    ) -> Iterator[rows.EventPage]:
        query = {
            "filter": _happened(window, metric_id),
            "sort": "datetime",
            "include": "attributions,profile",
            "fields[event]": "timestamp,event_properties",
            "fields[profile]": "email",  # a page repeats the people that earlier pages had, and they can be large
        }
        for document, rejects, read_at in self._reader.pages(self._events_endpoint, _EVENTS, query):
            known = known_people or PendingPeople(PeopleCache())
            page = current_rows.event_page(document, window, known, rejects, read_at)
            properties.check_metric(page.events, metric_id)
            yield page

    def beginning(self, metric_id: str, window: Window) -> rows.Beginning | None:
        times, has_more, is_readable = self._earliest(metric_id, window)
        if not is_readable:
            return None
        first = datetime.fromtimestamp(min(times), UTC) if times else None
        if not has_more:
            return rows.Beginning(first, len(times))
        if first is None or self._earliest(metric_id, Window(window.start, first)) != ([], False, True):
            return None  # the API does not sort by time
        return rows.Beginning(first, None)

    def _earliest(self, metric_id: str, window: Window) -> tuple[list[int], bool, bool]:
        """Return the times on the first page of events, whether more pages follow, and whether all could be read."""
        query = {"filter": _happened(window, metric_id), "sort": "datetime", "fields[event]": "timestamp"}
        document, rejects, _ = next(self._reader.pages(self._events_endpoint, _EVENTS, query))
        start, end = window.seconds
        times = [at for event in document.data if start <= (at := event.attributes.timestamp) < end]
        return times, bool(document.links and document.links.next), not rejects

    def counts(self, metric_id: str, window: Window) -> Iterator[rows.Count]:
        start = window.start
        while start < window.end:
            end = min(window.end, start + self.dialect.longest_count)
            yield from self._counts(metric_id, start, end)
            start = end

    def _counts(self, metric_id: str, start: datetime, end: datetime) -> list[rows.Count]:
        attributes = {
            "metric_id": metric_id,
            "measurements": ["count"],
            "filter": [f"greater-or-equal(datetime,{moment(start)})", f"less-than(datetime,{moment(end)})"],
            "interval": "hour",
            "timezone": "UTC",
        }
        body = {"data": {"type": "metric-aggregate", "attributes": attributes}}
        return self._client.post(AGGREGATES, body, read=partial(current_rows.counts, start=start, end=end))

    def profiles(self, window: AnyWindow) -> Iterator[rows.Page[rows.Profile]]:
        query = {
            "filter": ",".join(between("updated", window)),
            "sort": "updated",
            "fields[profile]": _PROFILE_FIELDS,
            "additional-fields[profile]": "subscriptions",
        }
        reached = Reached()
        for document, rejects, read_at in self._reader.pages(PROFILES, _PROFILES, query):
            updated = reached.after(each.attributes.updated for each in document.data)
            yield rows.Page([current_rows.profile(each) for each in document.data], rejects, read_at, updated)

    def latest_change(self, window: AnyWindow) -> datetime | None:
        query = {"filter": ",".join(between("updated", window)), "sort": "-updated", "fields[profile]": "updated"}
        document, _, _ = next(self._reader.pages(PROFILES, _PROFILES, query))
        return rows.utc(document.data[0].attributes.updated) if document.data else None

    def profile_ids(self, window: AnyWindow) -> Iterator[rows.Page[rows.ProfileId]]:
        query = {
            "filter": ",".join(between("created", window)),
            "sort": "created",
            "fields[profile]": "created",
        }
        reached = Reached()
        for document, rejects, read_at in self._reader.pages(PROFILES, _PROFILES, query):
            created = reached.after(each.attributes.created for each in document.data)
            yield rows.Page([current_rows.profile_id(each) for each in document.data], rejects, read_at, created)

    def event_owner(self, event_id: str) -> str | None:
        endpoint, query = EVENT.of(event_id), {"fields[event]": "timestamp"}
        return self._client.get(endpoint.path, query, endpoint, read=current_rows.owner)

    def exclusions(
        self, reason: str | None = None, window: AnyWindow = FULL_READ
    ) -> Iterator[rows.Page[rows.Exclusion]]:
        if reason is not None:
            return self._exclusions(reason, window)
        return in_parts({each: partial(self._exclusions, each, window) for each in SUPPRESSION_REASONS})

    def _exclusions(self, reason: str, window: AnyWindow) -> Iterator[rows.Page[rows.Exclusion]]:
        query = {
            "filter": ",".join([f'equals({_SUPPRESSION},"{reason}")', *between("created", window)]),
            "sort": "created",
            "fields[profile]": "email,created",
            "additional-fields[profile]": "subscriptions",
        }
        reached = Reached()
        for document, rejects, read_at in self._reader.pages(PROFILES, _PROFILES, query):
            exclusions, unusable = current_rows.exclusions(document.data, reason)
            created = reached.after(each.attributes.created for each in document.data)
            yield rows.Page(exclusions, [*rejects, *unusable], read_at, created)

    def people(self, ids: Sequence[str]) -> Iterator[rows.Page[rows.Profile]]:
        for start in range(0, len(ids), _IDS_IN_FILTER):
            any_of = ",".join(quoted(each) for each in ids[start : start + _IDS_IN_FILTER])
            query = {
                "filter": f"any(id,[{any_of}])",
                "fields[profile]": _PROFILE_FIELDS,
                "additional-fields[profile]": "subscriptions",
            }
            for document, rejects, read_at in self._reader.pages(PROFILES, _PROFILES, query):
                yield rows.Page([current_rows.profile(each) for each in document.data], rejects, read_at)

    def memberships(
        self, list_id: str, window: AnyWindow, addresses: Iterable[str] = ()
    ) -> Iterator[rows.MembershipPage]:
        for page in self._members_of(LIST_PROFILES, list_id, window):
            yield rows.MembershipPage(page.rows, (), page.rejects, page.read_at, page.reached)

    def segment_members(self, segment_id: str, window: AnyWindow) -> Iterator[rows.Page[rows.Membership]]:
        return self._members_of(SEGMENT_PROFILES, segment_id, window)

    def templates(self, window: AnyWindow) -> Iterator[rows.Page[rows.Template]]:
        return content.templates(self._reader, window)

    def forms(self, window: AnyWindow) -> Iterator[rows.Page[rows.Form]]:
        return content.forms(self._reader, window)

    def images(self, window: AnyWindow) -> Iterator[rows.Page[rows.Image]]:
        return content.images(self._reader, window)

    def records(self, stream: str, window: AnyWindow, subject: str | None = None) -> Iterator[rows.Page[rows.Record]]:
        return records.READS[stream](self._reader, window, subject)

    def _members_of(self, endpoint: Endpoint, group_id: str, window: AnyWindow) -> Iterator[rows.Page[rows.Membership]]:
        query = {
            "filter": ",".join(between("joined_group_at", window)),
            "sort": "joined_group_at",
            "fields[profile]": "joined_group_at",
        }
        reached = Reached()
        for document, rejects, read_at in self._reader.pages(endpoint.of(group_id), _PROFILES, query):
            members = [current_rows.membership(group_id, each) for each in document.data]
            yield rows.Page(members, rejects, read_at, reached.after(each.joined for each in members))


def _happened(window: AnyWindow, metric_id: str | None) -> str:
    """Return the filter for the events of a window, of one metric or of all."""
    conditions = [f"equals(metric_id,{quoted(metric_id)})"] if metric_id else []
    return ",".join([*conditions, *between("datetime", window)])
