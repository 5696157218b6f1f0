"""Campaigns, audiences, messages and variations of revision 2026-10-15 turned into rows. Sends no requests.

Nothing but IDs has to be well-formed: values that are missing or of another type become null.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from klaviyo_pg import rows
from klaviyo_pg.klaviyo.current import tags
from klaviyo_pg.klaviyo.current.resources import Resource, ResourceDocument
from klaviyo_pg.klaviyo.lenient import boolean, elements, member, moment, related_id
from klaviyo_pg.klaviyo.properties import plain_text

_STATUSES: Mapping[str, str] = {  # as earlier revisions name them; the first one that a message has is the campaign's
    "sending": "Sending",
    "scheduled": "Scheduled",
    "sent": "Sent",
    "draft": "Draft",
    "cancelled": "Cancelled",
}
_CHANNELS: Mapping[str, str] = {"push": "mobile_push"}
_AUDIENCES = "campaign-audiences"
_LOCAL_STRATEGIES = frozenset({"local_timezone", "content_variation_local_timezone"})


class Messages:
    """The messages that have been read so far, with their variations and the campaigns that they belong to."""

    def __init__(self) -> None:
        self._messages: dict[str, Resource] = {}
        self._variations: dict[str, Sequence[Resource]] = {}  # only of messages of which all are known
        self._of_campaigns: dict[str, list[str]] = {}
        self._used: set[str] = set()

    def add(self, messages: Iterable[Resource], included: Iterable[Resource] = ()) -> None:
        """Add the messages of a page with the variations that it includes. Messages that are known stay as they are."""
        variations = {each.id: each for each in included if each.type in (None, "campaign-variation")}
        own = _by_owner(variations.values(), "campaign-message")
        for message in messages:
            if message.id in self._messages:
                continue
            self._messages[message.id] = message
            if (campaign_id := related_id(message.relationships, "campaign")) is not None:
                self._of_campaigns.setdefault(campaign_id, []).append(message.id)
            if (found := _variations_of(message, variations, own.get(message.id, ()))) is not None:
                self._variations[message.id] = found

    def add_variations(self, message_id: str, variations: Sequence[Resource]) -> None:
        """Add all variations of a message."""
        self._variations[message_id] = variations

    def _of(self, campaign: Resource) -> list[Resource]:
        """Return the messages of a campaign: those that it refers to, then others that refer to it."""
        ids = [*_references(campaign, "campaign-messages"), *self._of_campaigns.get(campaign.id, ())]
        return [self._messages[each] for each in dict.fromkeys(ids) if each in self._messages]

    def without_variations(self, campaign: Resource) -> list[str]:
        """Return the messages of a campaign whose variations are not known."""
        return [each.id for each in self._of(campaign) if each.id not in self._variations]

    def used(self, campaign: Resource) -> list[tuple[Resource, Sequence[Resource]]]:
        """Return the messages of a campaign with their variations. They are then not among `of_no_campaign`."""
        messages = self._of(campaign)
        self._used.update(each.id for each in messages)
        return [(each, self._variations.get(each.id, ())) for each in messages]

    def lacks(self, campaign: Resource) -> bool:
        """Return whether a campaign refers to a message that is not known."""
        return not self._messages.keys() >= set(_references(campaign, "campaign-messages"))

    def of_no_campaign(self) -> list[rows.Reject]:
        """Return the messages that belong to none of the campaigns that were read, as rejects."""
        others = [each for each in self._messages.values() if each.id not in self._used]
        return [_reject(each, "The message belongs to none of the campaigns.") for each in others]


def _variations_of(
    message: Resource, included: Mapping[str, Resource], own: Sequence[str]
) -> Sequence[Resource] | None:
    """Return the variations of a message, of which `own` name it; None if the page does not include all of them."""
    ids = _references(message, "campaign-variations")
    says_which = isinstance(member(message.relationships, "campaign-variations", "data"), list)
    if not all(each in included for each in ids) or not (says_which or own):
        return None
    return [included[each] for each in dict.fromkeys([*ids, *own])]


def _references(resource: Resource, name: str) -> list[str]:
    ids = (member(each, "id") for each in elements(member(resource.relationships, name, "data")))
    return [each for each in ids if isinstance(each, str)]


def campaign(
    resource: Resource, audiences: Sequence[Resource], messages: Messages, rejects: list[rows.Reject]
) -> rows.Campaign | None:
    """Return a campaign with these audiences. If any that it refers to is missing, or a message, it is rejected."""
    of_campaign = messages.used(resource)
    if messages.lacks(resource) or not {each.id for each in audiences} >= set(_references(resource, _AUDIENCES)):
        rejects.append(_reject(resource, "The page does not include all audiences and messages of the campaign."))
        return None
    definition = member(resource.attributes, "definition")
    to, excluded = (_lists(audiences, name, rejects) for name in ("included", "excluded"))
    variations = [each for _, several in of_campaign for each in several]
    content = next((details for each in variations if (details := _details(each))), {})
    return rows.Campaign(
        id=resource.id,
        name=plain_text(member(definition, "name")),
        list_id=to[0] if to else None,
        from_email=plain_text(content.get("from_email")),
        from_name=plain_text(content.get("from_label")),
        subject=plain_text(content.get("subject")),
        status=_status([message for message, _ in of_campaign]),
        sent_at=_earliest(of_campaign, ("sending", "sent")),
        campaign_type=",".join(sorted({channel for each in variations if (channel := _channel(each))})) or None,
        created=moment(member(resource.attributes, "created_at")),
        updated=moment(member(resource.attributes, "updated_at")),
        included=to,
        excluded=excluded,
        archived=boolean(member(definition, "archived")),
        scheduled_at=_earliest(of_campaign, ("scheduled", "sending", "sent")),
        messages=[row for message, several in of_campaign for row in _rows(message, several, resource.id)],
        tags=tags.ids_of(resource.relationships),
    )


def audiences(document: ResourceDocument) -> Mapping[str, Sequence[Resource]]:
    """Return the audiences that a page includes by the id of their campaign, in its order."""
    found = {each.id: each for each in document.included if each.type in (None, "campaign-audience")}
    own = _by_owner(found.values(), "campaign")
    ids = {each.id: [*_references(each, _AUDIENCES), *own.get(each.id, ())] for each in document.data}
    return {each: [found[one] for one in dict.fromkeys(several) if one in found] for each, several in ids.items()}


def _by_owner(resources: Iterable[Resource], name: str) -> Mapping[str, Sequence[str]]:
    """Return the ids of resources by the id of the related resource that they name."""
    ids: dict[str, list[str]] = {}
    for each in resources:
        if (owner := related_id(each.relationships, name)) is not None:
            ids.setdefault(owner, []).append(each.id)
    return ids


def _lists(audiences: Iterable[Resource], name: str, rejects: list[rows.Reject]) -> list[str]:
    """Return the ids of the lists and segments that any audience includes or excludes, each once."""
    ids: dict[str, None] = {}
    for audience in audiences:
        found = elements(member(audience.attributes, "definition", name))
        readable = [each for each in found if isinstance(each, str) and "\0" not in each]
        ids.update(dict.fromkeys(readable))
        if len(readable) < len(found):
            rejects.append(_reject(audience, "The audience has a list whose ID is not text."))
    return list(ids)


def _status(messages: Sequence[Resource]) -> str | None:
    """Return the status of a campaign, of which only its messages have one."""
    statuses = [status for each in messages if (status := _status_of(each))]
    known = [name for name in _STATUSES.values() if name in statuses]
    return next(iter([*known, *statuses]), None)


def _status_of(message: Resource) -> str | None:
    status = plain_text(member(message.attributes, "definition", "status"))
    return status and _STATUSES.get(status, status)


def _earliest(messages: Iterable[tuple[Resource, object]], statuses: Sequence[str]) -> datetime | None:
    """Return the earliest time of sending of the messages that have one of these statuses."""
    several = (each for each, _ in messages if member(each.attributes, "definition", "status") in statuses)
    return min((at for each in several for at in _times(each)), default=None)


def _times(message: Resource, variation_id: str | None = None) -> list[datetime]:
    """Return the times of sending of a message, or of one variation, in order."""
    options = member(message.attributes, "definition", "send_options")
    by_variation = member(options, "send_times")
    several = by_variation if isinstance(by_variation, dict) else {}
    own = [several[variation_id]] if variation_id in several else several.values() if variation_id is None else ()
    return sorted(at for each in (own or [member(options, "send_time")]) if (at := moment(each)))


def _details(variation: Resource) -> Mapping[str, Any]:
    details = member(variation.attributes, "definition", "details")
    return details if isinstance(details, dict) else {}


def _channel(variation: Resource) -> str | None:
    channel = plain_text(_details(variation).get("channel"))
    return channel and _CHANNELS.get(channel, channel)


def _rows(message: Resource, variations: Sequence[Resource], campaign_id: str) -> Iterator[rows.CampaignMessage]:
    """Yield the row of a message, and one for each of its variations if it has several."""
    yield _row(message, message, variations[0] if variations else None, campaign_id, _times(message))
    if len(variations) > 1:
        for each in (each for each in variations if each.id != message.id):
            yield _row(each, message, each, campaign_id, _times(message, each.id))._replace(variation_of=message.id)


def _row(
    resource: Resource, message: Resource, variation: Resource | None, campaign_id: str, times: Sequence[datetime]
) -> rows.CampaignMessage:
    """Return the row of a message or of a variation, with the content of the variation."""
    details = {} if variation is None else _details(variation)

    def text(name: str) -> str | None:
        return plain_text(details.get(name))

    return rows.CampaignMessage(
        id=resource.id,
        campaign_id=campaign_id,
        channel=None if variation is None else _channel(variation),
        label=plain_text(member(resource.attributes, "definition", "name")),
        subject=text("subject") or text("title"),
        preview_text=text("preview_text"),
        body=text("body"),
        from_email=text("from_email"),
        from_name=text("from_label"),
        reply_to_email=text("reply_to_email"),
        template_id=text("template_id"),
        status=_status_of(message),
        send_at=times[0] if times else None,
        last_send_at=times[-1] if times else None,
        is_local=_is_local(message) if times else None,
        created=moment(member(resource.attributes, "created")),
        updated=moment(member(resource.attributes, "updated")),
    )


def _is_local(message: Resource) -> bool | None:
    strategy = member(message.attributes, "definition", "send_options", "send_strategy")
    return strategy in _LOCAL_STRATEGIES if isinstance(strategy, str) else None


def _reject(resource: Resource, reason: str) -> rows.Reject:
    return rows.Reject(msgspec.json.encode(resource).decode(), reason)
