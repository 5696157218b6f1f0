"""An account, in both dialects, in which every text field holds a value that names a person. Knows no database."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, cast

from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.current.source import CurrentSource
from klaviyo_pg.klaviyo.legacy.source import LegacySource
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.settings import Settings
from klaviyo_pg.traffic import Traffic

ANN, BOB = "01ANN", "01BOB"
SENDER, SENDER_NAME, BOBS_SUBJECT = "hello@shop.example", "The Shop", "Bob, thank you for your order"
_DAY_AGO = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
_MADE = (_DAY_AGO - timedelta(days=99)).isoformat()
_AT = int(_DAY_AGO.timestamp())
_NAMES = ("Received Email", "Placed Order", "Subscribed to List", "Unsubscribed from List")


@dataclass
class Planted:
    """The values by place. Those of the account are in texts of the account itself, not in anything of Ann's."""

    of_ann: dict[str, tuple[str, ...]] = field(default_factory=dict)
    of_account: dict[str, tuple[str, ...]] = field(default_factory=dict)

    numbers: Iterator[int] = field(default_factory=lambda: count(1000))

    def text(self, place: str) -> str:
        """Return a text with a name, a street, a phone number and an address."""
        number = next(self.numbers)
        words = f"Annette{number}", f"{number} Elmstreet", f"+1 555-776-{number}", f"a{number}@planted.example"
        assert place not in self.of_ann
        self.of_ann[place] = words
        return "{} of {}, call {} or {}".format(*words)

    def name(self, place: str) -> str:
        return self._only(place, f"Annette Planted{next(self.numbers)}")

    def word(self, place: str) -> str:
        """Return a name of letters only."""
        letters = str(next(self.numbers)).translate(str.maketrans("0123456789", "aeioulmnrs"))
        return self._only(place, f"AnnettePlanted{letters}")

    def address(self, place: str, at: str = "@") -> str:
        return self._only(place, f"annette{next(self.numbers)}{at}planted.example")

    def phone(self, place: str) -> str:
        return self._only(place, f"+1555776{next(self.numbers)}")

    def number(self, place: str) -> int:
        return int(self._only(place, f"1555776{next(self.numbers)}"))

    def _only(self, place: str, value: str) -> str:
        assert place not in self.of_ann
        self.of_ann[place] = (value,)
        return value

    def label(self, place: str) -> str:
        """Return a text of the account that contains an address and a phone number."""
        number = next(self.numbers)
        self.of_account[place] = f"s{number}@planted.example", f"+1 555 886 {number}"
        return "Sale of {} and {}".format(*self.of_account[place])


def properties(plant: Planted, of: str) -> dict[str, Any]:
    """Return properties whose values and names are personal."""
    return {
        "Note": plant.text(f"{of}: a value"),
        "Items": [{"Owner": plant.text(f"{of}: a nested value")}],
        "Phone": plant.number(f"{of}: a number"),
        plant.address(f"{of}: a name"): True,
        plant.address(f"{of}: a percent-encoded name", "%40"): True,
        plant.address(f"{of}: a full-width name", "\uff20"): True,
        plant.name(f"{of}: a person's name as a name"): True,
        plant.phone(f"{of}: a phone number as a name"): True,
        "Extra": {plant.name(f"{of}: a nested name"): 1},
        "x" * 2100 + plant.name(f"{of}: a name that is too long"): 1,
    }


def _events(plant: Planted) -> list[dict[str, Any]]:
    """Return id, metric, profile and properties of each event. The first two are sent by the same flow message."""
    sent = {"$message": "01MESSAGE", "$flow": "01FLOW", "Campaign Name": "Thank you", "Subject": BOBS_SUBJECT}
    anns = {
        **sent,
        "Campaign Name": plant.text("event: Campaign Name"),
        "Subject": plant.text("event: Subject"),
        "$event_id": plant.address("event: $event_id"),
    }
    only_anns = {
        "$message": plant.address("event: $message"),
        "$flow": plant.phone("event: $flow"),
        "Campaign Name": plant.text("event: Campaign Name of an odd message"),
        "Subject": plant.text("event: Subject of an odd message"),
        "$event_id": plant.name("event: a name as $event_id"),
    }
    order = {
        **properties(plant, "event"),
        "$value": 5,
        "$value_currency": plant.name("event: $value_currency"),
        "$event_id": plant.number("event: a number as $event_id"),
    }
    joined, left = ({"List": plant.text(f"event: List, {way}")} for way in ("joined", "left"))
    rows: list[tuple[str, str, str, dict[str, Any]]] = [
        ("3qvdbYg3abc", _NAMES[0], BOB, sent),
        (plant.address("event: an address as an id"), _NAMES[0], ANN, anns),
        (plant.name("event: a name as an id"), _NAMES[0], ANN, only_anns),
        (plant.phone("event: a phone number as an id"), _NAMES[1], ANN, order),
        (plant.word("event: a word as an id"), _NAMES[2], ANN, joined),
        ("4qvdbYg3abc", _NAMES[3], ANN, left),
        ("5qvdbYg3abc", _NAMES[1], BOB, {"$value": 7, "$value_currency": "EUR", "Size": "L"}),
    ]
    return [
        {"id": each, "metric": f"M{_NAMES.index(metric)}", "profile": profile, "properties": of, "at": _AT - number}
        for number, (each, metric, profile, of) in enumerate(reversed(rows))
    ]


