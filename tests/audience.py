"""A `FakeAccount` whose people and lists live: people join, leave, are suppressed, merge and disappear.

Knows nothing of how a reader of the account should interpret it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from klaviyo_pg.rows import Consent, Exclusion, Group, Membership, Profile, Suppression
from tests.fakes import LONG_AGO, Event, FakeAccount
from tests.rows import profile_row

JOINED, LEFT = "Subscribed to List", "Unsubscribed from List"
OPTED_IN, OPTED_OUT = "Subscribed to Email Marketing", "Unsubscribed from Email Marketing"
OPTED_OUT_FORMERLY = "Unsubscribed"
OPENED = "Opened Email"
METRICS = (JOINED, LEFT, OPTED_IN, OPTED_OUT, OPTED_OUT_FORMERLY, OPENED)
"""The names of the metrics. Each is its own id."""
UNSUBSCRIBED_BY_PERSON = "UNSUBSCRIBE"
SUPPRESSED_BY_MARKETER = "USER_SUPPRESSED"


@dataclass
class Person:
    """A profile, with its suppressions: reason -> time for all lists, list id -> (reason, time) for one list."""

    id: str
    email: str | None
    updated: datetime
    consent: str = "NEVER_SUBSCRIBED"
    consent_at: datetime | None = None
    suppressions: dict[str, datetime] = field(default_factory=dict)
    list_suppressions: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    @property
    def profile(self) -> Profile:
        """The profile as the API returns it."""
        can_receive = self.email is not None and not self.suppressions
        return profile_row(
            self.id,
            email=self.email,
            created=LONG_AGO,
            klaviyo_updated_at=self.updated,
            consent=self.consent,
            consent_timestamp=self.consent_at,
            list_suppressions=tuple(
                Suppression(list_id, self.id, at, reason) for list_id, (reason, at) in self.list_suppressions.items()
            ),
            consents=(Consent("email", self.consent, can_receive, timestamp=self.consent_at),),
        )


class Audience(FakeAccount):
    """An account in which things happen to people. Each method is one of them, at a time that the caller chooses.

    What Klaviyo notices about a profile sets the profile's `updated`; joining and leaving a list does not.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.people: dict[str, Person] = {}
        self._deleted_lists: dict[str, tuple[Group, list[Membership]]] = {}
        for name in METRICS:
            self.add_metric(name, name)

    def create_person(self, profile_id: str, at: datetime) -> None:
        self.people[profile_id] = Person(profile_id, f"{profile_id}@example.com".lower(), at)
        self._changed(profile_id, at)

    def create_list(self, list_id: str, name: str, at: datetime) -> None:
        self.lists.append(Group(list_id, name, at, at))
        self.members[list_id] = []

    def names(self) -> dict[str, str]:
        """Return the name of each list that exists, by id."""
        return {group.id: group.name or "" for group in self.lists}

    def membership(self, list_id: str, profile_id: str) -> Membership | None:
        """Return a person's place on a list."""
        return next((each for each in self.members[list_id] if each.member_id == profile_id), None)

    def subscribe(self, profile_id: str, list_id: str, at: datetime, has_event: bool = True) -> None:
        """Put a person on a list. An import creates no event."""
        self._remove(list_id, profile_id)
        self.add_member(list_id, profile_id, at)
        if has_event:
            self._happens(JOINED, profile_id, at, self.names()[list_id])

    def unsubscribe(self, profile_id: str, list_id: str, at: datetime, is_removed: bool = True) -> None:
        """Let a person leave a list by a link in an email. Klaviyo may or may not remove the person from the list."""
        self._happens(LEFT, profile_id, at, self.names()[list_id])
        if is_removed:
            self._remove(list_id, profile_id)

    def leave(self, profile_id: str, list_id: str) -> None:
        """Remove a person from a list, as a marketer or an integration does. No event says so."""
        self._remove(list_id, profile_id)

    def opt_out(
        self, profile_id: str, at: datetime, metric: str = OPTED_OUT, removed_from: tuple[str, ...] = ()
    ) -> None:
        """Let a person unsubscribe from all email marketing. Klaviyo may remove the person from some lists."""
        person = self.people[profile_id]
        person.consent, person.consent_at = "UNSUBSCRIBED", at
        person.suppressions[UNSUBSCRIBED_BY_PERSON] = at
        self._changed(profile_id, at)
        self._happens(metric, profile_id, at)
        for list_id in removed_from:
            self._remove(list_id, profile_id)

    def opt_in(self, profile_id: str, at: datetime) -> None:
        """Let a person consent to email marketing, which ends a suppression by the person."""
        person = self.people[profile_id]
        person.consent, person.consent_at = "SUBSCRIBED", at
        person.suppressions.pop(UNSUBSCRIBED_BY_PERSON, None)
        self._changed(profile_id, at)
        self._happens(OPTED_IN, profile_id, at)

    def suppress_for_list(self, profile_id: str, list_id: str, at: datetime) -> None:
        self.people[profile_id].list_suppressions[list_id] = (SUPPRESSED_BY_MARKETER, at)
        self._changed(profile_id, at)

    def lift_for_list(self, profile_id: str, list_id: str, at: datetime) -> None:
        self.people[profile_id].list_suppressions.pop(list_id, None)
        self._changed(profile_id, at)

    def suppress(self, profile_id: str, at: datetime, reason: str = SUPPRESSED_BY_MARKETER) -> None:
        """Suppress a person for all lists."""
        self.people[profile_id].suppressions[reason] = at
        self._changed(profile_id, at)

    def lift(self, profile_id: str, at: datetime, reason: str = SUPPRESSED_BY_MARKETER) -> None:
        self.people[profile_id].suppressions.pop(reason, None)
        self._changed(profile_id, at)

    def change_address(self, profile_id: str, email: str | None, at: datetime) -> None:
        self.people[profile_id].email = email
        self._changed(profile_id, at)

    def open_email(self, profile_id: str, at: datetime) -> None:
        """Create an event that says nothing about lists."""
        self._happens(OPENED, profile_id, at)

    def rename_list(self, list_id: str, name: str, at: datetime) -> None:
        self.lists[:] = [each._replace(name=name, updated=at) if each.id == list_id else each for each in self.lists]

    def delete_list(self, list_id: str) -> None:
        [group] = [each for each in self.lists if each.id == list_id]
        self.lists.remove(group)
        self._deleted_lists[list_id] = group, self.members.pop(list_id)

    def restore_list(self, list_id: str) -> None:
        """Restore a deleted list with the members that it had."""
        group, members = self._deleted_lists.pop(list_id)
        self.lists.append(group)
        self.members[list_id] = [each for each in members if each.member_id in self.people]

    def deleted_lists(self) -> list[str]:
        """Return the ids of lists that can be restored."""
        return list(self._deleted_lists)

    def delete_person(self, profile_id: str) -> None:
        """Delete a profile. Its events stay, with its id."""
        self._disappear(profile_id)

    def merge(self, old_id: str, new_id: str, at: datetime) -> None:
        """Merge a profile into another one, which gets its events and memberships."""
        self.events[:] = [
            event._replace(profile_id=new_id) if event.profile_id == old_id else event for event in self.events
        ]
        for list_id in self.members:
            old = self.membership(list_id, old_id)
            if old is not None and self.membership(list_id, new_id) is None:
                self.members[list_id].append(old._replace(member_id=new_id))
        self._disappear(old_id)
        self._changed(new_id, at)

    def _changed(self, profile_id: str, at: datetime) -> None:
        person = self.people[profile_id]
        person.updated = at
        self.profiles[profile_id] = (person.profile, at)
        self.exclusions[:] = list(self._exclusions())

    def _exclusions(self) -> Iterator[Exclusion]:
        for person in self.people.values():
            for reason, at in person.suppressions.items():
                if person.email is not None:
                    yield Exclusion(person.email, reason, at, person.id)

    def _happens(self, metric: str, profile_id: str, at: datetime, list_name: str | None = None) -> None:
        self.events.append(Event(f"E{len(self.events):05}", at, metric, profile_id, list_name))

    def _remove(self, list_id: str, profile_id: str) -> None:
        self.members[list_id][:] = [each for each in self.members[list_id] if each.member_id != profile_id]

    def _disappear(self, profile_id: str) -> None:
        del self.people[profile_id], self.profiles[profile_id]
        self.exclusions[:] = list(self._exclusions())
        for list_id in self.members:
            self._remove(list_id, profile_id)
