"""A small shop: its catalog, coupons with their codes, reviews, and the devices of its people."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from sandbox.account.ids import token
from sandbox.account.people import People

_ITEMS, _CATEGORIES, _COUPONS, _CODES, _PEOPLE = 12, 3, 3, 15, 9
_CUSTOM = "$custom:::$default:::"
_ENABLEMENT = ("AUTHORIZED", "PROVISIONAL", "DENIED", "UNAUTHORIZED", "NOT_DETERMINED")


class Related(tuple[str, str]):
    """The type and the id of a related row."""

    @property
    def id(self) -> str:
        return self[1]


@dataclass
class Row:
    """A row: its attributes as the API shows them, and the rows that it is related to, one or several by name."""

    id: str
    attributes: dict[str, Any]
    related: Mapping[str, Related | list[Related]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """Return what conditions and orders name: a time as such, and a related row."""
        if name.startswith("__") or name in ("related", "attributes"):
            raise AttributeError(name)
        if name in self.related:
            return self.related[name]
        value = self.attributes.get(name)
        return datetime.fromisoformat(value) if name in ("created", "updated", "expires_at") and value else value


Rows = dict[str, Row]


@dataclass
class Shop:
    """The rows by id. Variants are those of all items, and codes those of all coupons."""

    items: Rows
    variants: Rows
    categories: Rows
    coupons: Rows
    codes: Rows
    reviews: Rows
    push_tokens: Rows

    def collections(self) -> dict[str, Rows]:
        """Return the rows by the name that they have in paths."""
        return {
            "catalog-items": self.items,
            "catalog-variants": self.variants,
            "catalog-categories": self.categories,
            "coupons": self.coupons,
            "coupon-codes": self.codes,
            "reviews": self.reviews,
            "push-tokens": self.push_tokens,
        }


def open_shop(account: str, seed: int, until: datetime, people: People) -> Shop:
    """Return the shop of an account."""
    first = [(people.id(at), people.email(at)) for at, _ in zip(people.indexes(), range(_PEOPLE), strict=False)]
    variants = [_variant(at, number, until) for at in range(_ITEMS) for number in range(at % 3)]
    items = [_item(at, until, [row for row in variants if row.related["item"] == _of_item(at)]) for at in range(_ITEMS)]
    categories = [_category(at, until) for at in range(_CATEGORIES)]
    coupons = [_coupon(at) for at in range(_COUPONS)]
    codes = [_code(at, number, until, first) for at in range(_COUPONS) for number in range(_CODES * at)]
    reviews = [_review(str(1000 + at), at, until, email) for at, (_, email) in enumerate(first)]
    devices = [
        _device(token("push", account, seed, f"{at}.{number}"), at + number, until, profile_id)
        for at, (profile_id, _) in enumerate(first)
        for number in range(1 + at % 2)
    ]
    every = (items, variants, categories, coupons, codes, reviews, devices)
    return Shop(*({row.id: row for row in rows} for rows in every))


def _of_item(at: int) -> Related:
    return Related(("catalog-item", f"{_CUSTOM}ITEM-{at}"))


def _product(name: str, at: int, until: datetime) -> dict[str, Any]:
    address = f"https://shop.example.com/{name.lower()}"
    return {
        "external_id": name,
        "title": f"Thing “{at}” 漢字",
        "description": f"A thing, & it has the number {at}.",
        "price": None if at % 5 == 4 else 9.95 + at,
        "url": address,
        "image_full_url": f"{address}.jpg",
        "image_thumbnail_url": f"{address}-small.jpg",
        "images": [f"{address}.jpg"],
        "custom_metadata": {"color": "blue", "size": at} if at % 2 else {},
        "published": at % 4 != 3,
        "created": _moment(until - timedelta(days=80 - at)),
        "updated": _moment(until - timedelta(days=at, minutes=at)),
    }


def _item(at: int, until: datetime, variants: list[Row]) -> Row:
    related = {"variants": [Related(("catalog-variant", row.id)) for row in variants]}
    return Row(_of_item(at).id, _product(f"ITEM-{at}", at, until), related)


def _variant(at: int, number: int, until: datetime) -> Row:
    name = f"ITEM-{at}-{number}"
    stock = {"sku": f"SKU{at}/{number}", "inventory_policy": number, "inventory_quantity": 7.0 * number}
    return Row(f"{_CUSTOM}{name}", _product(name, at, until) | stock, {"item": _of_item(at)})


def _category(at: int, until: datetime) -> Row:
    values = {"external_id": f"CAT-{at}", "name": f"Category {at}", "updated": _moment(until - timedelta(days=at))}
    return Row(f"{_CUSTOM}CAT-{at}", values)


def _coupon(at: int) -> Row:
    name = f"{10 * (at + 1)}OFF"
    values = {"external_id": name, "description": f"{10 * (at + 1)} % off" if at else None}
    return Row(name, values | {"monitor_configuration": {"low_balance_threshold": 100 * at}})


def _code(at: int, number: int, until: datetime, people: list[tuple[str, str | None]]) -> Row:
    coupon, secret = _coupon(at).id, f"ABC{at:02}XYZ{number:03}"
    status = ("UNASSIGNED", "ASSIGNED_TO_PROFILE", "USED")[number % 3]
    values = {"unique_code": secret, "expires_at": _moment(until + timedelta(days=number)), "status": status}
    related = {"coupon": Related(("coupon", coupon))}
    if status != "UNASSIGNED" and people:
        related["profile"] = Related(("profile", people[number % len(people)][0]))
    return Row(f"{coupon}-{secret}", values, related)


def _review(row_id: str, at: int, until: datetime, email: str | None) -> Row:
    product = {"url": f"https://shop.example.com/item-{at}", "name": f"Thing {at}", "external_id": f"ITEM-{at}"}
    rejected = {"reason": "other", "status_explanation": "Off topic"}
    reply = {"content": "Thank you!", "author": "The shop", "updated": _moment(until - timedelta(days=at))}
    values = {
        "email": email,
        "status": {"value": "rejected", "rejection_reason": rejected} if at % 4 == 3 else {"value": "published"},
        "verified": at % 2 == 0,
        "review_type": ("review", "rating", "question")[at % 3],
        "created": _moment(until - timedelta(days=2 * at + 1)),
        "updated": _moment(until - timedelta(days=at, seconds=at)),
        "images": [f"https://images.example.com/review-{at}.jpg"] if at % 2 else [],
        "product": product | {"image_url": None},
        "rating": None if at % 3 == 2 else 1 + at % 5,
        "author": f"Customer {at}",
        "content": f"I like it “{at}” times.\nReally.",
        "title": f"Title {at}",
        "smart_quote": None,
        "public_reply": reply if at % 2 else None,
    }
    return Row(row_id, values, {"item": _of_item(at)})


def _device(row_id: str, at: int, until: datetime, profile_id: str) -> Row:
    platform, vendor = (("ios", "APNs"), ("android", "FCM"))[at % 2]
    created = _moment(until - timedelta(days=at))
    values = {
        "created": created,
        "token": sha256(row_id.encode()).hexdigest(),
        "enablement_status": _ENABLEMENT[at % 5],
        "platform": platform,
        "vendor": vendor,
        "background": "AVAILABLE",
        "recorded_date": created,
        "metadata": None,
    }
    return Row(row_id, values, {"profile": Related(("profile", profile_id))})


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
