"""Templates, forms and images: what changes, what is deleted and comes back, and what cannot be read."""

from dataclasses import replace

import pytest

from klaviyo_pg.errors import Incomplete, MissingScope, NotFound, Unavailable
from klaviyo_pg.rows import Form, FormVersion, Image, Reject, Template
from klaviyo_pg.windows import FULL_READ
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, HOUR, Warehouse, days_ago

ONLY = ("templates", "forms", "images")
DELETED = " UNION ALL ".join(
    f"SELECT id FROM {table} WHERE deleted_at IS NOT NULL" for table in (*ONLY, "form_versions")
)
VERSIONS = [FormVersion(f"V{number}", "F0", "popup", status="live") for number in range(3)]


@pytest.fixture(autouse=True)
def content(shop: FakeAccount) -> None:
    shop.rows_per_page = 2
    shop.templates += [Template(f"T{at}", f"Template {at}", "CODE", "<p>", updated=days_ago(9 - at)) for at in range(5)]
    shop.forms += [Form(f"F{at}", f"Form {at}", "live", versions=[], updated=days_ago(9 - at)) for at in range(3)]
    shop.forms[0] = shop.forms[0]._replace(versions=VERSIONS)
    shop.images += [Image(f"I{at}", f"Image {at}", size=7, updated=days_ago(9 - at)) for at in range(3)]


def a_week_later(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '7 days'")
    shop.recover()


def test_content_is_read_from_its_watermark_on_and_every_week_in_full(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Another account has separate rows, and a run over unchanged content changes nothing."""
    other = FakeAccount(account_id="OTHER", templates=shop.templates[:1])
    second = replace(warehouse.variant(klaviyo_integration="other"), open_source=other.open)
    first = warehouse.daily(*ONLY)
    assert (first.state, second.daily(*ONLY).state) == ("complete", "complete")
    assert [warehouse.one(f"SELECT count(*) FROM {table}") for table in (*ONLY, "form_versions")] == [6, 3, 3, 3]
    joined = "SELECT f.name, count(*) FROM form_versions v JOIN forms f ON f.key = v.form_key GROUP BY 1"
    assert warehouse.rows(joined) == [("Form 0", 3)]
    shop.recover()
    shop.templates[0] = Template("T0", "New name", updated=first.run.as_of - HOUR)
    assert warehouse.daily(*ONLY).changed() == {"templates": (0, 1)}
    assert {each.window.start for each in shop.sent("templates")} == {first.run.as_of - DAY}
    assert warehouse.one("SELECT name FROM templates WHERE id = 'T0' AND html IS NULL") == "New name"
    a_week_later(warehouse, shop)
    assert warehouse.daily(*ONLY).changed() == {}
    assert {each.window for kind in ONLY for each in shop.sent(kind)} == {FULL_READ}


def test_a_full_read_shows_what_was_deleted_until_it_is_back(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A version is deleted with the read of its form, also where a version of another form cannot be read.

    The versions of a deleted form stay as they were.
    """
    warehouse.daily(*ONLY)
    every = list(shop.templates), list(shop.forms), list(shop.images)
    del shop.templates[1], shop.forms[1], shop.images[1]
    shop.forms[0] = shop.forms[0]._replace(versions=VERSIONS[1:])
    shop.forms[1] = shop.forms[1]._replace(rejects=[Reject("{}", "No ID.")])
    assert warehouse.daily(*ONLY).changed() == {}
    a_week_later(warehouse, shop)
    shop.unreadable["templates", 0] = Reject("{}", "No ID.")
    shop.incomplete["images"] = Incomplete(["hidden images"], "No.")
    ran = warehouse.daily(*ONLY)
    assert (ran.state, sorted(warehouse.column(DELETED))) == ("complete", ["F1", "V0"])
    assert ran.sentences == ["The images were read without hidden images: No."]
    shop.unreadable.clear()
    shop.incomplete.clear()
    warehouse.daily(*ONLY)
    assert sorted(warehouse.column(DELETED)) == ["F1", "I1", "T1", "V0"]
    shop.templates[:], shop.forms[:], shop.images[:] = every
    a_week_later(warehouse, shop)
    warehouse.daily(*ONLY)
    assert warehouse.column(DELETED) == []


@pytest.mark.parametrize("kind", ONLY)
def test_an_interrupted_full_read_is_resumed(warehouse: Warehouse, shop: FakeAccount, kind: str) -> None:
    """It resumes at the checkpoint, and marks what neither of its parts found, and nothing else.

    The versions of a deleted form stay as they were.
    """
    shop.rows_per_page = 1
    rows = getattr(shop, kind)
    rows.append(rows[0]._replace(id="latest", updated=days_ago(1)))
    warehouse.daily(kind)
    a_week_later(warehouse, shop)
    gone = rows.pop(0)
    shop.fail(kind, Unavailable("Away."), page=2)
    interrupted = warehouse.daily(kind)
    assert (interrupted.exit_code, warehouse.column(DELETED)) == (1, [])
    assert warehouse.one("SELECT count(*) FROM swept_rows") == 1
    shop.recover()
    resumed = warehouse.daily(kind)
    assert (resumed.run.id, resumed.state) == (interrupted.run.id, "complete")
    assert FULL_READ not in [each.window for each in shop.sent(kind)]
    assert warehouse.column(DELETED) == [gone.id]
    assert warehouse.one("SELECT count(*) FROM swept_rows") == 0
    assert warehouse.watermarks()[f"content_read/{kind}"] == resumed.run.as_of


def test_an_account_without_content_is_complete(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Each is said once, and what was stored stays. Many that are missing have to be confirmed by a second run."""
    shop.templates += [Template(f"U{at}", updated=days_ago(1)) for at in range(20)]
    warehouse.daily(*ONLY)
    a_week_later(warehouse, shop)
    shop.fail("forms", MissingScope("forms:read"))
    shop.fail("images", NotFound("No such page."))
    del shop.templates[5:]
    ran = warehouse.daily(*ONLY)
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert "lacks 20 of 25 stored rows of templates" in ran.sentences[0]
    assert sorted(ran.sentences[1:]) == [  # they are refused side by side, in any order
        f"The forms were not read: {MissingScope('forms:read')}",
        "The images were not read: No such page.",
    ]
    assert warehouse.column(DELETED) == []
    warehouse.execute("UPDATE missing_rows SET missed_at = missed_at - interval '1 hour'")
    shop.recover()
    assert warehouse.daily(*ONLY).state == "complete"
    assert len(warehouse.column(DELETED)) == 20
