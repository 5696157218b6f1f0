"""The answers about campaigns since revision 2026-10-15: campaigns with audiences, messages and variations."""

from collections.abc import Iterable

from starlette.requests import Request

from sandbox.account import Account, Campaign
from sandbox.account.omnichannel import Message, audiences_of, message_of
from sandbox.api.endpoint import Context
from sandbox.current import allowed, listing, omnichannel_resources, resources
from sandbox.current.documents import page_document, read, refuse_future, row_document, row_of
from sandbox.current.listing import Page, Views
from sandbox.current.query import Query
from sandbox.current.resources import Resource


class Omnichannel:
    """The endpoints of campaigns."""

    def __init__(self, account: Account) -> None:
        self._account, self._views = account, Views(account)

    async def campaigns(self, context: Context, request: Request) -> bytes:
        query = read(allowed.OMNICHANNEL_CAMPAIGNS, request)
        refuse_future(context, query, "created_at", "updated_at")
        wants_archived = any(condition.field == "archived" for condition in query.conditions)
        rows = [row for row in self._account.campaigns.values() if wants_archived or not row.archived]
        page = self._views.page("campaigns", query, lambda: listing.rows(rows, query))
        return page_document(query, page, lambda row: self._campaign(query, row), self._included(query, page.items))

    async def campaign(self, context: Context, request: Request) -> bytes:
        query = read(allowed.OMNICHANNEL_CAMPAIGNS.single(), request)
        row: Campaign = row_of(request, "campaign", self._account.campaigns)
        return row_document(query, self._campaign(query, row), self._included(query, [row]))

    def _campaign(self, query: Query, row: Campaign) -> Resource:
        tags = self._tags(row) if "tags" in query.include else None
        names = query.fields["campaign"]
        return omnichannel_resources.omnichannel_campaign(
            query.base, row, names, audiences_of(row), message_of(row), tags
        )

    def _tags(self, row: Campaign) -> list[str]:
        return [tag for tag in row.tags if tag in self._account.tags]

    def _included(self, query: Query, rows: Iterable[Campaign]) -> list[Resource]:
        included: dict[str, Resource] = {}
        for row in rows:
            message = message_of(row)
            if "campaign-audiences" in query.include:
                for each in audiences_of(row):
                    names = query.fields["campaign-audience"]
                    included[each.id] = omnichannel_resources.campaign_audience(query.base, each, row, message, names)
            if "campaign-messages" in query.include:
                included[message.id] = _message(query, message)
            for tag in self._tags(row) if "tags" in query.include else ():
                names = query.fields["tag"]
                included[tag] = resources.tag(query.base, self._account.tags[tag], names, has_group=False)
        return list(included.values())

    async def messages(self, context: Context, request: Request) -> bytes:
        query = read(allowed.OMNICHANNEL_MESSAGES, request)
        page = self._views.page("messages", query, lambda: listing.rows(self._messages().values(), query))
        return page_document(query, page, lambda row: _message(query, row), self._of_messages(query, page.items))

    async def message(self, context: Context, request: Request) -> bytes:
        query = read(allowed.OMNICHANNEL_MESSAGES.single(), request)
        row: Message = row_of(request, "campaign-message", self._messages())
        return row_document(query, _message(query, row), self._of_messages(query, [row]))

    async def of_campaign(self, context: Context, request: Request) -> bytes:
        query = read(allowed.OMNICHANNEL_MESSAGES.single(), request)
        row = message_of(row_of(request, "campaign", self._account.campaigns))
        page = Page([row], None)
        return page_document(query, page, lambda row: _message(query, row), self._of_messages(query, [row]))

    async def variations(self, context: Context, request: Request) -> bytes:
        query = read(allowed.VARIATIONS, request)
        row: Message = row_of(request, "campaign-message", self._messages())
        names = query.fields["campaign-variation"]
        page = Page(list(row.variations), None)
        return page_document(
            query, page, lambda each: omnichannel_resources.campaign_variation(query.base, each, row, names)
        )

    def _messages(self) -> dict[str, Message]:
        return {message.id: message for message in map(message_of, self._account.campaigns.values())}

    def _of_messages(self, query: Query, rows: Iterable[Message]) -> list[Resource]:
        included = []
        for row in rows:
            if "campaign" in query.include:
                included.append(self._campaign(query, self._account.campaigns[row.campaign_id]))
            if "campaign-variations" in query.include:
                names = query.fields["campaign-variation"]
                included += [
                    omnichannel_resources.campaign_variation(query.base, each, row, names) for each in row.variations
                ]
        return included


def _message(query: Query, row: Message) -> Resource:
    has_variations = "campaign-variations" in query.include
    return omnichannel_resources.omnichannel_message(query.base, row, query.fields["campaign-message"], has_variations)
