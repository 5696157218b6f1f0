"""Reports on campaigns and flows: which days a run reads, and what it does without a metric, a quota or an answer."""

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from klaviyo_pg.errors import MissingScope, NotFound, QuotaUsedUp, Stopped
from klaviyo_pg.rows import MappedMetric, Reject, Report
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import MIDNIGHT, Warehouse, days_ago

REPORTS = ("campaign_reports", "flow_reports")
STORED = """
SELECT sent_on, campaign_id, opens, conversion_value FROM campaign_reports WHERE deleted_at IS NULL ORDER BY 1, 2
"""
QUOTA = QuotaUsedUp("Klaviyo's quota for campaign reports is used up.")


def day(back: int) -> date:
    """Return the day that began so many days before the last midnight."""
    return days_ago(back).date()


def report(back: int, owner: str, opens: int, value: float = 0.0) -> Report:
    return Report(day(back), owner, "M1", "email", None, "", {"opens": opens, "conversion_value": value})


@pytest.fixture(autouse=True)
def reported(shop: FakeAccount) -> None:
    """The days of the account are those of UTC."""
    shop.described.update(timezone="Etc/UTC")
    shop.mapped_metrics.append(MappedMetric("revenue", "ORDER", None, LONG_AGO))
    shop.reports = {
        "campaign_reports": [report(3, "C1", 7, 19.5), report(1, "C2", 2)],
        "flow_reports": [report(back, "F1", back) for back in (1, 2, 4)],
    }


@pytest.fixture
def reports(warehouse: Warehouse) -> Warehouse:
    return warehouse.variant(report_days=4, tables=REPORTS)


def asked(shop: FakeAccount, stream: str = "campaign_reports") -> list[date]:
    """Return the first day of each request for a report, and forget all requests."""
    days = [request.window.start.date() for request in shop.sent(stream) if request.window.start]
    shop.recover()
    return days


def let_a_day_pass(reports: Warehouse) -> None:
    """Let what was read until now have been read a day ago."""
    reports.execute("UPDATE watermarks SET watermark = watermark - interval '1 day'")


def test_days_are_those_of_utc_if_no_such_time_zone_exists(reports: Warehouse, shop: FakeAccount) -> None:
    shop.described.update(timezone="Not/AZone")
    assert reports.daily().state == "complete"
    assert [request.window for request in shop.sent("flow_reports")] == [(days_ago(4), MIDNIGHT)]


def test_days_are_read_once_a_day_and_changes_are_followed(reports: Warehouse, shop: FakeAccount) -> None:
    """Campaigns take a request a day, flows one for all. What is no longer in a report is marked, until it returns."""
    assert reports.daily().state == "complete"
    assert [request.window for request in shop.sent("flow_reports")] == [(days_ago(4), MIDNIGHT)]
    assert asked(shop) == [day(1), day(2), day(3), day(4)]
    assert reports.rows(STORED) == [(day(3), "C1", 7, 19.5), (day(1), "C2", 2, 0)]
    assert reports.one("SELECT count(*) FROM flow_reports JOIN metrics ON metrics.key = conversion_metric_key") == 3
    assert set(REPORTS) <= set(reports.column("SELECT stream FROM freshness"))
    assert (reports.daily().changed(), asked(shop)) == ({}, [])
    let_a_day_pass(reports)
    vanished = shop.reports["campaign_reports"].pop(0)
    reports.daily()
    assert (len(asked(shop)), reports.rows(STORED)) == (4, [(day(1), "C2", 2, 0)])
    let_a_day_pass(reports)
    shop.reports["campaign_reports"].append(vanished._replace(statistics={"opens": 9}))
    assert reports.daily().changed() == {"campaign_reports": (0, 1)}
    assert reports.rows(STORED) == [(day(3), "C1", 9, None), (day(1), "C2", 2, 0)]
    let_a_day_pass(reports)
    shop.reports["campaign_reports"].clear()
    shop.unreadable["campaign_reports", 0] = Reject("{}", "The report has no results.")
    assert reports.daily().counts["campaign_reports"]["rejected"] == 4
    assert len(reports.rows(STORED)) == 2  # what cannot be read marks nothing


def test_many_rows_that_vanish_have_to_be_confirmed(reports: Warehouse, shop: FakeAccount) -> None:
    """Their days are read again by the next run. What was read of other days in the meantime confirms nothing."""
    marked = "SELECT count(*) FROM campaign_reports WHERE deleted_at IS NOT NULL"
    shop.reports["campaign_reports"] = [report(back, f"C{number}", 1) for back in (1, 3) for number in range(12)]
    reports.daily()
    let_a_day_pass(reports)
    del shop.reports["campaign_reports"][12:]
    ran = reports.daily()
    assert (ran.state, ran.exit_code, reports.one(marked)) == ("partial", 3, 0)
    assert "lacks 12 of 12 stored rows of campaign_reports" in ran.sentences[0]
    asked(shop)
    reports.execute("UPDATE missing_rows SET missed_at = missed_at - interval '1 hour'")
    assert reports.daily().state == "complete"
    assert (asked(shop), reports.one(marked)) == ([day(3)], 12)


