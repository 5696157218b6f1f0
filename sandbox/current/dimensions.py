"""The answers about the account, metrics, campaigns, flows, lists and segments."""

from collections.abc import Iterable, Sequence
from typing import Any

from starlette.requests import Request

from sandbox.account import Account, Campaign, CampaignMessage, Flow, Group
from sandbox.account.flow_actions import actions_of
from sandbox.api.endpoint import Context
from sandbox.api.keys import account_of
from sandbox.current import allowed, listing, resources
from sandbox.current.documents import links, page_document, read, refuse_future, row_document, row_of
from sandbox.current.errors import invalid
from sandbox.current.listing import Page, Views
from sandbox.current.query import Query
from sandbox.encoding import dump

_CHANNELS = ("email", "sms", "mobile_push")


class Dimensions:
    """The endpoints of everything except profiles and events."""

    def __init__(self, account: Account) -> None:
        self._account, self._views = account, Views(account)

    def _page(self, name: str, query: Query, rows: Iterable[Any]) -> Page:
        return self._views.page(name, query, lambda: listing.rows(rows, query))

    async def accounts(self, context: Context, request: Request) -> bytes:
        query = read(allowed.ACCOUNTS, request)
        rows = [resources.account(query.base, self._account, self._account_id(request), query.fields["account"])]
        return dump({"data": rows, "links": links(query, None)})

    async def account(self, context: Context, request: Request) -> bytes:
        query = read(allowed.ACCOUNTS, request)
        account_id = self._account_id(request)
        row: Account = row_of(request, "account", {account_id: self._account})
        return row_document(query, resources.account(query.base, row, account_id, query.fields["account"]))

    def _account_id(self, request: Request) -> str:
        key = request.headers.get("authorization", "").partition(" ")[2]
        return account_of(key, self._account.options.account)

    async def metrics(self, context: Context, request: Request) -> bytes:
        query = read(allowed.METRICS, request)
        page = self._page("metrics", query, self._account.metrics.values())
        return page_document(query, page, lambda row: resources.metric(query.base, row, query.fields["metric"]))

    async def metric(self, context: Context, request: Request) -> bytes:
        query = read(allowed.METRICS.single(), request)
        row = row_of(request, "metric", self._account.metrics)
        return row_document(query, resources.metric(query.base, row, query.fields["metric"]))

    async def custom_metrics(self, context: Context, request: Request) -> bytes:
        query = read(allowed.CUSTOM_METRICS, request)
        rows = list(self._account.definitions.custom_metrics.values())
        names, includes_metrics = query.fields["custom-metric"], "metrics" in query.include
        included = self._metrics_of(query, [each for row in rows for each in row.groups]) if includes_metrics else []
        return page_document(
            query,
            Page(rows, None),
            lambda row: resources.custom_metric(query.base, row, names, includes_metrics),
            included,
        )

    async def mapped_metrics(self, context: Context, request: Request) -> bytes:
        query = read(allowed.MAPPED_METRICS, request)
        rows, names = list(self._account.definitions.mapped_metrics.values()), query.fields["mapped-metric"]
        included = self._metrics_of(query, [row.metric for row in rows]) if "metric" in query.include else []
        if "custom-metric" in query.include:
            custom, ids = self._account.definitions.custom_metrics, {row.custom_metric for row in rows}
            fields = query.fields["custom-metric"]
            included += [
                resources.custom_metric(query.base, each, fields, False) for each in custom.values() if each.id in ids
            ]
        return page_document(
            query,
            Page(rows, None),
            lambda row: resources.mapped_metric(query.base, row, names, query.include),
            included,
        )

    def _metrics_of(self, query: Query, ids: Iterable[str | None]) -> list[resources.Resource]:
        metrics = [self._account.metrics[each] for each in dict.fromkeys(ids) if each in self._account.metrics]
        return [resources.metric(query.base, each, query.fields["metric"]) for each in metrics]

    async def campaigns(self, context: Context, request: Request) -> bytes:
        query = read(allowed.CAMPAIGNS, request)
        _require_channel(query)
        refuse_future(context, query, "created_at", "scheduled_at", "updated_at")
        page = self._page("campaigns", query, _unarchived(query, self._account.campaigns.values()))
        messages = [message for row in page.items for message in _included_messages(query, row)]
        names, included = query.fields["campaign"], [*messages, *self._included_tags(query, page.items)]
        return page_document(
            query, page, lambda row: resources.campaign(query.base, row, names, self._tags(query, row)), included
        )

    async def campaign(self, context: Context, request: Request) -> bytes:
        query = read(allowed.CAMPAIGNS.single(), request)
        row: Campaign = row_of(request, "campaign", self._account.campaigns)
        resource = resources.campaign(query.base, row, query.fields["campaign"], self._tags(query, row))
        return row_document(query, resource, [*_included_messages(query, row), *self._included_tags(query, [row])])

    async def campaign_messages(self, context: Context, request: Request) -> bytes:
        query = read(allowed.CAMPAIGN_MESSAGES, request)
        campaign: Campaign = row_of(request, "campaign", self._account.campaigns)
        names = query.fields["campaign-message"]
        return page_document(
            query,
            Page(list(campaign.messages), None),
            lambda row: resources.campaign_message(query.base, row, names),
            _included_campaign(query, campaign),
        )

    async def campaign_message(self, context: Context, request: Request) -> bytes:
        query = read(allowed.CAMPAIGN_MESSAGES, request)
        campaigns = self._account.campaigns
        messages = {message.id: message for row in campaigns.values() for message in row.messages}
        row: CampaignMessage = row_of(request, "campaign-message", messages)
        resource = resources.campaign_message(query.base, row, query.fields["campaign-message"])
        return row_document(query, resource, _included_campaign(query, campaigns[row.campaign_id]))

    async def flows(self, context: Context, request: Request) -> bytes:
        query = read(allowed.FLOWS, request)
        page = self._page("flows", query, _unarchived(query, self._account.flows.values()))
        actions = [action for row in page.items for action in _included_actions(query, row)]
        included = [*actions, *self._included_tags(query, page.items)]
        return page_document(query, page, lambda row: self._flow(query, row), included)

    async def flow(self, context: Context, request: Request) -> bytes:
        query = read(allowed.FLOWS.single(), request)
        row = row_of(request, "flow", self._account.flows)
        included = [*_included_actions(query, row), *self._included_tags(query, [row])]
        return row_document(query, self._flow(query, row), included)

    def _flow(self, query: Query, row: Flow) -> resources.Resource:
        actions = [action.id for action in actions_of(row)] if "flow-actions" in query.include else None
        return resources.flow(query.base, row, query.fields["flow"], actions, self._tags(query, row))

    async def lists(self, context: Context, request: Request) -> bytes:
        query = read(allowed.LISTS, request)
        page = self._page("lists", query, self._account.lists.values())
        return self._groups(query, page, "list")

    async def list(self, context: Context, request: Request) -> bytes:
        query = read(allowed.LIST, request)
        row = row_of(request, "list", self._account.lists)
        return row_document(query, self._group(query, row, "list"), self._included_tags(query, [row]))

    async def segments(self, context: Context, request: Request) -> bytes:
        query = read(allowed.SEGMENTS, request)
        page = self._page("segments", query, self._account.segments.values())
        return self._groups(query, page, "segment")

    async def segment(self, context: Context, request: Request) -> bytes:
        query = read(allowed.SEGMENT, request)
        row = row_of(request, "segment", self._account.segments)
        return row_document(query, self._group(query, row, "segment"), self._included_tags(query, [row]))

    def _groups(self, query: Query, page: Page, kind: str) -> bytes:
        included = self._included_tags(query, page.items)
        return page_document(query, page, lambda row: self._group(query, row, kind), included)

    def _group(self, query: Query, row: Group, kind: str) -> resources.Resource:
        tags = self._tags(query, row)
        return resources.group(query.base, row, query.fields[kind], query.additional, tags)

    async def tags(self, context: Context, request: Request) -> bytes:
        query = read(allowed.TAGS, request)
        page = self._page("tags", query, self._account.tags.values())
        has_groups = "tag-group" in query.include
        groups = {row.group_id: self._account.tag_groups[row.group_id] for row in page.items}
        names = query.fields["tag-group"]
        included = [resources.tag_group(query.base, group, names) for group in groups.values()]
        return page_document(
            query, page, lambda row: resources.tag(query.base, row, query.fields["tag"], has_groups), included
        )

    def _tags(self, query: Query, row: Campaign | Flow | Group) -> resources.Ids:
        """Return the ids of a row's tags, without deleted ones; None if they are not included."""
        if "tags" not in query.include:
            return None
        return [tag for tag in row.tags if tag in self._account.tags]

    def _included_tags(self, query: Query, rows: Iterable[Campaign | Flow | Group]) -> Sequence[resources.Resource]:
        ids = dict.fromkeys(tag for row in rows for tag in self._tags(query, row) or ())
        names = query.fields.get("tag")
        return [resources.tag(query.base, self._account.tags[tag], names, has_group=False) for tag in ids]


