"""The page of a report: complete in itself, usable without eyes or mouse, and without anything that a name could do."""

import re
import shutil
import subprocess
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from klaviyo_pg.klaviyo.dialects import published_limits
from klaviyo_pg.postgres.html_report import (
    Answer,
    Consent,
    Estimated,
    Excluded,
    Freshness,
    LoadedTable,
    PastRun,
    Rejected,
    RequestsOfDay,
    Revenue,
    StoredTable,
)
from pipeline.commands.html_report import charts
from pipeline.commands.html_report.contents import AccountReport, Difference, Report
from pipeline.commands.html_report.page import render, size
from pipeline.coverage import Coverage, Covered

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOSTILE = '<script src="https://evil.example/x.js">alert(1)</script> $\\frac{1}{2}$ \x00\u202e'
ADDRESS = "ann@example.com"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
VOID = frozenset({"meta", "input", "path", "use", "br"})


def account(name: str) -> AccountReport:
    """Return an account all of whose names are hostile and contain an address."""
    text = f"{HOSTILE} {ADDRESS}"
    runs = [PastRun("daily", "partial", NOW, NOW + timedelta(minutes=3), 100, 2, text, 5, 1)]
    revenue = [
        Revenue("campaign", text, "EUR", 3, Decimal("12.50")),
        Revenue("campaign", "b", "EUR", 1, Decimal("NaN")),
    ]
    return AccountReport(
        name=name,
        runs=Answer([*runs, runs[0]._replace(state="running", finished_at=None, message=None)]),
        coverage=Answer(Coverage(name, date(2026, 6, 1), {text: [*Covered] * 50, "Opened": [Covered.COMPLETE] * 250})),
        freshness=Answer([Freshness(text, "events/m", "opens", NOW, None, None, 3, "differs")]),
        differences=Answer([Difference(text, NOW, None, 8, None)]),
        differing=1,
        requests=Answer([RequestsOfDay(date(2026, 6, 30), 2, 1_500, 20, 90.5)]),
        loaded=Answer([LoadedTable("opens", 10, 5, 2, 3, 0)]),
        rejected=Answer(7),
        rejects=Answer([Rejected("opens", text, 7, NOW, NOW)]),
        consents=Answer(Estimated([Consent("email", text, True, 30), Consent("sms", None, None, 4)], 12.5)),
        excluded=Answer(Estimated([Excluded(None, 2)])),
        metric="Placed Order",
        currency="EUR",
        other_currencies=[Revenue("", "", "USD", 2, Decimal(5))],
        campaigns=Answer(revenue),
        flows=Answer([], "Left out, because counting took longer than 4 seconds."),
    )


@pytest.fixture(scope="module")
def report() -> Report:
    tables: Answer[Sequence[StoredTable]] = Answer([StoredTable("opens", 1_000, 5_000_000, 1_000_000)])
    empty = replace(account(HOSTILE), coverage=Answer(None), runs=Answer([]), requests=Answer([]), campaigns=Answer([]))
    accounts = [account("shop"), replace(empty, consents=Answer(Estimated([])))]
    return Report(NOW, ZoneInfo("UTC"), "klaviyo", accounts, tables, [(60, ["flows", "tags"])], 0.9)


@pytest.fixture(scope="module")
def page(report: Report) -> "Page":
    parsed = Page(render(report))
    parsed.close()
    return parsed


def test_times_are_shown_in_the_time_zone_of_the_settings(report: Report) -> None:
    """Its name appears once. Days stay those of UTC, by which the source counts."""
    text = render(replace(report, zone=ZoneInfo("Europe/Berlin")))
    shown = re.findall(r"<time [^>]*>([^<]*)</time>|(\d+ Jul \d\d:\d\d)", text)
    assert {moment or label for moment, label in shown} <= {"2026-07-01 14:00", "01 Jul 14:00"}
    assert "2026-07-01 14:00" in {moment for moment, _ in shown}
    assert text.count("Times are in Europe/Berlin, days in UTC.") == text.count("Berlin") == 1
    assert "2026-06-30" in text
    assert "Times are in UTC." in render(report)


