"""The properties of an event as JSON bytes, assembled from fragments that are rendered once.

Three fragments follow `$event_id`: the members of the source (campaign, flow or list), the person's email domain, and
one of the style's variants, chosen by the event's reference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import isfinite
from random import Random
from typing import Any

from sandbox.account.content import DOMAINS, ODD_NAMES, ODD_VALUES, PRODUCTS
from sandbox.encoding import dump_members

_DOMAINS = tuple(dump_members({"Email Domain": domain}) for domain in DOMAINS)


@dataclass(frozen=True, slots=True)
class Source:
    """The cause of an event: a campaign, a message of a flow, a list, or nothing.

    `message` is the $message of its events: the id of the campaign, of one of its messages, or of the message of the
    flow.
    """

    message: str | None
    flow: str | None
    event_id_prefix: bytes
    members: bytes
    campaign_message: str | None = None
    campaign: str | None = None


NO_SOURCE = Source(None, None, b"", b"")


def send_source(
    message: str,
    flow: str | None,
    name: str,
    subject: str | None,
    sent_at: int,
    variation: str | None = None,
    campaign_message: str | None = None,
    campaign: str | None = None,
) -> Source:
    """Return the source of all events of a campaign, or of a message of a flow."""
    values: dict[str, Any] = {"$message": message, "$flow": flow, "Campaign Name": name, "Subject": subject}
    if flow is None:
        values["$_cohort$message_send_cohort"] = f"{sent_at}:{message}"
    if variation is not None:
        values |= {"$variation": variation, "$_cohort$variation_send_cohort": f"{sent_at}:{variation}"}
    present = {name: value for name, value in values.items() if value is not None}
    return Source(message, flow, f"{message}:".encode(), dump_members(present), campaign_message, campaign)


def list_source(name: str) -> Source:
    """Return the source of events about a list. They contain the name of the list, not its id."""
    return Source(None, None, b"", dump_members({"List": name}))


class Style:
    """The content of a metric's events."""

    def __init__(self, variants: list[dict[str, Any]], is_email: bool = False) -> None:
        self._variants = [dump_members(variant) for variant in variants]
        self._values = [as_number(variant.get("$value")) for variant in variants]
        self._is_email = is_email

    def value(self, ref: int) -> float:
        """Return the event's $value as a number."""
        return self._values[(ref * 0x9E3779B1 >> 12) % len(self._values)]

    def properties(self, ref: int, time: int, person: int, source: Source) -> bytes:
        """Return the properties as a JSON object."""
        variant = self._variants[(ref * 0x9E3779B1 >> 12) % len(self._variants)]
        if not source.event_id_prefix:
            return b'{"$event_id":"%d"%b%b}' % (time, source.members, variant)
        domain = _DOMAINS[person % len(_DOMAINS)] if self._is_email else b""
        return b'{"$event_id":"%b%d:%d"%b%b%b}' % (
            source.event_id_prefix,
            ref * 0x9E3779B97F4A7C15 & 0x3FFFFFFFFFFFFFFF,
            time,
            source.members,
            domain,
            variant,
        )


