"""The contents of the views of docs/marts.md, added up in Python from all that an account of the sandbox holds."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sandbox.account import Account
from sandbox.account.timeline import NOBODY

_KINDS = {
    "Received Email": "delivered",
    "Received Text Message": "delivered",
    "Bounced Email": "bounces",
    "Clicked Text Message": "clicks",
    "Unsubscribed from Email Marketing": "unsubscribes",
    "Marked Email as Spam": "complaints",
}
COUNTED = ("delivered", "bounces", "opens", "machine_opens", "clicks", "bot_clicks", "unsubscribes", "complaints")
UNIQUE = ("unique_recipients", "unique_opens", "unique_opens_by_people", "unique_clicks")
Owner = tuple[str, ...]


class Event(NamedTuple):
    """An event of the account. `person` is null for events without a profile."""

    at: datetime
    name: str
    person: int | None
    properties: dict[str, Any]

    @property
    def kinds(self) -> set[str]:
        """The numbers that the event adds one to."""
        if self.name == "Opened Email":
            return {"opens", "machine_opens"} if self.properties.get("machine_open") is True else {"opens"}
        if self.name == "Clicked Email":
            return {"bot_clicks"} if self.properties.get("Bot Click") is True else {"clicks"}
        return {_KINDS[self.name]} if self.name in _KINDS else set()


def events_of(account: Account) -> Iterator[Event]:
    """Yield all events of the account, in order of time."""
    names = {metric.number: metric.name for metric in account.metrics.values()}
    for ref in account.timeline.every():
        at, metric, person, text = account.timeline.row(ref)
        yield Event(
            datetime.fromtimestamp(at, UTC), names[metric], None if person == NOBODY else person, json.loads(text)
        )


def performance(account: Account) -> dict[Owner, dict[str, int]]:
    """Return the numbers of each campaign, by its ID, and of each message of a flow, by the IDs of both."""
    owners = {row.id: each.id for each in account.campaigns.values() for row in each.messages}
    counts: dict[Owner, Counter[str]] = defaultdict(Counter)
    people: dict[tuple[Owner, str], set[int]] = defaultdict(set)
    for event in events_of(account):
        message, flow = event.properties.get("$message"), event.properties.get("$flow")
        if not message or not event.kinds:
            continue
        owner = (flow, message) if flow else (owners.get(message, message),)
        counts[owner].update(event.kinds)
        if event.person is not None:
            for name in _unique(event.kinds):
                people[owner, name].add(event.person)
    return {
        owner: {name: each[name] for name in COUNTED} | {name: len(people[owner, name]) for name in UNIQUE}
        for owner, each in counts.items()
    }


def _unique(kinds: set[str]) -> Iterator[str]:
    if kinds & {"delivered", "bounces"}:
        yield "unique_recipients"
    if "opens" in kinds:
        yield "unique_opens"
        if "machine_opens" not in kinds:
            yield "unique_opens_by_people"
    if "clicks" in kinds:
        yield "unique_clicks"


def engagement(account: Account, now: datetime) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Return for each person, by ID, and each kind of event: the first and last time, and the numbers of events."""
    times: dict[tuple[int, str], list[datetime]] = defaultdict(list)
    for event in events_of(account):
        if event.person is not None and (kind := _activity(event)):
            times[event.person, kind].append(event.at)
    found: dict[str, dict[str, tuple[Any, ...]]] = defaultdict(dict)
    for (person, kind), every in times.items():
        recent = (sum((now - at).total_seconds() < days * 86_400 for at in every) for days in (30, 90))
        found[account.people.id(person)][kind] = (min(every), max(every), len(every), *recent)
    return found


def _activity(event: Event) -> str | None:
    names = {"Received Email": "send", "Placed Order": "order", "Clicked Text Message": "click"}
    if event.kinds == {"opens"}:
        return "open"
    return "click" if event.kinds == {"clicks"} else names.get(event.name)


def deliverability(account: Account, zone: ZoneInfo) -> dict[tuple[date, str | None], Counter[str]]:
    """Return the numbers of emails for each day in a time zone and each domain of the addresses that people have."""
    found: dict[tuple[date, str | None], Counter[str]] = defaultdict(Counter)
    names = {"delivered": "sends", "bounces": "bounces", "opens": "opens", "machine_opens": "machine_opens"}
    for event in events_of(account):
        counted = {names[kind] for kind in event.kinds & names.keys()} if "Text" not in event.name else set()
        counted |= event.kinds & {"complaints"}
        if "bounces" in counted:
            counted.add(f"{event.properties['Bounce Type'].lower()}_bounces")
        if counted:
            found[event.at.astimezone(zone).date(), _domain(account, event)].update(counted)
    return found


def _domain(account: Account, event: Event) -> str | None:
    email = None if event.person is None else account.people.email(event.person)
    domain = (email or "").partition("@")[2] or event.properties.get("Email Domain")
    return domain.lower() if domain else None
