"""A program that reads the campaigns of a sandbox with Klaviyo's client for revision 2026-10-15, and prints them.

That client and the one for 2026-07-15 are versions of one package, so it runs in a process with another path.
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import openapi_client as vendor
from klaviyo_api import KlaviyoAPI


def pages(call: Callable[..., Any], model: Any, **parameters: Any) -> Iterator[Any]:
    """Yield all pages. Check that each is the vendor's model and not an unvalidated dictionary."""
    cursor: str | None = None
    while True:
        page = call(page_cursor=cursor, **parameters)
        assert type(page) is model
        yield page
        if page.links.next is None:
            return
        cursor = parse_qs(urlsplit(page.links.next).query)["page[cursor]"][0]


def included(model: Any, page: Any, kind: str) -> list[Any]:
    """Return the included resources of a kind, which the client does not parse, as the vendor's model."""
    return [model.from_dict(resource) for resource in page.included if resource["type"] == kind]


def campaigns(client: KlaviyoAPI) -> Iterator[tuple[str, bool, list[str]]]:
    """Yield the id of each campaign, whether it is archived, and its lists and segments."""
    for archived in ("false", "true"):
        for page in pages(
            client.Campaigns.get_campaigns,
            vendor.GetOmniCampaignResponseCollectionCompoundDocument,
            filter=f"equals(archived,{archived})",
            include=["campaign-audiences", "campaign-messages", "tags"],
            page_size=50,
        ):
            found = included(vendor.AudienceResponseObjectResource, page, "campaign-audience")
            audiences = {each.id: each.attributes.definition for each in found}
            messages = {each.id for each in included(vendor.MessageResponseObjectResource, page, "campaign-message")}
            tags = {each.id for each in included(vendor.TagResponseObjectResource, page, "tag")}
            assert tags == {tag.id for row in page.data for tag in row.relationships.tags.data}
            for row in page.data:
                assert {each.id for each in row.relationships.campaign_messages.data} <= messages
                groups = [audiences[each.id].included for each in row.relationships.campaign_audiences.data]
                yield row.id, row.attributes.definition.archived, [each for group in groups for each in group]


def messages(client: KlaviyoAPI) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the id of each message, its campaign, and the channels of its variations.

    The client's model does not allow that the list of messages includes variations, so they are read one by one.
    """
    model = vendor.GetMessageResponseCollectionCompoundDocument
    for page in pages(client.Campaigns.get_campaign_messages, model, include=["campaign"], page_size=100):
        for row in page.data:
            answer = client.Campaigns.get_variations_for_campaign_message(row.id)
            assert type(answer) is vendor.GetVariationResponseCollection
            channels = [each.attributes.definition.details["channel"] for each in answer.data]
            yield row.id, row.relationships.campaign.data.id, channels


if __name__ == "__main__":
    url, key = sys.argv[1:]
    client = KlaviyoAPI(key, max_retries=1, test_host=url)
    revision = client.api_client.default_headers["revision"]
    json.dump([revision, list(campaigns(client)), list(messages(client))], sys.stdout)