def _require_channel(query: Query) -> None:
    channels = [condition.value for condition in query.conditions if condition.field == "messages.channel"]
    if not channels:
        raise invalid("A channel filter is required to list campaigns.", "filter")
    if channels[0] not in _CHANNELS:
        raise invalid(f"'{channels[0]}' is not a channel.  Channels are {', '.join(_CHANNELS)}", "filter")


def _unarchived(query: Query, rows: Iterable[Any]) -> Iterable[Any]:
    """Return the rows without archived ones, or all rows if the query has a condition on `archived`."""
    has_condition = any(condition.field == "archived" for condition in query.conditions)
    return rows if has_condition else [row for row in rows if not row.archived]


def _included_messages(query: Query, row: Campaign) -> list[resources.Resource]:
    if "campaign-messages" not in query.include:
        return []
    names = query.fields["campaign-message"]
    return [resources.campaign_message(query.base, message, names) for message in row.messages]


def _included_actions(query: Query, row: Flow) -> list[resources.Resource]:
    if "flow-actions" not in query.include:
        return []
    names = query.fields["flow-action"]
    return [resources.flow_action(query.base, action, row, names) for action in actions_of(row)]


def _included_campaign(query: Query, row: Campaign) -> list[resources.Resource]:
    if "campaign" not in query.include:
        return []
    return [resources.campaign(query.base, row, query.fields["campaign"])]
