"""Things that can happen to an `Audience`: each function lets one thing happen and returns a sentence about it.

A function returns None, and changes nothing, where the thing cannot happen.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from tests.audience import OPTED_OUT, OPTED_OUT_FORMERLY, Audience

NAMES = ("News", "Sales", "Club")
"""The names of lists: few, so that lists often have the same one."""
_MOST_LISTS = 5
_FEWEST_PEOPLE = 4


class Scene(NamedTuple):
    """The subjects of a happening, by id: a person, another person and a list, which may not exist.

    `choice` and `variant` decide how it happens.
    """

    at: datetime
    person: str
    other: str
    list_id: str | None
    choice: int
    variant: bool


def _name(account: Audience, list_id: str) -> str:
    return f"{list_id} ({account.names()[list_id]})"


def _subscribe(account: Audience, scene: Scene) -> str | None:
    if scene.list_id is None:
        return None
    has_event = scene.variant or scene.choice % 2 == 0
    account.subscribe(scene.person, scene.list_id, scene.at, has_event)
    return f"{scene.person} joins {_name(account, scene.list_id)}{'' if has_event else ', without an event'}"


def _unsubscribe(account: Audience, scene: Scene) -> str | None:
    if scene.list_id is None:
        return None
    account.unsubscribe(scene.person, scene.list_id, scene.at, scene.variant)
    return f"{scene.person} leaves {_name(account, scene.list_id)}{', but is not removed' * (not scene.variant)}"


def _leave(account: Audience, scene: Scene) -> str | None:
    if scene.list_id is None:
        return None
    account.leave(scene.person, scene.list_id)
    return f"{scene.person} is removed from {scene.list_id}"


def _opt_out(account: Audience, scene: Scene) -> str | None:
    metric = OPTED_OUT if scene.choice % 2 else OPTED_OUT_FORMERLY
    removed = (scene.list_id,) if scene.list_id and scene.variant else ()
    account.opt_out(scene.person, scene.at, metric, removed)
    return f"{scene.person} unsubscribes from everything{f' and is removed from {removed[0]}' if removed else ''}"


def _opt_in(account: Audience, scene: Scene) -> str | None:
    account.opt_in(scene.person, scene.at)
    return f"{scene.person} subscribes to email marketing"


def _suppress_for_list(account: Audience, scene: Scene) -> str | None:
    if scene.list_id is None:
        return None
    account.suppress_for_list(scene.person, scene.list_id, scene.at)
    return f"{scene.person} is suppressed for {scene.list_id}"


def _lift_for_list(account: Audience, scene: Scene) -> str | None:
    if scene.list_id is None:
        return None
    account.lift_for_list(scene.person, scene.list_id, scene.at)
    return f"the suppression of {scene.person} for {scene.list_id} is lifted"


def _suppress(account: Audience, scene: Scene) -> str | None:
    account.suppress(scene.person, scene.at)
    return f"{scene.person} is suppressed for everything"


def _lift(account: Audience, scene: Scene) -> str | None:
    account.lift(scene.person, scene.at)
    return f"the suppression of {scene.person} is lifted"


def _open_email(account: Audience, scene: Scene) -> str | None:
    account.open_email(scene.person, scene.at)
    return f"{scene.person} opens an email"


def _rename_list(account: Audience, scene: Scene) -> str | None:
    if scene.list_id is None:
        return None
    before, name = _name(account, scene.list_id), NAMES[scene.choice % len(NAMES)]
    account.rename_list(scene.list_id, name, scene.at)
    return f"{before} is renamed to {name}"


def _create_list(account: Audience, scene: Scene) -> str | None:
    number = len(account.lists) + len(account.deleted_lists())
    if number >= _MOST_LISTS:
        return None
    name = NAMES[scene.choice % len(NAMES)]
    account.create_list(f"L{number}", name, scene.at)
    return f"L{number} ({name}) is created"


def _delete_list(account: Audience, scene: Scene) -> str | None:
    if scene.list_id is None:
        return None
    account.delete_list(scene.list_id)
    return f"{scene.list_id} is deleted"


def _restore_list(account: Audience, scene: Scene) -> str | None:
    deleted = account.deleted_lists()
    if not deleted:
        return None
    list_id = deleted[scene.choice % len(deleted)]
    account.restore_list(list_id)
    return f"{_name(account, list_id)} is restored"


def _delete_person(account: Audience, scene: Scene) -> str | None:
    if len(account.people) <= _FEWEST_PEOPLE:
        return None
    account.delete_person(scene.person)
    return f"{scene.person} is deleted"


def _merge(account: Audience, scene: Scene) -> str | None:
    if len(account.people) <= _FEWEST_PEOPLE or scene.person == scene.other:
        return None
    account.merge(scene.person, scene.other, scene.at)
    return f"{scene.person} is merged into {scene.other}"


def _change_address(account: Audience, scene: Scene) -> str | None:
    email = None if scene.variant else f"{scene.person.lower()}-{scene.choice}@example.com"
    account.change_address(scene.person, email, scene.at)
    return f"the address of {scene.person} becomes {email}"


def _take_address(account: Audience, scene: Scene) -> str | None:
    """Give a person the first address of another one, if it is free."""
    email = f"{scene.other.lower()}@example.com"
    if any(each.email == email for each in account.people.values()):
        return None
    account.change_address(scene.person, email, scene.at)
    return f"the address of {scene.person} becomes {email}"


HAPPENINGS: Mapping[str, Callable[[Audience, Scene], str | None]] = MappingProxyType(
    {
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "leave": _leave,
        "opt_out": _opt_out,
        "opt_in": _opt_in,
        "suppress_for_list": _suppress_for_list,
        "lift_for_list": _lift_for_list,
        "suppress": _suppress,
        "lift": _lift,
        "open_email": _open_email,
        "rename_list": _rename_list,
        "create_list": _create_list,
        "delete_list": _delete_list,
        "restore_list": _restore_list,
        "delete_person": _delete_person,
        "merge": _merge,
        "change_address": _change_address,
        "take_address": _take_address,
    }
)