def test_a_budget_is_for_a_day_and_the_rest_follows(reports: Warehouse, shop: FakeAccount) -> None:
    """The latest days come first, however many runs there are. Days that are too long ago are forgotten."""
    reports.daily(report_requests=3)
    reports.daily(report_requests=3)
    assert asked(shop) == [day(1), day(2), day(3)]
    assert "campaign_reports" not in reports.watermarks()
    let_a_day_pass(reports)
    reports.daily(report_requests=3)
    assert asked(shop) == [day(4), day(1), day(2)]
    assert "campaign_reports" in reports.watermarks()
    reports.daily(report_days=2)
    remembered = {key for key in reports.watermarks() if key.startswith("campaign_reports/ORDER/")}
    assert remembered == {f"campaign_reports/ORDER/{day(back)}" for back in (1, 2)}


def test_a_quota_that_is_used_up_ends_the_report_only(reports: Warehouse, shop: FakeAccount) -> None:
    """The run is partial, says so once, and asks no more; the next one continues. So does one after a stop."""
    shop.before("campaign_reports", lambda: shop.fail("campaign_reports", QUOTA))
    ran = reports.daily()
    assert (ran.state, ran.exit_code, ran.sentences) == ("partial", 3, [str(QUOTA)])
    assert reports.one("SELECT count(*) FROM flow_reports") == 3
    assert asked(shop) == [day(1), day(2)]
    shop.before("campaign_reports", lambda: shop.fail("campaign_reports", Stopped()))
    assert reports.daily().state == "stopped"
    assert asked(shop) == [day(2), day(3)]
    assert reports.daily().state == "complete"
    assert asked(shop) == [day(3), day(4)]
    assert len(reports.rows(STORED)) == 2


def test_a_refused_report_leaves_out_itself_only(reports: Warehouse, shop: FakeAccount) -> None:
    """One request shows it, and the run says so once."""
    for error, sentence in {
        NotFound("Gone."): "The campaign reports of ORDER could not be read: Gone.",
        MissingScope("campaigns:read"): str(MissingScope("campaigns:read")),
    }.items():
        shop.fail("campaign_reports", error)
        ran = reports.daily()
        assert (ran.state, ran.sentences) == ("partial", [sentence])
        assert asked(shop) == [day(1)]
    assert reports.one("SELECT count(*) FROM flow_reports") == 3


def test_the_metric_of_conversions_is_found_or_asked_for(reports: Warehouse, shop: FakeAccount) -> None:
    """By the setting, by the account's mapping, or by the usual name of orders. Another metric is another report."""
    chosen: dict[str, dict[str, Any]] = {"ORDER": {}, "OPEN": {"report_metric": "Opened Email"}}
    for metric_id, settings in chosen.items():
        reports.daily(**settings)
        assert {request.subject for request in shop.sent("flow_reports")} == {metric_id}
        assert len(asked(shop)) == 4
    shop.mapped_metrics.clear()
    assert (reports.daily().state, len(asked(shop))) == ("complete", 4)
    shop.metrics = [metric._replace(name=f"Other {metric.id}") for metric in shop.metrics]
    ran = reports.daily()
    assert (ran.state, len(ran.sentences), asked(shop)) == ("partial", 1, [])
    assert "Set REPORT_METRIC" in ran.sentences[0]
    shop.metrics = [metric._replace(name="Twins") for metric in shop.metrics]
    ran = reports.daily(report_metric="Twins")
    assert (ran.state, "2 metrics" in ran.sentences[0]) == ("partial", True)


def test_a_change_of_the_metric_that_is_taken_back_reads_again(reports: Warehouse) -> None:
    """The rows of a day are those of the metric by which it was read last, on the same day as well."""
    used = "SELECT DISTINCT conversion_metric_id FROM campaign_reports"
    for metric_id in ("ORDER", "OPEN", "ORDER"):
        reports.wait_for_the_next_second()
        ran = reports.daily(report_metric=metric_id)
        assert (ran.state, reports.column(used)) == ("complete", [metric_id])


def test_accounts_keep_their_reports_apart(reports: Warehouse, shop: FakeAccount) -> None:
    """A dialect without reports sends no requests, and leaves what is stored."""
    reports.daily()
    other = reports.variant(klaviyo_integration="other")
    other.open_source = replace(shop, account_id="OTHER", requests=[]).open
    other.daily()
    assert reports.one("SELECT count(DISTINCT esp_integration_id) FROM campaign_reports") == 2
    assert reports.one("SELECT count(*) FROM campaign_reports WHERE deleted_at IS NULL") == 4
    shop.recover()
    shop.set_traits(reads_reports=False)
    let_a_day_pass(reports)
    assert (reports.daily().state, asked(shop)) == ("complete", [])


def test_a_metric_whose_name_personal_data_hashes_can_be_named(reports: Warehouse, shop: FakeAccount) -> None:
    """Even after Klaviyo has deleted it."""
    name, salt = "Ordered SKU 12345678", "a salt of this test"
    shop.metrics[1] = shop.metrics[1]._replace(name=name)
    protected = reports.variant(personal_data="hash", personal_data_salt=salt, tables=(*REPORTS, "events"))
    for metrics in ((name,), ("-Opened Email", f"-{name}"), ("ORDER",)):
        ran = protected.daily(metrics=metrics, report_metric=name)
        assert (ran.state, ran.sentences) == ("complete", [])
    assert {request.subject for request in shop.sent("flow_reports")} == {"ORDER"}
    assert name not in protected.column("SELECT name FROM metrics")
    del shop.metrics[1]
    assert protected.daily(metrics=(name,)).exit_code == 0
