"""The current dialect's documents turned into the rows that both dialects share. Sends no requests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import msgspec

from klaviyo_pg import rows
from klaviyo_pg.errors import Garbled
from klaviyo_pg.klaviyo import properties
from klaviyo_pg.klaviyo.current import attributions, flow_actions, resources, tags
from klaviyo_pg.klaviyo.documents import read_repaired
from klaviyo_pg.klaviyo.lenient import boolean, moment
from klaviyo_pg.klaviyo.people_cache import KnownPeople, KnownPerson
from klaviyo_pg.windows import AnyWindow

_decode_aggregate = msgspec.json.Decoder(resources.AggregateDocument).decode
_decode_profile = msgspec.json.Decoder(resources.Profile).decode
_decode_event = msgspec.json.Decoder(resources.OneEventDocument).decode
_metric_id, _profile_id = attrgetter("relationships.metric.data.id"), attrgetter("relationships.profile.data.id")
_CHANNELS = (  # channel, where it is in the subscriptions, and the name of the field that says if Klaviyo would send
    ("sms", "sms", "marketing", "can_receive_sms_marketing"),
    ("sms_transactional", "sms", "transactional", "can_receive_sms_transactional"),
    ("push", "mobile_push", "marketing", "can_receive_push_marketing"),
    ("whatsapp", "whatsapp", "marketing", "can_receive"),
)


def counts(body: bytes, start: datetime, end: datetime) -> list[rows.Count]:
    """Read an aggregate of the time [start, end). Raises Garbled if the body is not one."""
    try:
        aggregate = _decode_aggregate(body).data.attributes
        starts = [date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC) for date in aggregate.dates]
        counted = [row.measurements.count for row in aggregate.data] or [[0] * len(starts)]
        totals = [sum(each) for each in zip(*counted, strict=True)]
        return [
            rows.Count(max(begins, start), ends, round(count))
            for begins, ends, count in zip(starts, [*starts[1:], end], totals, strict=True)
            if count
        ]
    except (ValueError, OverflowError, RecursionError) as error:
        raise Garbled(f"The response is not an aggregate of Klaviyo's API ({error}). Check KLAVIYO_BASE_URL.") from None


def metric(resource: resources.Metric) -> rows.Metric:
    attributes = resource.attributes
    integration = attributes.integration or resources.Integration()
    return rows.Metric(
        resource.id,
        attributes.name,
        properties.plain_text(integration.category),
        rows.utc(attributes.created),
        rows.utc(attributes.updated),
        properties.plain_text(integration.id),
        properties.plain_text(integration.name),
    )


def flows(document: resources.FlowDocument, rejects: list[rows.Reject]) -> list[rows.Flow]:
    """Return the flows of a page, each with its actions and their messages."""
    steps = flow_actions.of_flows(document, rejects)
    return [_flow(resource, steps.get(resource.id, flow_actions.Steps([], []))) for resource in document.data]


def _flow(resource: resources.Flow, steps: flow_actions.Steps) -> rows.Flow:
    attributes = resource.attributes
    return rows.Flow(
        resource.id,
        attributes.name,
        attributes.status,
        rows.utc(attributes.created),
        rows.utc(attributes.updated),
        boolean(attributes.archived),
        properties.plain_text(attributes.trigger_type),
        steps.actions,
        steps.messages,
        tags.ids_of(resource.relationships),
    )


def group(resource: resources.Group) -> rows.Group:
    attributes = resource.attributes
    created, updated = rows.utc(attributes.created), rows.utc(attributes.updated)
    states = boolean(attributes.is_active), boolean(attributes.is_starred), boolean(attributes.is_processing)
    return rows.Group(resource.id, attributes.name, created, updated, tags.ids_of(resource.relationships), *states)


def membership(group_id: str, resource: resources.Profile) -> rows.Membership:
    return rows.Membership(group_id, resource.id, rows.utc(resource.attributes.joined_group_at))


def exclusions(people: list[resources.Profile], reason: str) -> tuple[list[rows.Exclusion], list[rows.Reject]]:
    """Return the exclusions of people who are suppressed for a reason, and the people without an email address.

    Someone whose suppression the response leaves out is excluded for that reason, without a time.
    """
    exclusions, rejects = [], []
    for person in people:
        email, suppression = person.attributes.email, _marketing(person.attributes).suppression
        if email and email.strip("\0"):
            exclusions += [
                rows.Exclusion(email, each.reason, rows.utc(each.timestamp), person.id)
                for each in suppression or [resources.Suppression(reason)]
            ]
        else:
            raw = msgspec.json.encode({"id": person.id, "suppression": suppression}).decode()
            rejects.append(rows.Reject(raw, "The suppressed profile has no email address.", hides=False))
    return exclusions, rejects


def _marketing(attributes: resources.ProfileAttributes) -> resources.Marketing:
    email = attributes.subscriptions and attributes.subscriptions.email
    return (email and email.marketing) or resources.Marketing()


def profile(resource: resources.Profile) -> rows.Profile:
    attributes, consent = resource.attributes, _marketing(resource.attributes)
    location, custom = attributes.location or resources.Location(), attributes.properties or {}
    return rows.Profile(
        id=resource.id,
        email=attributes.email,
        timezone=location.timezone,
        first_name=attributes.first_name,
        last_name=attributes.last_name,
        source=properties.text(custom.get("$source")),
        address1=location.address1,
        address2=location.address2,
        city=location.city,
        state=location.region,
        zip=location.zip,
        country=location.country,
        phone_number=attributes.phone_number,
        longitude=properties.number(location.longitude),
        latitude=properties.number(location.latitude),
        created=rows.utc(attributes.created),
        properties=properties.texts(custom, without=("$source",)),
        consent=consent.consent,
        consent_timestamp=rows.utc(consent.consent_timestamp),
        list_suppressions=list_suppressions(resource),
        external_id=attributes.external_id,
        organization=attributes.organization,
        title=attributes.title,
        locale=attributes.locale,
        last_event_date=rows.utc(attributes.last_event_date),
        klaviyo_updated_at=rows.utc(attributes.updated),
        consents=consents(attributes.subscriptions) if attributes.subscriptions else None,
    )


def list_suppressions(person: resources.Profile) -> list[rows.Suppression] | None:
    """Return the lists that a person is suppressed for; None where the response does not include them."""
    if person.attributes.subscriptions is None:
        return None
    return [
        rows.Suppression(each.list_id, person.id, rows.utc(each.timestamp), each.reason)
        for each in _marketing(person.attributes).list_suppressions or ()
    ]


def profile_id(resource: resources.Profile) -> rows.ProfileId:
    return rows.ProfileId(resource.id, rows.utc(resource.attributes.created))


def consents(subscriptions: resources.Subscriptions) -> list[rows.Consent]:
    """Return the consent on each channel that the source returned. Values of an unexpected type count as missing."""
    email = (subscriptions.email and subscriptions.email.marketing) or None
    found = [] if email is None else [_email_consent(email)]
    for channel, part, kind, can_receive in _CHANNELS:
        on_channel = getattr(subscriptions, part)
        consent = on_channel.get(kind) if isinstance(on_channel, dict) else None
        if isinstance(consent, dict):
            found.append(_consent(channel, consent, can_receive))
    return found


def _email_consent(email: resources.Marketing) -> rows.Consent:
    return rows.Consent(
        "email",
        email.consent,
        boolean(email.can_receive_email_marketing),
        properties.plain_text(email.method),
        properties.plain_text(email.method_detail),
        rows.utc(email.consent_timestamp),
        moment(email.last_updated),
        boolean(email.double_optin),
    )


def _consent(channel: str, consent: Mapping[str, Any], can_receive: str) -> rows.Consent:
    def text(name: str) -> str | None:
        return properties.plain_text(consent.get(name))

    return rows.Consent(
        channel,
        text("consent"),
        boolean(consent.get(can_receive)),
        text("method"),
        text("method_detail"),
        moment(consent.get("consent_timestamp")),
        moment(consent.get("last_updated")),
        boolean(consent.get("double_optin")),
    )


def owner(body: bytes) -> str | None:
    """Return the id of the profile that an event belongs to. Raises Garbled if the body is not an event."""
    try:
        return _related(_decode_event(body).data)[1]
    except (ValueError, RecursionError) as error:
        raise Garbled(f"The response is not an event of Klaviyo's API ({error}). Check KLAVIYO_BASE_URL.") from None


def event_page(
    document: resources.EventDocument,
    window: AnyWindow,
    known_people: KnownPeople,
    rejects: list[rows.Reject],
    read_at: datetime,
) -> rows.EventPage:
    """Return the events of a page that are in the window, and the people on it who are not known yet."""
    people, emails, others = _people(document.included, known_people, rejects)
    start, end = window.seconds
    within = [event for event in document.data if start <= event.attributes.timestamp < end]
    read = properties.read([event.id for event in within], [event.attributes.event_properties for event in within])
    events = read.readable(within, rejects)
    metric_ids, profile_ids = _relations(events)
    columns = properties.events(
        ids=[event.id for event in events],
        at=[event.attributes.timestamp for event in events],
        metric_ids=metric_ids,
        profile_ids=profile_ids,
        emails=[emails.get(profile_id) for profile_id in profile_ids],
        properties=[event.attributes.event_properties for event in events],
        extracted=read.extracted,
    )
    hidden: list[rows.Reject] = []
    attributed = attributions.attributions(events, others, hidden)
    return rows.EventPage(columns, people, rejects, read_at, None, attributed, hidden)


def _relations(events: Sequence[resources.Event]) -> tuple[list[str | None], list[str | None]]:
    """Return the ids of the metrics and of the profiles of events."""
    try:
        return list(map(_metric_id, events)), list(map(_profile_id, events))
    except AttributeError:  # one has no metric or no profile
        related = [_related(event) for event in events]
        return [metric_id for metric_id, _ in related], [profile_id for _, profile_id in related]


def _related(event: resources.Event) -> tuple[str | None, str | None]:
    """Return the ids of an event's metric and profile."""
    related = event.relationships
    return (None, None) if related is None else (resources.id_of(related.metric), resources.id_of(related.profile))


def _people(
    included: Sequence[msgspec.Raw], known_people: KnownPeople, rejects: list[rows.Reject]
) -> tuple[list[rows.Profile], dict[str | None, str | None], list[bytes]]:
    """Return the people of a page who are not known yet, the email addresses of all by id, and its attributions."""
    new: list[rows.Profile] = []
    emails: dict[str | None, str | None] = {}
    others: list[bytes] = []
    for raw in included:
        record = bytes(raw)
        person = known_people.get(record)
        if person is None and attributions.is_attribution(record):
            others.append(record)
            continue
        if person is None:
            try:
                row = profile(_decode_profile(record))
            except (msgspec.MsgspecError, RecursionError) as error:
                repaired, originals = read_repaired(record, lambda text: profile(_decode_profile(text)), error)
                rejects += originals
                if not repaired:
                    continue
                [row] = repaired
            person = KnownPerson(row.id, row.email)
            if not known_people.has_stored(record):
                new.append(row)
            known_people.add(record, person)
        emails[person.id] = person.email
    return new, emails, others
