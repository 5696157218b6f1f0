"""A model of what docs/people.md defines, in plain Python. Knows no SQL and no product code.

The model reads an `Audience` at the same times as the product does, and sees only what a reader can see at these times.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tests.audience import JOINED, LEFT, OPTED_IN, OPTED_OUT, OPTED_OUT_FORMERLY, Audience, Person

LIST_SUBSCRIBED, LIST_LEFT, ALL_SUBSCRIBED, ALL_LEFT = "joined", "left", "opted in", "opted out"
KINDS = {
    JOINED: LIST_SUBSCRIBED,
    LEFT: LIST_LEFT,
    OPTED_IN: ALL_SUBSCRIBED,
    OPTED_OUT: ALL_LEFT,
    OPTED_OUT_FORMERLY: ALL_LEFT,
}
SAME_MOMENT = timedelta(seconds=5)
Place = tuple[str, str]
"""A list id and a profile id."""


@dataclass
class ListName:
    """A name that a list can have had in [since, until), as far as the reads of the lists show."""

    list_id: str
    name: str
    since: datetime
    until: datetime | None = None

    def covers(self, at: datetime) -> bool:
        """Return whether the list can have had the name at a time."""
        return self.since <= at and (self.until is None or at < self.until)


@dataclass
class Happened:
    """A stored event. `list_id` is the list that its name has been resolved to; `owner` is None once erased."""

    id: str
    at: datetime
    kind: str | None
    owner: str | None
    list_name: str | None
    list_id: str | None = None


@dataclass
class Member:
    """A stored profile."""

    id: str
    email: str | None
    consent: str | None
    deleted_at: datetime | None = None
    left_reason: str | None = None


@dataclass
class Stay:
    """A place on a list: when the person joined, and since when sweeps have not found the person."""

    joined: datetime
    not_found: list[datetime] = field(default_factory=list)


@dataclass
class ListSuppression:
    """A suppression for one list."""

    reason: str
    at: datetime
    lifted_at: datetime | None = None


class Standing(NamedTuple):
    """The row of member_lists for a person and a list."""

    subscribed: datetime
    unsubscribed_at: datetime | None
    is_subscribed: bool | None
    left_reason: str | None


class Model:
    """The contents of a warehouse after the reads so far.

    Every read of events goes `overlap` back before the last one; the first goes back `first_sync`.
    """

    def __init__(self, overlap: timedelta, first_sync: timedelta) -> None:
        self._overlap, self._first_sync = overlap, first_sync
        self._last_read: datetime | None = None
        self._lists_read_at: datetime | None = None
        self._has_read_exclusions = False
        self._list_read_at: dict[str, datetime] = {}
        self._names: list[ListName] = []
        self._erased: set[str] = set()
        self._missing: dict[str, datetime] = {}
        self._confirmed: set[str] = set()
        self.lists: dict[str, datetime | None] = {}
        self.exclusions: dict[str | None, datetime | None] = {}
        self.events: dict[str, Happened] = {}
        self.members: dict[str, Member] = {}
        self.stays: dict[Place, Stay] = {}
        self.suppressions: dict[Place, ListSuppression] = {}
        self.merges: dict[Place, datetime] = {}
        self.member_lists: dict[Place, Standing] = {}

    def read_daily(self, account: Audience, at: datetime, is_sweep: bool, erases_deleted: bool = False) -> None:
        """Read the account as a daily run does; a sweep also reads all list members and the ids of all profiles."""
        self._read_lists(account, at)
        self._read_exclusions(account, at)
        self._read_events(account, self._first(at), None, at)
        self._read_profiles(account, at)
        self._read_members(account, at, is_sweep)
        self._look_for_missing(account, at, is_sweep)
        self._settle_missing()
        self._resolve()
        self.member_lists = dict(self._derived())
        if erases_deleted:
            self._erase_confirmed()
        self._last_read = at

    def read_history(self, account: Audience, start: datetime, at: datetime) -> None:
        """Read the account as a backfill does: all events from `start` to the last midnight.

        It also reads the exclusions if they have never been read.
        """
        self._read_lists(account, at)
        if not self._has_read_exclusions:
            self._read_exclusions(account, at)
        self._read_events(account, start, at.replace(hour=0, minute=0, second=0), at)

    def erase(self, profile_id: str | None = None, email: str | None = None) -> None:
        """Remove a person, identified by id or address, for good."""
        gone = {profile_id} if profile_id else {each.id for each in self.members.values() if each.email == email}
        while merged := {old for old, new in self.merges if new in gone} - gone:
            gone |= merged  # the same person, under an earlier id
        others = {each.email for each in self.members.values() if each.id not in gone}
        addresses = {each.email for each in self.members.values() if each.id in gone} - others | {email}
        self._erased |= gone
        for event in self.events.values():
            event.owner = None if event.owner in gone else event.owner
        self.exclusions = {each: at for each, at in self.exclusions.items() if each not in addresses}
        self.members = {each: row for each, row in self.members.items() if each not in gone}
        self.stays = {place: row for place, row in self.stays.items() if place[1] not in gone}
        self.suppressions = {place: row for place, row in self.suppressions.items() if place[1] not in gone}
        self.member_lists = {place: row for place, row in self.member_lists.items() if place[1] not in gone}
        self.merges = {pair: at for pair, at in self.merges.items() if not gone.intersection(pair)}
        self._missing = {each: at for each, at in self._missing.items() if each not in gone}

    def _first(self, at: datetime) -> datetime:
        return at - self._first_sync if self._last_read is None else self._last_read - self._overlap

    def _read_lists(self, account: Audience, at: datetime) -> None:
        for group in account.lists:
            current = next((each for each in self._names if each.list_id == group.id and each.until is None), None)
            if current is None:
                assert group.created is not None
                self._names.append(ListName(group.id, group.name or "", group.created))
            elif current.name != group.name:
                assert self._lists_read_at is not None
                current.until = at
                self._names.append(ListName(group.id, group.name or "", self._lists_read_at))
            self.lists[group.id] = None
        for list_id in self.lists.keys() - account.names().keys():
            self.lists[list_id] = self.lists[list_id] or at
        self._lists_read_at = at

    def _read_exclusions(self, account: Audience, at: datetime) -> None:
        self._has_read_exclusions = True
        found = {each.email for each in account.exclusions if each.member_id not in self._erased}
        for address in found | self.exclusions.keys():
            self.exclusions[address] = None if address in found else self.exclusions[address] or at

    def _read_events(self, account: Audience, start: datetime, end: datetime | None, at: datetime) -> None:
        """Store events. One that has another profile than before shows a merge."""
        for event in account.events:
            if event.at < start or (end is not None and event.at >= end):
                continue
            owner = None if event.profile_id in self._erased else event.profile_id
            kind = KINDS.get(event.metric_id or "")
            stored = self.events.setdefault(event.id, Happened(event.id, event.at, kind, owner, event.list_name))
            if stored.owner and owner and stored.owner != owner:
                self.merges.setdefault((stored.owner, owner), at)
            stored.owner = owner
            if owner in account.people:
                self._meet(account.people[owner])

    def _meet(self, person: Person) -> None:
        """Store a person who came with an event. Pages of events say nothing about consent."""
        stored = self.members.setdefault(person.id, Member(person.id, person.email, None))
        stored.email = person.email

    def _read_profiles(self, account: Audience, at: datetime) -> None:
        for person in account.people.values():
            if person.id in self._erased:
                continue
            self.members[person.id] = Member(person.id, person.email, person.consent)
            self._missing.pop(person.id, None)
            for list_id, (reason, since) in person.list_suppressions.items():
                self.suppressions[list_id, person.id] = ListSuppression(reason, since)
            for (list_id, profile_id), row in self.suppressions.items():
                if profile_id == person.id and list_id not in person.list_suppressions:
                    row.lifted_at = row.lifted_at or at

    def _read_members(self, account: Audience, at: datetime, is_sweep: bool) -> None:
        for list_id, members in account.members.items():
            last = self._list_read_at.get(list_id)
            is_full = last is None or is_sweep
            found = set()
            for place in members:
                assert place.joined is not None
                is_new = is_full or (last is not None and place.joined >= last - self._overlap)
                if is_new and place.member_id not in self._erased:
                    self.stays[list_id, place.member_id] = Stay(place.joined)
                    found.add(place.member_id)
            if is_sweep:
                for (swept, profile_id), stay in self.stays.items():
                    if swept == list_id and profile_id not in found:
                        stay.not_found.append(at)
            self._list_read_at[list_id] = at

    def _look_for_missing(self, account: Audience, at: datetime, is_sweep: bool) -> None:
        """Look for profiles that have lost events to another one, and in a sweep for all."""
        suspected = {old for old, _ in self.merges if old not in self._missing}
        for profile_id in sorted(self.members.keys() if is_sweep else suspected & self.members.keys()):
            if profile_id in account.people:
                continue
            since = self._missing.setdefault(profile_id, at)
            if is_sweep and at - since >= timedelta(days=1):
                self._confirmed.add(profile_id)
            if since == at:
                self._ask_for_owner(account, profile_id, at)

    def _ask_for_owner(self, account: Audience, profile_id: str, at: datetime) -> None:
        """Ask for the present owner of the latest event of a missing profile."""
        stored = [event for event in self.events.values() if event.owner == profile_id]
        if stored:
            latest = max(stored, key=lambda event: event.at)
            owner = next(event.profile_id for event in account.events if event.id == latest.id)
            if owner != profile_id and owner not in self._erased:
                self.merges.setdefault((profile_id, owner), at)

    def _settle_missing(self) -> None:
        """Mark missing profiles, and let the events of merged ones follow."""
        for profile_id, since in self._missing.items():
            heirs = [(at, new) for (old, new), at in self.merges.items() if old == profile_id]
            if member := self.members.get(profile_id):
                member.deleted_at, member.left_reason = since, "merged" if heirs else "deleted"
            for event in self.events.values():
                if heirs and event.owner == profile_id:
                    event.owner = max(heirs)[1]

    def _erase_confirmed(self) -> None:
        for member in list(self.members.values()):
            if member.left_reason == "deleted" and member.id in self._confirmed:
                self.erase(member.id)

    def _resolve(self) -> None:
        """Find the list that an event names. Once found, it stays."""
        for event in self.events.values():
            if event.list_id is None and event.kind in (LIST_SUBSCRIBED, LIST_LEFT) and event.owner:
                lists = self._named(event)
                joined = {each for each in lists if self._joined_then(each, event)}
                if event.kind == LIST_SUBSCRIBED and len(lists) > 1:
                    lists = joined
                event.list_id = lists.pop() if len(lists) == 1 else None

    def _named(self, event: Happened) -> set[str]:
        return {each.list_id for each in self._names if each.name == event.list_name and each.covers(event.at)}

    def _joined_then(self, list_id: str, event: Happened) -> bool:
        stay = self.stays.get((list_id, event.owner or ""))
        return stay is not None and abs(stay.joined - event.at) <= SAME_MOMENT

    def _derived(self) -> Iterator[tuple[Place, Standing]]:
        of_person: dict[str, list[Happened]] = {}
        for event in self.events.values():
            if event.owner and event.kind:
                of_person.setdefault(event.owner, []).append(event)
        for place, stay in self.stays.items():
            yield place, self._standing(place, stay, of_person.get(place[1], []))

    def _standing(self, place: Place, stay: Stay, events: list[Happened]) -> Standing:
        """Return the result of the first row of the truth table that applies."""
        list_id, profile_id = place
        subscribed = _latest(each.at for each in events if each.kind == LIST_SUBSCRIBED and each.list_id == list_id)
        joined = max(stay.joined, subscribed or stay.joined)
        member, suppression = self.members.get(profile_id), self.suppressions.get(place)
        reasons = (
            ("event", self._left(list_id, joined, events)),
            ("suppressed", suppression.at if suppression and suppression.lifted_at is None else None),
            ("absent", next((at for at in stay.not_found if at >= joined), None)),
            ("list_deleted", self.lists[list_id]),
            ("profile_deleted", member.deleted_at if member else None),
        )
        for reason, at in reasons:
            if at is not None:
                return Standing(subscribed or stay.joined, at, False, reason)
        return Standing(subscribed or stay.joined, None, self._may_be_mailed(member), None)

    def _left(self, list_id: str, joined: datetime, events: list[Happened]) -> datetime | None:
        """Return when the person last left the list according to an event that is not older than the joining."""
        back = _latest(each.at for each in events if each.kind == ALL_SUBSCRIBED)
        left_list = [each.at for each in events if each.kind == LIST_LEFT and self._concerns(each, list_id)]
        left_all = [each.at for each in events if each.kind == ALL_LEFT and each.at >= (back or each.at)]
        return _latest(at for at in (*left_list, *left_all) if at >= joined)

    def _concerns(self, event: Happened, list_id: str) -> bool:
        return event.list_id == list_id or (event.list_id is None and list_id in self._named(event))

    def _may_be_mailed(self, member: Member | None) -> bool | None:
        if member is None:
            return None
        if member.email in self.exclusions and self.exclusions[member.email] is None:
            return False
        return None if member.consent is None else member.consent == "SUBSCRIBED" and member.email is not None


def _latest(times: Iterable[datetime]) -> datetime | None:
    return max(times, default=None)


def tables(model: Model) -> dict[str, dict[Any, Any]]:
    """Return the expected contents of the warehouse, by table."""
    members = model.members.values()
    return {
        "lists": model.lists,
        "exclusions": model.exclusions,
        "members": {each.id: (each.email, each.consent, each.deleted_at, each.left_reason) for each in members},
        "suppressions": {place: (row.reason, row.at, row.lifted_at) for place, row in model.suppressions.items()},
        "events": {each.id: each.owner for each in model.events.values()},
        "merges": model.merges,
        "member_lists": {place: tuple(standing) for place, standing in model.member_lists.items()},
    }
