"""The people of the account. Everything about a person follows from the seed and the person's index.

Only times, consent and suppressions are stored. The rest is computed when it is read.
"""

import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any

from sandbox.account.content import (
    DOMAINS,
    FIRST_NAMES,
    LAST_NAMES,
    ODD_NAMES,
    ODD_VALUES,
    PLACES,
    SUPPRESSION_REASONS,
)
from sandbox.account.ids import ProfileIds
from sandbox.hashing import stable_hash

NEVER_SUBSCRIBED, SUBSCRIBED, UNSUBSCRIBED = "NEVER_SUBSCRIBED", "SUBSCRIBED", "UNSUBSCRIBED"
_CONSENTS = (NEVER_SUBSCRIBED, SUBSCRIBED, UNSUBSCRIBED)


@dataclass(slots=True)
class Suppression:
    """The reason and start of a suppression, from one list or, if list_id is None, from all email marketing."""

    reason: str
    at: int
    list_id: str | None = None


@dataclass(slots=True)
class Profile:
    """All attributes of one person. Times are unix seconds."""

    id: str
    email: str | None
    phone_number: str | None
    external_id: str | None
    first_name: str | None
    last_name: str | None
    organization: str | None
    locale: str | None
    title: str | None
    image: str | None
    created: int
    updated: int
    last_event_date: int | None
    location: dict[str, Any]
    properties: dict[str, Any]
    consent: str = NEVER_SUBSCRIBED
    consent_at: int | None = None
    suppressions: list[Suppression] = field(default_factory=list)
    consents: dict[str, dict[str, Any]] = field(default_factory=dict)  # by channel: members that differ from the usual


CHANNELS = ("email", "sms", "sms_transactional", "push", "whatsapp")
PROFILE_FIELDS = frozenset(each.name for each in fields(Profile)) - {"id", "suppressions"}


