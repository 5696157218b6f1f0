"""The properties of people and events, in realistic numbers and sizes, assembled from fragments rendered once."""

from collections.abc import Sequence
from random import Random
from typing import Any

from sandbox.account.content import PLACES, PRODUCTS, SUBJECTS
from sandbox.account.properties import Style, style
from sandbox.derived.metrics import DerivedMetric
from sandbox.derived.options import DerivedOptions
from sandbox.encoding import dump, dump_members

_VARIANTS = 64  # of each half of a person's properties
_NAMES = (
    "Customer Number", "Visits", "Loyalty Tier", "Loyalty Points", "Last Category Viewed", "Favourite \"Colour\"",
    "Birthday", "Gender", "Preferred Store", "Newsletter Frequency", "$source", "Average Order Value", "Total Orders",
    "Last Order Date", "Has App", "Shoe Size", "Interests", "Churn Risk", "Signup Page", "UTM Campaign", "Language",
    "VIP", "Referral Code", "Accepts Marketing", "Notes",
)  # fmt: skip
_COLOURS, _TIERS = ("rød", "blue", "緑", "grün", "black"), ("gold", "silver", "bronze", "")


class PersonProperties:
    """The custom properties of people: two that differ for each person, and others that many people share."""

    def __init__(self, options: DerivedOptions) -> None:
        names = [*_NAMES, *(f"Custom Property {at}" for at in range(len(_NAMES), options.properties))]
        names = names[: options.properties]
        rng = Random(options.number("properties"))
        shared, middle = names[2:], (len(names) - 2) // 2
        self._halves = [
            [dump_members({name: _value(name, rng) for name in half}) for _ in range(_VARIANTS)]
            for half in (shared[:middle], shared[middle:])
            if half
        ]
        self._own = (b'{"Customer Number":"C-%08d","Visits":%d', b'{"Customer Number":"C-%08d"', b"{")[
            max(0, 2 - options.properties)
        ]
        self._own_count = min(2, options.properties)

    def of(self, index: int, mixed: int, day: int) -> bytes:
        """Return a person's properties as JSON. `day` is the added day of the last change."""
        own = self._own % (index, mixed % 50 + day)[: self._own_count]
        shared = [half[mixed >> 8 + 6 * at & _VARIANTS - 1] for at, half in enumerate(self._halves)]
        return b"".join([own, *shared, b"}"])


def _value(name: str, rng: Random) -> Any:
    values: dict[str, Sequence[Any]] = {
        "Loyalty Tier": _TIERS,
        "Last Category Viewed": PRODUCTS,
        'Favourite "Colour"': _COLOURS,
        "Gender": ("female", "male", None),
        "Preferred Store": [place[0] for place in PLACES],
        "Interests": (["Tent", "Rope, 60 m"], [], ["雨傘"]),
        "Has App": (True, False),
        "VIP": (True, False),
        "Accepts Marketing": (True, False),
        "$source": (-6, "popup", "api"),
        "Notes": ("", 'called "twice"\nno answer', "🎁", None),
        "Average Order Value": [round(rng.uniform(5, 300), 2)],
        "Birthday": [f"19{rng.randrange(50, 99)}-{rng.randrange(1, 12):02d}-{rng.randrange(1, 28):02d}"],
        "Last Order Date": [f"2026-{rng.randrange(1, 12):02d}-{rng.randrange(1, 28):02d} 10:00:00"],
    }
    return rng.choice(values.get(name, (rng.randrange(100), f"value {rng.randrange(100)}", rng.randrange(10**6))))


def styles(metrics: Sequence[DerivedMetric], options: DerivedOptions) -> list[Style]:
    """Return the content of each metric's events."""
    rng = Random(options.number("styles"))
    made: dict[str, Style] = {}
    for metric in metrics:
        if metric.style not in made:
            made[metric.style] = _style(metric.style, options, rng)
    return [made[metric.style] for metric in metrics]


def _style(name: str, options: DerivedOptions, rng: Random) -> Style:
    if name == "order":
        return Style([_order(at, options.order_size, rng) for at in range(200)])
    if name == "plain_api":
        return Style(
            [{"step": at, "form": SUBJECTS[at % len(SUBJECTS)], "score": round(rng.random(), 3)} for at in range(40)]
        )
    return style(name, rng)


def _order(number: int, size: int, rng: Random) -> dict[str, Any]:
    """Return the properties of an order, about `size` bytes as JSON."""
    order: dict[str, Any] = {
        "$value": round(rng.lognormvariate(4, 0.8), 2),
        "$value_currency": ("USD", "EUR", "DKK")[number % 3],
        "Discount Codes": [] if number % 4 else ["BLACK-FRIDAY"],
        "Items": [],
    }
    while len(dump(order)) < size - 150 or not order["Items"]:
        order["Items"].append(_item(rng))
    return order


def _item(rng: Random) -> dict[str, Any]:
    title, sku = rng.choice(PRODUCTS), rng.randrange(10**6)
    return {
        "ProductName": title,
        "SKU": f"SKU-{sku:06d}",
        "Quantity": rng.randrange(1, 4),
        "ItemPrice": round(rng.uniform(3, 300), 2),
        "Categories": ["Outdoor", title],
        "ProductURL": f"https://shop.example.com/p/{sku}?variant=1&ref=mail",
        "ImageURL": f"https://cdn.example.com/images/{sku}-600x600.jpg",
        "Brand": 'The "Shop" — Zoë',
    }
