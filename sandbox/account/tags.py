"""Tags and their groups, and which campaigns, flows, lists and segments have them."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

from sandbox.account.ids import uuid
from sandbox.account.model import Account, Options, Tag, TagGroup

_GROUPS = (("Ungrouped Tags", False, True), ('Market "EU"', True, False), ("Season\nand year", False, False))
_TAGS = (("VIP", 0), ("It's new", 0), ("Germany", 1), ("Denmark 🇩🇰", 1), ("Summer, 2026", 2), ("Winter", 2))


def add_tags(account: Account) -> None:
    """Create the account's tags, and put them on about half of what can have tags."""
    options = account.options
    groups = [TagGroup(_id(options, "group", at), *group) for at, group in enumerate(_GROUPS)]
    tags = [Tag(_id(options, "tag", at), name, groups[group].id) for at, (name, group) in enumerate(_TAGS)]
    account.tag_groups.update({group.id: group for group in groups})
    account.tags.update({tag.id: tag for tag in tags})
    for at, row in enumerate(_taggable(account)):
        numbers = {at % len(tags), at // 3 % len(tags)} if at % 2 else set[int]()
        row.tags = [tags[number].id for number in sorted(numbers)]


def _taggable(account: Account) -> Iterable[Any]:
    return chain(account.campaigns.values(), account.flows.values(), account.lists.values(), account.segments.values())


def _id(options: Options, kind: str, at: int) -> str:
    return uuid(kind, options.account, options.seed, at)
