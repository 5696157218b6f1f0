"""The people of a derived account. Everything about a person follows from the index and from the day of a change."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast

from sandbox.account.content import DOMAINS, FIRST_NAMES, LAST_NAMES, PLACES
from sandbox.account.people import NEVER_SUBSCRIBED, SUBSCRIBED, UNSUBSCRIBED, People, Profile, Suppression
from sandbox.derived.arithmetic import Computed
from sandbox.derived.ids import DerivedProfileIds
from sandbox.derived.lives import Lives
from sandbox.derived.options import DerivedOptions
from sandbox.derived.properties import PersonProperties
from sandbox.derived.suppressions import Suppressions, reasons_of
from sandbox.encoding import dump

_FIRST_NAMES, _LAST_NAMES = tuple(map(dump, FIRST_NAMES)), tuple(map(dump, LAST_NAMES))
_LOWER_NAMES = tuple(name.replace("'", "").lower().encode() for name in FIRST_NAMES)
_DOMAINS = tuple(domain.encode() for domain in DOMAINS)
_LOCATION = ("address1", "address2", "city", "country", "latitude", "longitude", "region", "zip", "timezone", "ip")
_NULL = b"null"
_MAX_CACHED_IDS = 20_000


def _place(number: int) -> bytes:
    city, region, zipcode, country, latitude, longitude, timezone = PLACES[number % len(PLACES)]
    street = f'{number} Main St, "Suite {number % 9}"' if number % 5 == 0 else None
    return dump(
        dict(
            zip(
                _LOCATION,
                (street, None, city, country, latitude, longitude, region, zipcode, timezone, None),
                strict=True,
            )
        )
    )


_PLACES = tuple(map(_place, range(256)))


def _mixed(index: int) -> int:
    """Return a number that depends on the index and looks random."""
    mixed = index * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9 >> 11 & 0xFFFFFFFFFF


class DerivedPeople(People):
    """People who cannot be changed. `json` has a function for each attribute that returns its JSON."""

    def __init__(
        self, options: DerivedOptions, lives: Lives, last_event: Callable[[int], int | None], lists: Sequence[str]
    ) -> None:
        self.lives, self.lists, self._last_event = lives, lists, last_event
        self._ids: dict[int, str] = {}
        self.ids = DerivedProfileIds(options.account, options.seed)
        self._properties = PersonProperties(options)
        self.created = cast(Any, Computed(self.__len__, lambda index: self.lives.created.time(index)))
        self.updated = cast(
            Any, Computed(self.__len__, lambda index: self.lives.updated.time(self.lives.position(index)))
        )
        self.last_event = cast(Any, Computed(self.__len__, lambda index: self._last_event(index) or 0))
        self._suppressions = Suppressions(lives, lists)
        self.suppressions = cast(Any, self._suppressions)
        self.changes = {}
        self.erased = set()
        self._attributes: Mapping[str, Callable[[int], bytes]] = {
            "email": self._email,
            "phone_number": lambda index: b'"+1555%07d"' % index if index % 3 == 0 else _NULL,
            "external_id": lambda index: b'"crm-%d"' % index if index % 4 == 0 else _NULL,
            "first_name": lambda index: _FIRST_NAMES[index % len(_FIRST_NAMES)],
            "last_name": lambda index: _LAST_NAMES[_mixed(index) % len(_LAST_NAMES)],
            "organization": lambda index: b'"Ropes \\"R\\" Us, Inc."' if index % 31 == 2 else _NULL,
            "locale": lambda index: b'"en-US"' if index % 5 == 1 else _NULL,
            "title": lambda index: _NULL,
            "image": lambda index: _NULL,
            "location": lambda index: _PLACES[_mixed(index) & 0xFF],
            "properties": lambda index: self._properties.of(index, _mixed(index), self.lives.day_of_change(index)),
        }
        self.json = self._attributes

    def __len__(self) -> int:
        return len(self.lives)

    def renew(self, lives: Lives) -> None:
        """Replace the people by the same people and more."""
        self.lives = self._suppressions.lives = lives

    def id(self, index: int) -> str:
        cached = self._ids.get(index)
        if cached is None:
            if len(self._ids) >= _MAX_CACHED_IDS:
                self._ids.clear()
            cached = self._ids[index] = self.ids.of(index, self.lives.created.time(index))
        return cached

    def indexes(self) -> Iterator[int]:
        return iter(range(len(self)))

    def _email(self, index: int) -> bytes:
        if index % 17 == 5 and not reasons_of(index):
            return _NULL
        return b'"%b.%d@%b"' % (_LOWER_NAMES[index % len(_LOWER_NAMES)], index, _DOMAINS[index % len(_DOMAINS)])

    def email(self, index: int) -> str | None:
        return json.loads(self._email(index))  # type: ignore[no-any-return]

    def profile(self, index: int) -> Profile:
        consent, consent_at = self._consent(index)
        return Profile(
            **{name: json.loads(make(index)) for name, make in self._attributes.items()},
            id=self.id(index),
            created=self.created[index],
            updated=self.updated[index],
            last_event_date=self._last_event(index),
            consent=consent,
            consent_at=consent_at,
            suppressions=self.suppressions.get(index, []),
        )

    def _consent(self, index: int) -> tuple[str, int | None]:
        """Return the consent and its time. A tenth of the people who change on an added day subscribe then."""
        if "UNSUBSCRIBE" in reasons_of(index):
            return UNSUBSCRIBED, self.created[index]
        if self.lives.day_of_change(index) and index // self.lives.cycle % 10 == 0:
            return SUBSCRIBED, self.updated[index]
        return (SUBSCRIBED, self.created[index]) if _mixed(index) % 3 else (NEVER_SUBSCRIBED, None)

    def record_event(self, index: int, at: int) -> None:
        """Leave the person's last event as it is. It shows generated events only."""

    def erase(self, index: int) -> None:
        self.refuse()

    def change(self, index: int, attributes: dict[str, Any], updated: int) -> None:
        self.refuse()

    def suppress(self, index: int, suppression: Suppression) -> None:
        self.refuse()

    def lift(self, index: int, list_id: str | None, reason: str | None) -> None:
        self.refuse()

    def add(self, attributes: dict[str, Any], created: int) -> int:
        self.refuse()

    def refuse(self) -> NoReturn:
        """Raise ValueError: people of a large account cannot be changed."""
        raise ValueError("People of a large account cannot be changed. Use an ordinary account, or add a day.")
