"""Campaigns as revision 2026-10-15 serves them: with audiences, messages on any channel, and variations of messages.

The content is that of the variations, which only the messages include, so the messages are read first.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from klaviyo_pg import rows
from klaviyo_pg.errors import NotFound, OtherRevision, Refused
from klaviyo_pg.klaviyo.client import Endpoint
from klaviyo_pg.klaviyo.collections import in_parts
from klaviyo_pg.klaviyo.current import resources
from klaviyo_pg.klaviyo.current.filters import ARCHIVED
from klaviyo_pg.klaviyo.current.omnichannel_rows import Messages, audiences, campaign
from klaviyo_pg.klaviyo.current.paging import ReadPage
from klaviyo_pg.klaviyo.current.reader import Reader, unless_refused
from klaviyo_pg.klaviyo.documents import DocumentDecoder
from klaviyo_pg.klaviyo.lenient import member
from klaviyo_pg.klaviyo.pace import Limit

_REVISION = "2026-10-15"
_M = Limit(10, 150)
_CAMPAIGNS = Endpoint("api/campaigns", "campaigns:read", _M, 100, "campaigns")
_MESSAGES = Endpoint("api/campaign-messages", "campaigns:read", _M, 100, "campaign messages")
_VARIATIONS = Endpoint(
    "api/campaign-messages/{}/campaign-variations", "campaigns:read", _M, name="variations of campaign messages"
)
_DOCUMENT = DocumentDecoder(resources.ResourceDocument, data=resources.Resource, included=resources.Resource)
_OF_EARLIER_REVISIONS = ("name", "status", "audiences", "send_time")


def read(reader: Reader) -> Iterator[rows.Page[rows.Campaign]]:
    """Read all campaigns, each with its messages and the content of the first variation that has some."""
    messages = Messages()
    yield from _messages(reader, messages)
    parts = {f"{prefix}campaigns": partial(_part, reader, archived, messages) for archived, prefix in ARCHIVED.items()}
    is_complete = True
    for page in in_parts(parts):
        is_complete, read_at = page.incomplete is None, page.read_at
        yield page
    if is_complete and (rejects := messages.of_no_campaign()):
        yield rows.Page((), rejects, read_at)


def _messages(reader: Reader, messages: Messages) -> Iterator[rows.Page[rows.Campaign]]:
    """Read the messages of all campaigns, and yield the records that could not be read."""
    for document, rejects, read_at in _with_variations(reader):
        messages.add(document.data, document.included)
        if rejects:
            yield rows.Page((), rejects, read_at)


def _with_variations(reader: Reader) -> Iterator[ReadPage[resources.ResourceDocument]]:
    """Read the messages with their variations; without them if the API refuses to include them."""
    included = reader.pages(_MESSAGES, _DOCUMENT, {"include": "campaign-variations"})
    return unless_refused(included, Refused, reader.pages(_MESSAGES, _DOCUMENT, {}))


def _part(reader: Reader, archived: str, messages: Messages) -> Iterator[rows.Page[rows.Campaign]]:
    query = {"filter": f"equals(archived,{archived})", "include": "campaign-audiences,campaign-messages"}
    for document, rejects, read_at in reader.tagged_pages(_CAMPAIGNS, _DOCUMENT, query):
        if any(map(_is_of_another_revision, document.data)):
            raise OtherRevision("campaigns", _REVISION)
        messages.add([each for each in document.included if each.type == "campaign-message"])
        for each in document.data:
            for message_id in messages.without_variations(each):
                messages.add_variations(message_id, _variations(reader, message_id, rejects))
        of_campaigns = audiences(document)
        campaigns = [campaign(each, of_campaigns[each.id], messages, rejects) for each in document.data]
        yield rows.Page([each for each in campaigns if each is not None], rejects, read_at)


def _variations(reader: Reader, message_id: str, rejects: list[rows.Reject]) -> Sequence[resources.Resource]:
    """Read the variations of one message; none if it was deleted in the meantime."""
    variations: list[resources.Resource] = []
    try:
        for document, of_page, _ in reader.pages(_VARIATIONS.of(message_id), _DOCUMENT, {}):
            variations += document.data
            rejects += of_page
    except NotFound:
        return ()
    return variations


def _is_of_another_revision(resource: resources.Resource) -> bool:
    attributes = resource.attributes
    has_definition = isinstance(member(attributes, "definition"), dict)
    return not has_definition and any(member(attributes, name) is not None for name in _OF_EARLIER_REVISIONS)