def as_number(value: object) -> float:
    """Return the amount that a $value adds to a sum: 0 unless it is a finite number."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if isfinite(number) else 0.0


def style(name: str, rng: Random) -> Style:
    """Return the style with this name, one of those that the metrics in `content` refer to."""
    return Style(_VARIANTS[name](rng), name in ("send", "open", "click", "bounce", "spam", "unsubscribe"))


def _sends(rng: Random) -> list[dict[str, Any]]:
    return [
        {"Inbox Provider": inbox, "$ESP": 0, "$internal": {"Transmission ID": f"{rng.getrandbits(64):x}"}}
        for inbox in ("Gmail", "Outlook", "Yahoo", "Other")
        for _ in range(8)
    ]


def _clients(rng: Random) -> list[dict[str, Any]]:
    kinds = (
        ("Gmail", "Android", "Mobile"),
        ("Apple Mail", "iOS", "Mobile"),
        ("Outlook", "Windows", "Desktop"),
    )
    return [
        {
            "Client Name": name,
            "Client OS": system,
            "Client OS Family": system,
            "Client Type": kind,
            "$message_interaction": f"{rng.getrandbits(40):x}",
        }
        for name, system, kind in kinds
        for _ in range(8)
    ]


def _opens(rng: Random) -> list[dict[str, Any]]:
    return [{**client, "machine_open": rng.random() < 0.3} for client in _clients(rng)]


def _clicks(rng: Random) -> list[dict[str, Any]]:
    pages = ("sale", "new?utm_source=mail&utm_campaign=a%20b", "p/雨傘", 'p/"tent"')
    return [
        {**client, "URL": f"https://shop.example.com/{page}", "Bot Click": rng.random() < 0.1}
        for client, page in product(_clients(rng), pages)
    ]


def _bounces(rng: Random) -> list[dict[str, Any]]:
    return [{"Bounce Type": kind} for kind in ("Hard", "Soft", "Soft")]


def _texts(rng: Random) -> list[dict[str, Any]]:
    regions = (("+15550000000", "United States"), ("+4550000000", "Denmark"))
    return [{"From Number": number, "To Phone Region": region, "Message Type": "sms"} for number, region in regions]


def _text_clicks(rng: Random) -> list[dict[str, Any]]:
    return [{**text, "URL": "https://s.example.com/a"} for text in _texts(rng)]


def _visits(rng: Random) -> list[dict[str, Any]]:
    browsers = ("Chrome", "Safari", "Firefox")
    return [
        {"browser": name, "os": "iOS", "page": f"https://shop.example.com/?p={rng.randrange(99)}"} for name in browsers
    ]


def _views(rng: Random) -> list[dict[str, Any]]:
    return [
        {
            "Title": title,
            "ProductID": number,
            "Price": round(rng.uniform(3, 300), 2),
            "Categories": ["Out", title],
        }
        for number, title in enumerate(PRODUCTS)
    ]


def _orders(rng: Random) -> list[dict[str, Any]]:
    orders = [
        {
            "$value": round(rng.lognormvariate(4, 0.8), 2),
            "$value_currency": ("USD", "EUR", "DKK")[at % 3],
            "Items": rng.sample(PRODUCTS, k=1 + at % 3),
            "$extra": {"OrderId": at, "note": None if at % 5 else 'leave at the "door"\nplease'},
            "Discount Codes": [] if at % 4 else ["BLACK-FRIDAY"],
        }
        for at in range(120)
    ]
    odd: list[float] = [0, -19.5, 9_007_199_254_740_993, 123_456_789_012_345_678, 1e-7, 0.1]
    return [*orders, *({**orders[0], "$value": value} for value in odd)]


def _items(rng: Random) -> list[dict[str, Any]]:
    return [
        {
            "$value": view["Price"],
            "$value_currency": "USD",
            "Name": view["Title"],
            "Quantity": 1 + rng.randrange(4),
        }
        for view in _views(rng)
        for _ in range(4)
    ]


def _points(rng: Random) -> list[dict[str, Any]]:
    return [{"$value": value, "Tier": "gold"} for value in ("12.50", "7", "1e3", " 5 ", "not a number", "")]


def _odd(rng: Random) -> list[dict[str, Any]]:
    single = [{ODD_NAMES[at % len(ODD_NAMES)]: value} for at, value in enumerate(ODD_VALUES)]
    short = [value for value in ODD_VALUES if not (isinstance(value, str) and len(value) > 100)]
    return [*single, dict(zip(ODD_NAMES, short, strict=False)), {"$value": None}, {}]


def _plain(rng: Random) -> list[dict[str, Any]]:
    return [{}, {"method": "popup"}, {"method": "api"}]


_VARIANTS: dict[str, Callable[[Random], list[dict[str, Any]]]] = {
    "send": _sends,
    "open": _opens,
    "click": _clicks,
    "bounce": _bounces,
    "spam": lambda rng: [{}],
    "unsubscribe": lambda rng: [{}],
    "join": lambda rng: [{}],
    "leave": lambda rng: [{}],
    "consent": _plain,
    "text": _texts,
    "text_click": _text_clicks,
    "site": _visits,
    "view": _views,
    "order": _orders,
    "item": _items,
    "points": _points,
    "appointment": _plain,
    "odd": _odd,
}