def _metrics(plant: Planted) -> list[dict[str, Any]]:
    names = {f"M{number}": name for number, name in enumerate(_NAMES)} | {"M9": plant.label("metric: name")}
    category, integration = plant.label("metric: category"), plant.label("metric: integration")
    return [
        {
            "id": each,
            "name": name,
            "created": _MADE,
            "updated": _MADE,
            "integration": {"id": "i1", "name": integration, "category": category},
        }
        for each, name in names.items()
    ]


def _resource(values: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    attributes = {name: value for name, value in values.items() if name != "id"}
    return {"id": values["id"], "attributes": attributes, **rest}


def current(plant: Planted) -> dict[str, Any]:
    """Return the documents of the current dialect by path."""
    lists = [{"id": "L1", "name": plant.label("list: name"), "created": _MADE, "updated": _MADE}]
    segments = [{"id": "S1", "name": plant.label("segment: name"), "created": _MADE, "updated": _MADE}]
    flow = {
        "id": "01FLOW",
        **{name: plant.label(f"flow: {name}") for name in ("name", "status", "trigger_type")},
    }
    campaign = {
        "id": "01CAMPAIGN",
        "name": plant.label("campaign: name"),
        "status": plant.label("campaign: status"),
        "audiences": {"included": ["L1"], "excluded": ["S1"]},
    }
    content = {"subject": plant.label("campaign: subject"), "from_email": SENDER, "from_label": SENDER_NAME}
    content |= {name: plant.label(f"campaign message: {name}") for name in ("preview_text", "body")}
    of_message = {name: plant.label(f"campaign message: {name}") for name in ("channel", "label")}
    message = {"id": "01SENT", "definition": {**of_message, "content": content}}
    of_flow = {"flow": {"data": {"id": "01FLOW"}}}
    of_group = {"tag-group": {"data": {"id": "01GROUP"}}}
    people = [_person(plant), _resource({"id": BOB, "email": "bob@example.com", "properties": {"Size": "L"}})]
    events = [_event(each) for each in _events(plant)]
    unreadable = [
        {**events[2], "id": "6qvdbYg3abc", "attributes": {"timestamp": plant.text("event: timestamp")}},
        {key: value for key, value in events[3].items() if key != "id"},
    ]
    related = {"event": events[1]["id"], "attributed-event": plant.word("attribution: event")}
    attributed = {
        "type": "attribution",
        "id": plant.name("attribution: id"),
        "relationships": {name: {"data": {"id": each}} for name, each in related.items()},
    }
    odd = _resource({"id": ANN, "created": plant.text("profile: created"), "first_name": plant.name("a reject")})
    return {
        "accounts": [_account(plant)],
        "custom-metrics": [_custom_metric(plant)],
        "mapped-metrics": [_resource({"id": "revenue"}, relationships={"metric": {"data": {"id": "m1"}}})],
        "metrics": [_resource(each) for each in _metrics(plant)],
        "campaigns": {
            "data": [_resource(campaign, relationships={"campaign-messages": {"data": [{"id": "01SENT"}]}})],
            "included": [_resource(message)],
        },
        "flows": {"data": [_resource(flow)], "included": [_resource(_action(plant), relationships=of_flow)]},
        "tags": {
            "data": [_resource({"id": "01TAG", "name": plant.label("tag: name")}, relationships=of_group)],
            "included": [_resource({"id": "01GROUP", "name": plant.label("tag group: name")}, type="tag-group")],
        },
        "lists": [_resource(each) for each in lists],
        "segments": [_resource(each) for each in segments],
        "profiles": people,
        **{
            f"{group}/profiles": [_resource({"id": each, "joined_group_at": _MADE}) for each in (ANN, BOB)]
            for group in ("lists/L1", "segments/S1")
        },
        **_content(plant),
        **_on_request(plant, people[0]["attributes"]["email"]),
        "events": {"data": [*events, *unreadable], "included": [*people, odd, attributed]},
        "metric-aggregates": {"attributes": {"dates": [], "data": []}},
    }


def _account(plant: Planted) -> dict[str, Any]:
    contact = {"organization_name": plant.label("account: name"), "website_url": plant.label("account: website")}
    words = {name: plant.label(f"account: {name}") for name in ("industry", "timezone", "locale")}
    return _resource({"id": "ACC", "contact_information": contact, "preferred_currency": SENDER_NAME, **words})


def _content(plant: Planted) -> dict[str, list[dict[str, Any]]]:
    """Return templates, forms with a version, and images. Their texts are the account's."""
    fields = {
        "templates": ("name", "editor_type", "html", "text"),
        "forms": ("name", "status"),
        "forms/01FORMS/form-versions": ("form_type", "variation_name", "status"),
        "images": ("name", "image_url", "format"),
    }
    return {
        path: [_resource({"id": f"01{path.upper()[:5]}", **{name: plant.label(f"{path}: {name}") for name in names}})]
        for path, names in fields.items()
    }


def _on_request(plant: Planted, email: str) -> dict[str, list[dict[str, Any]]]:
    """Return what is read on request. A review contains whatever its author wrote."""
    anns = {"profile": {"data": {"id": ANN}}}
    labels = {
        "catalog-items": ("title", "description", "url"),
        "catalog-categories": ("name",),
        "coupons": ("description",),
        "coupon-codes": ("unique_code", "status"),
        "push-tokens": ("platform", "vendor"),
    }
    found = {
        path: [
            _resource({"id": "01SHOP", **{name: plant.label(f"{path}: {name}") for name in names}}, relationships=anns)
        ]
        for path, names in labels.items()
    }
    words = {name: plant.text(f"review: {name}") for name in ("author", "title", "content", "smart_quote")}
    rest = {
        "email": email,
        "images": [plant.text("review: images")],
        "public_reply": {"content": plant.text("review: reply")},
        "status": {"value": plant.label("review: status"), "rejection_reason": plant.text("review: rejection")},
        "product": {"name": plant.label("review: product")},
    }
    return {**found, "reviews": [_resource({"id": "01REVIEW", **words, **rest})]}


def _custom_metric(plant: Planted) -> dict[str, Any]:
    only = {"property": "Brand", "filter": {"value": plant.label("custom metric: filter")}}
    method = plant.label("custom metric: method")
    definition = {"aggregation_method": method, "metric_groups": [{"metric_id": "m1", "metric_filters": [only]}]}
    return _resource({"id": "CM1", "name": plant.label("custom metric: name"), "definition": definition})


def _action(plant: Planted) -> dict[str, Any]:
    """Return an action of a flow, whose definition can have anything in it."""
    texts = ("subject_line", "name", "preview_text", "body")
    message = {
        "id": "01FLOWMESSAGE",
        "from_email": SENDER,
        "from_label": SENDER_NAME,
        **{name: plant.label(f"flow message: {name}") for name in texts},
    }
    data = {"message": message, "status": plant.label("action: status"), "filter": plant.label("action: definition")}
    return {"id": "01ACTION", "definition": {"type": f"send-{plant.label('action: type')}", "data": data}}


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    related = {"profile": {"data": {"id": event["profile"]}}, "metric": {"data": {"id": event["metric"]}}}
    values = {"id": event["id"], "timestamp": event["at"], "event_properties": event["properties"]}
    return _resource(values, relationships=related)


def _person(plant: Planted) -> dict[str, Any]:
    texts = ("first_name", "last_name", "external_id", "organization", "title")
    places = ("address1", "address2", "zip")
    kept = ("city", "region", "country", "timezone")
    words = ("consent", "method")
    other = {"can_receive_sms_marketing": True, "method_detail": plant.text("consent: method_detail of SMS")}
    return _resource(
        {
            "id": ANN,
            "email": plant.address("profile: email"),
            "phone_number": plant.phone("profile: phone_number"),
            **{name: plant.text(f"profile: {name}") for name in texts},
            "locale": plant.address("profile: locale"),
            "created": _MADE,
            "updated": _MADE,
            "location": {
                **{name: plant.text(f"profile: {name}") for name in places},
                **{name: plant.address(f"profile: {name}") for name in kept},
                "latitude": 12.3456789,
                "longitude": 98.7654321,
            },
            "properties": {**properties(plant, "profile"), "$source": plant.text("profile: $source")},
            "subscriptions": {
                "email": {
                    "marketing": {
                        **{name: plant.phone(f"consent: {name}") for name in words},
                        "method_detail": plant.text("consent: method_detail"),
                        "suppression": [{"reason": plant.address("suppression: reason"), "timestamp": _MADE}],
                        "list_suppressions": [
                            {"list_id": "L1", "reason": plant.phone("list suppression: reason"), "timestamp": _MADE}
                        ],
                    }
                },
                "sms": {"marketing": {**{name: plant.address(f"consent: {name} of SMS") for name in words}, **other}},
            },
        }
    )


def legacy(plant: Planted) -> dict[str, Any]:
    """Return the documents of the legacy dialect by path."""
    texts = ("$first_name", "$last_name", "$id", "$organization", "$title", "$address1", "$address2", "$zip")
    ann = {
        "id": ANN,
        "$email": plant.address("person: $email"),
        "$phone_number": plant.phone("person: $phone_number"),
        **{name: plant.text(f"person: {name}") for name in texts},
        **{name: plant.address(f"person: {name}") for name in ("$city", "$region", "$country", "$timezone")},
        "$source": plant.text("person: $source"),
        "$consent": plant.phone("person: $consent"),
        "$consent_method": plant.address("person: $consent_method"),
        "created": _MADE,
        "updated": _MADE,
        **properties(plant, "person"),
    }
    people = {ANN: ann, BOB: {"id": BOB, "$email": "bob@example.com", "created": _MADE, "Size": "L"}}
    events = [
        {
            "id": each["id"],
            "timestamp": each["at"],
            "statistic_id": each["metric"],
            "event_properties": each["properties"],
            "person": people[each["profile"]],
        }
        for each in _events(plant)
    ]
    unreadable = [
        {**events[2], "id": "6qvdbYg3abc", "timestamp": plant.text("event: timestamp")},
        {**events[2], "id": "7qvdbYg3abc", "person": {**ann, "created": plant.name("person: created")}},
        {key: value for key, value in events[3].items() if key != "id"},
    ]
    campaign = {
        "id": "01CAMPAIGN",
        "name": plant.label("campaign: name"),
        "subject": plant.label("campaign: subject"),
        "status_label": plant.label("campaign: status_label"),
        "campaign_type": plant.label("campaign: campaign_type"),
        "from_email": SENDER,
        "from_name": SENDER_NAME,
        "lists": [{"id": "S1", "name": plant.label("segment: name"), "list_type": "segment"}],
    }
    flow = {"id": "01FLOW", "name": plant.label("flow: name"), "status": plant.label("flow: status")}
    excluded = {"email": ann["$email"], "reason": plant.phone("exclusion: reason"), "timestamp": _MADE}
    suppressed = {"id": ANN, "reason": plant.address("list suppression: reason"), "created": _MADE}
    members = [{"id": each, "email": people[each]["$email"], "created": _MADE} for each in people]
    return {
        "v1/metrics": _metrics(plant),
        "v1/campaigns": [campaign],
        "v1/flows": [flow],
        "v1/people/exclusions": [excluded],
        "v1/metrics/timeline": [*events, *unreadable],
        **{f"v1/metric/M{number}/timeline": [*events, *unreadable] for number in (*range(4), 9)},
        **{f"v1/metric/M{number}/export": {"results": []} for number in (*range(4), 9)},
        **{f"v1/person/{each}": person for each, person in people.items()},
        "v2/lists": [{"list_id": "L1", "list_name": plant.label("list: name")}],
        "v2/list/L1": {"created": _MADE, "updated": _MADE},
        "v2/list/L1/members": members,
        "v2/list/L1/subscribe": members,
        "v2/list/L1/exclusions/all": {"records": [suppressed]},
        "v2/group/S1/members/all": {"records": members},
    }


class Answers:
    """A client that answers with the documents of an account."""

    traffic = Traffic()
    api_time = None

    def __init__(self, documents: Mapping[str, Any]) -> None:
        self._documents = documents

    def get(self, path: str, *_: object, read: Callable[[bytes], Any] = bytes, **__: object) -> Any:
        path = path.removeprefix("api/")
        document = self._documents[path]
        is_bare = path.startswith("v2/") or re.match("v1/person/", path)
        if not is_bare and (isinstance(document, list) or "attributes" in document):
            document = {"data": document}
        return read(json.dumps(document).encode())

    def post(self, endpoint: Endpoint, body: object, read: Callable[[bytes], Any] = bytes) -> Any:
        return self.get(endpoint.path, read=read)


def opener(dialect: str, plant: Planted) -> Callable[..., Source]:
    """Return a function that opens the account, as klaviyo_pg.klaviyo.dialects.open_source does."""
    documents = {"current": current, "legacy": legacy}[dialect](plant)

    def open_account(settings: Settings, *_: object) -> Source:
        client = cast(Client, Answers(documents))
        return CurrentSource(client) if dialect == "current" else LegacySource(client, client)

    return open_account
