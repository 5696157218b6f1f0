"""The current dialect's documents as the rows that all dialects share. Asks for nothing."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from klaviyo_pg.errors import Garbled
from klaviyo_pg.klaviyo import properties, resources, rows
from klaviyo_pg.klaviyo.documents import reject
from klaviyo_pg.klaviyo.known import Known, KnownPeople
from klaviyo_pg.windows import Window

_decode_aggregate = msgspec.json.Decoder(resources.AggregateDocument).decode
_decode_profile = msgspec.json.Decoder(resources.Profile).decode


def counts(answer: bytes, start: datetime, end: datetime) -> list[rows.Count]:
    try:
        found = _decode_aggregate(answer).data.attributes
        starts = [moment for date in found.dates if (moment := rows.utc(date))]
        totals = [sum(each) for each in zip(*(row.measurements.count for row in found.data), strict=True)]
        return [
            rows.Count(max(begins, start), ends, round(count))
            for begins, ends, count in zip(starts, [*starts[1:], end], totals, strict=False)
            if count
        ]
    except (ValueError, OverflowError, RecursionError) as error:
        raise Garbled(f"The answer is not an aggregate of Klaviyo's API ({error}).") from None


def metric(found: resources.Metric) -> rows.Metric:
    said = found.attributes
    category = said.integration and said.integration.category
    return rows.Metric(
        found.id, said.name, properties.plain_text(category), rows.utc(said.created), rows.utc(said.updated)
    )


def campaign(
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


def flow(found: resources.Flow) -> rows.Flow:
    said = found.attributes
    return rows.Flow(found.id, said.name, said.status, rows.utc(said.created), rows.utc(said.updated))


def exclusions(found: list[resources.Profile]) -> tuple[list[rows.Exclusion], list[rows.Reject]]:
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


def event_page(
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