class Page(HTMLParser):
    """The elements of a page, with their attributes; elements that are left open or closed twice are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.elements, self._open = text, list[tuple[str, dict[str, str | None]]](), list[str]()
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def test_the_page_loads_nothing_and_runs_one_script(page: Page) -> None:
    """Its policy has the digests of the style sheet and the script, and allows nothing else."""
    [policy] = [each["content"] for each in page.all("meta") if "http-equiv" in each]
    for tag in ("style", "script"):
        [inline] = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = b64encode(sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'; ")
    names = {name for _, attributes in page.elements for name in attributes}
    assert not names & {"src", "style", "onclick", "xlink:href", "srcset", "action"}
    assert all(str(each["href"]).startswith("#") for each in page.all("a"))
    assert not re.search(r"url\(|@import|https?://(?!evil)", page.text)


def test_names_are_text_without_addresses(page: Page) -> None:
    assert "&lt;script src=" in page.text
    assert len(page.all("script")) == 1
    assert ADDRESS not in page.text and "\x00" not in page.text and "\u202e" not in page.text


def test_everything_has_a_label(page: Page) -> None:
    """Tables have captions, headers their scope, inputs and regions a name, charts a text, and IDs are unique."""
    ids = Counter(each["id"] for _, each in page.elements if "id" in each)
    assert set(ids.values()) == {1}
    assert len(page.all("table")) == len(page.all("caption")) == len(page.all("thead"))
    assert all("scope" in each for each in page.all("th"))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "for"):
            assert set(str(attributes.get(name) or "").split()) <= ids.keys()
    assert all(each["href"] == "#main" or str(each["href"])[1:] in ids for each in page.all("a"))
    labelled = {each.get("for") for each in page.all("label")}
    assert {"words"} <= labelled and len(page.all("input")) == len(page.all("label")) == 2
    assert all(each["tabindex"] == "0" for each in page.all("div") if each.get("role") == "region")
    assert {each.get("role") for each in page.all("figure")} == {"img"}
    assert all(each.get("aria-label") for each in page.all("figure"))
    assert all(each.get("aria-hidden") == "true" for each in page.all("svg"))
    assert {"main", "header", "nav", "h1", "h2", "h3"} <= {tag for tag, _ in page.elements}


def test_charts_take_their_colors_from_the_style_sheet(page: Page) -> None:
    """So that they follow the reader's choice of light or dark."""
    fills = {str(each["fill"]) for each in page.all("path", "text", "g") if "fill" in each}
    assert fills - {"none"} and all(each == "none" or each.startswith(("var(--", "currentColor")) for each in fills)
    used = {each[4:-1] for each in fills if each.startswith("var(")}
    assert all(f"{name}:" in page.text for name in used)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
def test_a_browser_shows_the_page_without_an_error(page: Page, tmp_path: Path) -> None:
    """Its script runs, which shows the filter, and the policy refuses nothing of the page."""
    file = tmp_path / "report.html"
    file.write_text(page.text, "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(BROWSER), *options, "--enable-logging=stderr", "--dump-dom", file.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in shown.stderr
    assert '<form id="filter" role="search">' in shown.stdout
    assert shown.stdout.count("<svg") == len(page.all("svg"))


def test_a_section_without_an_answer_says_why(page: Page) -> None:
    assert page.text.count("Left out, because counting took longer than 4 seconds.") == 2
    assert "Estimated from 12.5 % of the table." in page.text
    assert "60 for flows, tags. Runs use 90 % of them." in page.text


def test_without_the_plotting_library_there_are_tables(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page names the package that is missing."""
    monkeypatch.setattr(charts, "is_available", lambda: False)
    text = render(replace(report, accounts=report.accounts[:1]))
    assert "Charts are left out, because they need matplotlib" in text
    assert "<figure" not in text and "<table>" in text


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 kB"), (5e9, "5 GB"), (4.2e15, "4,200 TB")]
)
def test_sizes(number: float, shown: str) -> None:
    assert size(number) == shown


def test_published_limits() -> None:
    """They are those of the endpoints; the legacy API never published any."""
    assert published_limits("current")["events"].steady == 3_500
    assert published_limits("legacy") == {}