class People:
    """All people by index. `changes` holds the attributes that tests have set, which override generated ones.

    `json` has functions that return an attribute's JSON, if that is faster than a profile.
    """

    json: Mapping[str, Callable[[int], bytes]] | None = None

    def __init__(self, account: str, seed: int, count: int, start: int, until: int) -> None:
        self._seed = (account, seed)
        self.ids = ProfileIds(account, seed)
        rng = Random(f"people:{account}:{seed}")
        oldest, span = start - (until - start) // 2, (until - start) * 3 // 2
        self.created = array("I", (oldest + int(rng.random() * span) for _ in range(count)))
        self.updated = array("I", (at + int(rng.random() * (until - at)) for at in self.created))
        self.last_event = array("I", bytes(4 * count))
        self.consent = bytearray(rng.choices(range(3), (3, 6, 1), k=count))
        self.suppressions: dict[int, list[Suppression]] = defaultdict(list)
        self.changes: dict[int, dict[str, Any]] = {}
        self.erased: set[int] = set()
        self._cached_ids: list[str | None] = [None] * count
        for index in range(count):
            if index % 19 == 3 or self.consent[index] == 2:
                self._suppress(index, rng, start, until)

    def __len__(self) -> int:
        return len(self.created)

    def _suppress(self, index: int, rng: Random, start: int, until: int) -> None:
        reasons = ["UNSUBSCRIBE"] if self.consent[index] == 2 else [SUPPRESSION_REASONS[index // 19 % 5]]
        if index % 7 == 0:
            reasons.append("USER_SUPPRESSED" if reasons != ["USER_SUPPRESSED"] else "HARD_BOUNCE")
        for reason in reasons:
            self.suppressions[index].append(Suppression(reason, start + int(rng.random() * (until - start))))

    def id(self, index: int) -> str:
        """Return a person's profile id."""
        cached = self._cached_ids[index]
        if cached is None:
            cached = self._cached_ids[index] = self.ids.of(index, self.created[index])
        return cached

    def index_of(self, profile_id: str) -> int | None:
        """Return the index of the person with this id."""
        index = self.ids.index(profile_id)
        return index if self._exists(index) and self.id(index) == profile_id else None

    def _exists(self, index: int) -> bool:
        return 0 <= index < len(self) and index not in self.erased

    def indexes(self) -> Iterator[int]:
        """Return the indexes of all people who are not erased."""
        return (index for index in range(len(self)) if index not in self.erased)

    def erase(self, index: int) -> None:
        """Make a person impossible to find. The index and the id are not used again."""
        self.erased.add(index)
        self.suppressions.pop(index, None)

    def email(self, index: int) -> str | None:
        """Return a person's current address. About one person in seventeen has none."""
        changed = self.changes.get(index)
        if changed and "email" in changed:
            return changed["email"]  # type: ignore[no-any-return]
        if index % 17 == 5:
            return None
        name = FIRST_NAMES[index % len(FIRST_NAMES)].replace("'", "")
        extra = "+news" if index % 23 == 1 else ""
        return f"{name if index % 29 == 0 else name.lower()}{extra}.{index}@{DOMAINS[index % len(DOMAINS)]}"

    def index_of_email(self, email: str) -> int | None:
        """Return the index of the person with this address."""
        for index, changed in self.changes.items():
            if changed.get("email") == email and index not in self.erased:
                return index
        encoded = re.search(r"\.(\d{1,9})@", email)
        index = int(encoded[1]) if encoded else -1
        return index if self._exists(index) and self.email(index) == email else None

    def profile(self, index: int) -> Profile:
        """Return all attributes of a person."""
        picks = stable_hash("picks", *self._seed, index)
        a, b, c = picks & 0xFFFF, picks >> 16 & 0xFFFF, picks >> 32 & 0xFFFF
        phone = index % 17 == 5 or a % 3 == 0
        profile = Profile(
            id=self.id(index),
            email=self.email(index),
            phone_number=f"+1555{index:07d}" if phone else None,
            external_id=f"crm-{index}" if b % 4 == 0 else None,
            first_name=None if a % 11 == 7 else FIRST_NAMES[index % len(FIRST_NAMES)],
            last_name=None if a % 13 == 5 else LAST_NAMES[b % len(LAST_NAMES)],
            organization='Ropes "R" Us, Inc.' if b % 31 == 2 else None,
            locale="en-US" if b % 5 == 1 else None,
            title="" if b % 37 == 3 else None,
            image=None,
            created=self.created[index],
            updated=self.updated[index],
            last_event_date=self.last_event[index] or None,
            location=_location(a, c),
            properties=_properties(index, b, c),
            consent=_CONSENTS[self.consent[index]],
            consent_at=self._consent_at(index),
            suppressions=self.suppressions.get(index, []),
        )
        for name, value in self.changes.get(index, {}).items():
            setattr(profile, name, value)
        return profile

    def _consent_at(self, index: int) -> int | None:
        if not self.consent[index]:
            return None
        withdrawn = [row.at for row in self.suppressions.get(index, []) if row.reason == "UNSUBSCRIBE"]
        return withdrawn[0] if withdrawn else self.created[index]

    def change(self, index: int, attributes: dict[str, Any], updated: int) -> None:
        """Set attributes and the time of the change. Properties and location are merged into the current ones."""
        changed = dict(attributes)
        if "properties" in changed:
            changed["properties"] = {**self.profile(index).properties, **changed["properties"]}
        if "location" in changed:
            changed["location"] = {**self.profile(index).location, **changed["location"]}
        self.changes[index] = {**self.changes.get(index, {}), **changed}
        self.updated[index] = updated

    def suppress(self, index: int, suppression: Suppression) -> None:
        """Suppress a person, for one list or for all email marketing."""
        self.suppressions[index].append(suppression)

    def lift(self, index: int, list_id: str | None, reason: str | None) -> None:
        """End a person's suppressions for one list, or those for all email marketing; only for a reason if given."""
        self.suppressions[index] = [
            row
            for row in self.suppressions[index]
            if row.list_id != list_id or (reason is not None and row.reason != reason)
        ]

    def record_event(self, index: int, at: int) -> None:
        """Update the time of a person's last event. Implausible times beyond 32 bits are ignored."""
        if at < 1 << 32:
            self.last_event[index] = max(self.last_event[index], at)

    def add(self, attributes: dict[str, Any], created: int) -> int:
        """Add a person without any history and return the index."""
        index = len(self)
        self.created.append(created)
        self.updated.append(created)
        self.last_event.append(0)
        self.consent.append(0)
        self._cached_ids.append(None)
        self.change(index, attributes, created)
        return index


def _location(a: int, c: int) -> dict[str, Any]:
    city, region, zipcode, country, latitude, longitude, timezone = PLACES[c % len(PLACES)]
    empty = dict.fromkeys(("address1", "address2", "city", "country", "region", "zip", "timezone", "ip"))
    if a % 9 == 4:
        return {**empty, "latitude": None, "longitude": None}
    return {
        "address1": f'{c % 400} Main St, "Suite {a % 9}"' if a % 5 == 0 else None,
        "address2": "" if a % 7 == 0 else None,
        "city": city,
        "country": country,
        "latitude": latitude,
        "longitude": longitude,
        "region": region,
        "zip": zipcode,
        "timezone": timezone,
        "ip": None,
    }


def _properties(index: int, b: int, c: int) -> dict[str, Any]:
    if b % 6 == 0:
        return {}
    properties: dict[str, Any] = {"Loyalty Tier": ("gold", "silver", "")[c % 3], "Visits": b % 50}
    if b % 4 == 0:
        properties["$source"] = (-6, "popup", "api")[c % 3]
    if index % 12 == 1:
        properties[ODD_NAMES[index // 12 % len(ODD_NAMES)]] = ODD_VALUES[index // 12 % len(ODD_VALUES)]
    if index % 40 == 2:
        properties |= {name: ODD_VALUES[at % len(ODD_VALUES)] for at, name in enumerate(ODD_NAMES)}
    return properties
