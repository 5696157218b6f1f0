"""Tags, their groups, and the campaigns, flows, lists and segments that they are on."""

from dataclasses import replace

import pytest

from klaviyo_pg.errors import MissingScope, NotFound
from klaviyo_pg.rows import Flow, Group, Tag, TagGroup
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import Warehouse
from tests.rows import campaign_row

ONLY = ("tags", "tagged_objects")  # the tables whose streams a run reads
ON = "SELECT object_type, object_id, tag_id FROM tagged_objects WHERE deleted_at IS NULL ORDER BY 1, 2, 3"
EVERYWHERE = [("campaign", "C1", "T1"), ("flow", "F1", "T1"), ("flow", "F1", "T2"), ("list", "L3", "T2")]
CAMPAIGN = campaign_row("C1")


def tagged(shop: FakeAccount, campaign: list[str] | None, group: list[str] | None) -> None:
    """Put tags on the campaign and on the list L3; None: the source does not say which."""
    shop.campaigns[:] = [CAMPAIGN._replace(tags=campaign)]
    shop.lists[2:] = [Group("L3", "VIP", LONG_AGO, tags=group)]


@pytest.fixture(autouse=True)
def tags(shop: FakeAccount) -> None:
    """Give the account two tags in a group, on a campaign, a flow and a list; a segment has none."""
    shop.tags += [Tag("T1", "Summer", "G1"), Tag("T2", "ada@example.com", "G1"), TagGroup("G1", "Season", True, False)]
    shop.flows.append(Flow("F1", "Welcome", "live", LONG_AGO, LONG_AGO, tags=["T1", "T2"]))
    shop.segments.append(Group("S1", "Buyers", LONG_AGO, tags=[]))
    tagged(shop, ["T1"], ["T2"])


def test_tags_are_stored_with_what_they_are_on(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Each table joins by its keys, another account has separate rows, and a second run changes nothing."""
    other = FakeAccount(account_id="OTHER", tags=shop.tags[:1])
    second = replace(warehouse.variant(klaviyo_integration="other"), open_source=other.open)
    assert (warehouse.daily(*ONLY).state, second.daily(*ONLY).state) == ("complete", "complete")
    assert warehouse.rows(ON) == EVERYWHERE
    joined = (
        "SELECT t.name, g.name, g.is_exclusive, c.id, f.id, l.id FROM tagged_objects o JOIN tags t ON t.key = o.tag_key"
        " JOIN tag_groups g ON g.key = t.tag_group_key LEFT JOIN campaigns c ON c.key = o.object_key"
        " LEFT JOIN automations f ON f.key = o.object_key LEFT JOIN lists l ON l.key = o.object_key"
        " ORDER BY 1 DESC, 4, 5"
    )
    assert warehouse.rows(joined) == [
        ("ada@example.com", "Season", True, None, "F1", None),
        ("ada@example.com", "Season", True, None, None, "L3"),
        ("Summer", "Season", True, "C1", None, None),
        ("Summer", "Season", True, None, "F1", None),
    ]
    assert warehouse.one("SELECT count(*) FROM tags") == 3
    assert warehouse.daily(*ONLY).changed() == second.daily(*ONLY).changed() == {}


def test_objects_of_different_types_can_have_the_same_id(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.flows.append(Flow("L3", "Welcome", "live", LONG_AGO, LONG_AGO, tags=[]))
    shop.segments.append(Group("C1", "Buyers", LONG_AGO, tags=["T2"]))
    for _ in range(2):
        warehouse.daily(*ONLY)
        assert warehouse.rows(ON) == [*EVERYWHERE, ("segment", "C1", "T2")]


def test_removed_tags_are_marked_until_they_are_back(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A tag is removed from a campaign, or deleted; what is unknown stays."""
    every = list(shop.tags)
    warehouse.daily(*ONLY)
    del shop.tags[1]
    tagged(shop, [], None)
    warehouse.daily(*ONLY)
    assert warehouse.rows(ON) == EVERYWHERE[1:]
    assert warehouse.column("SELECT id FROM tags WHERE deleted_at IS NOT NULL") == ["T2"]
    shop.tags[:] = every
    tagged(shop, ["T1"], ["T2"])
    warehouse.daily(*ONLY)
    assert warehouse.rows(ON) == EVERYWHERE
    assert warehouse.column("SELECT id FROM tags WHERE deleted_at IS NOT NULL") == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        pytest.param(MissingScope("tags:read"), "lacks the scope tags:read", id="missing scope"),
        pytest.param(NotFound("api/tags: not found"), "The tags were not read: api/tags: not found", id="not found"),
    ],
)
def test_tags_that_cannot_be_read_leave_out_nothing_else(
    warehouse: Warehouse, shop: FakeAccount, error: Exception, sentence: str
) -> None:
    """The run says so once, and what the tags are on is read as always."""
    shop.fail("tags", error)
    ran = warehouse.daily(*ONLY, personal_data="hash", personal_data_salt="salt" * 8)
    assert (ran.state, ran.exit_code, len(ran.sentences)) == ("complete", 0, 1)
    assert sentence in ran.sentences[0]
    assert warehouse.one("SELECT count(*) FROM tags") == 0
    assert warehouse.rows(ON) == EVERYWHERE
    shop.recover()
    assert warehouse.daily(*ONLY, personal_data="hash", personal_data_salt="salt" * 8).state == "complete"
    [first, second] = warehouse.column("SELECT name FROM tags ORDER BY id")
    assert (first, "@" in second, len(second)) == ("Summer", False, 32)
