"""The attributions on a page of events turned into rows. Sends no requests.

An event refers to its attributions by their IDs, and each attribution to its event. Either is enough. What cannot be
read is a reject that hides rows: it may be an attribution that is stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from klaviyo_pg import rows
from klaviyo_pg.klaviyo.current import resources
from klaviyo_pg.klaviyo.documents import reject

_ATTRIBUTION, _MARK = "attribution", b'"attribution"'
_UNREADABLE = "The event's references to its attributions cannot be read: "
_NOTHING = resources.AttributionRelationships()
_decode_type = msgspec.json.Decoder(resources.Included).decode
_decode_attribution = msgspec.json.Decoder(resources.Attribution).decode
_decode_references: Any = msgspec.json.Decoder(resources.References | None).decode
_references: Any = attrgetter("relationships.attributions")


def is_attribution(record: bytes) -> bool:
    """Return whether an included resource is an attribution."""
    try:
        return _MARK in record and bool(_decode_type(record).type == _ATTRIBUTION)
    except (msgspec.MsgspecError, RecursionError):
        return False


def attributions(
    events: Sequence[resources.Event], records: Sequence[bytes], rejects: list[rows.Reject]
) -> list[rows.Attribution]:
    """Return the attributions of events. Of one that is not included, only its ID is known.

    `records` are the included attributions. Those that cannot be read are added to the rejects.
    """
    referring = _referring(events)
    if not (records or referring):
        return []
    included = _included(records, rejects)
    found = {(event.id, each): event for event in referring for each in _ids(event, rejects)}
    for row_id, event in _linked(events, included):
        found.setdefault((event.id, row_id), event)
    return [_row(event, row_id, included.get(row_id)) for (_, row_id), event in found.items()]


def _referring(events: Sequence[resources.Event]) -> list[resources.Event]:
    """Return the events that refer to attributions."""
    try:
        references = list(map(_references, events))
    except AttributeError:  # one has no relationships
        return [event for event in events if event.relationships and event.relationships.attributions]
    return [event for event, each in zip(events, references, strict=True) if each] if any(references) else []


def _included(records: Sequence[bytes], rejects: list[rows.Reject]) -> Mapping[str, resources.AttributionRelationships]:
    """Return the relationships of attributions by ID."""
    included = {}
    for record in records:
        try:
            attribution = _decode_attribution(record)
        except (msgspec.MsgspecError, RecursionError) as error:
            rejects.append(reject(record, error))
        else:
            included[attribution.id] = attribution.relationships or _NOTHING
    return included


def _ids(event: resources.Event, rejects: list[rows.Reject]) -> list[str]:
    """Return the IDs of the attributions that an event refers to."""
    assert event.relationships is not None
    try:
        references = _decode_references(event.relationships.attributions)
    except (msgspec.MsgspecError, RecursionError) as error:
        unreadable = reject(msgspec.json.encode({"id": event.id, "relationships": event.relationships}), error)
        rejects.append(unreadable._replace(reason=_UNREADABLE + unreadable.reason, replaced=1))
        return []
    return [each.id for each in (references and references.data) or ()]


def _linked(
    events: Sequence[resources.Event], included: Mapping[str, resources.AttributionRelationships]
) -> Iterator[tuple[str, resources.Event]]:
    """Yield the attributions that refer to events of the page, with these."""
    by_id = {event.id: event for event in events}
    for row_id, related in included.items():
        event = by_id.get(resources.id_of(related.event) or "")
        if event is not None:
            yield row_id, event


def _row(event: resources.Event, row_id: str, included: resources.AttributionRelationships | None) -> rows.Attribution:
    related = included or _NOTHING
    return rows.Attribution(
        id=row_id,
        event_id=event.id,
        at=event.attributes.timestamp,
        attributed_event_id=resources.id_of(related.attributed_event),
        campaign_id=resources.id_of(related.campaign),
        campaign_message_id=resources.id_of(related.campaign_message),
        flow_id=resources.id_of(related.flow),
        flow_message_id=resources.id_of(related.flow_message),
        variation_id=resources.id_of(related.variation),
        is_included=included is not None,
    )
