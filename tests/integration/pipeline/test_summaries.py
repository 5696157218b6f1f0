"""The output of a command after a run: the summary with the commands to run next, as text, as JSON, and none."""

import json
import logging
import re
import shlex
import sys
from pathlib import Path

import pytest

from klaviyo_pg.cli.arguments import parse
from klaviyo_pg.cli.summary import Invocation, Times, show
from klaviyo_pg.errors import BadSettings, KlaviyoPgError, MissingScope, Unreachable
from klaviyo_pg.rows import Reject
from pipeline.outcome import RunReport
from tests.driver import ROOT
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import Result, Warehouse, days_ago

HISTORY = "klaviyo-pg backfill --start "


def summarize(
    warehouse: Warehouse, ran: Result, flow: str = "daily", integration: str | None = None, **settings: object
) -> None:
    """Print what a command prints after a run. `integration` is its argument."""
    configured = warehouse.configured(**settings)
    report = RunReport(ran.run.id, "shop", ran.state, tuple(ran.sentences), ran.exit_code)
    invocation = Invocation("", flow, is_demo=False, prefix="", integration=integration)
    assert show(configured, report, Times(1.5, 2), invocation) == ran.exit_code


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("flows/daily.py", ["{python}", "{root}/flows/daily.py", "--since", "7d"]),
        ("klaviyo_pg/__main__.py", ["{python}", "-m", "klaviyo_pg", "--since", "7d"]),
    ],
)
def test_a_command_that_was_typed_in_another_folder_can_be_typed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, words: list[str]
) -> None:
    """Programs that are not on the PATH have their whole path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr(sys, "argv", [str(ROOT / script), "--since", "7d"])
    made = Invocation.of(parse("daily", []), "")
    assert made.line == shlex.join(each.format(python=sys.executable, root=ROOT) for each in words)
    assert made.program == str(Path(sys.executable).with_name("klaviyo-pg"))


def test_a_command_on_the_path_needs_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "klaviyo-pg"
    program.parent.mkdir()
    program.touch(0o755)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "argv", [str(program), "daily"])
    for path, word in ((str(program.parent), "klaviyo-pg"), ("/usr/bin", str(program))):
        monkeypatch.setenv("PATH", path)
        assert Invocation.of(parse("daily", []), "").line == f"{word} daily"


def test_the_first_run_ends_with_how_to_load_the_history(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does until a backfill has begun."""
    summarize(warehouse, warehouse.daily())
    assert HISTORY in capsys.readouterr().out
    summarize(warehouse, warehouse.backfill(days_ago(40)), "backfill")
    summarize(warehouse, warehouse.daily())
    assert HISTORY not in capsys.readouterr().out


def test_the_command_that_loads_the_history_is_for_the_same_account(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    summarize(warehouse, warehouse.daily(), integration="a shop")
    assert re.search(f"{HISTORY}[0-9-]+ --integration 'a shop' --plan\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("error", "proposal"),
    [
        (BadSettings("Wrong."), "When that is corrected, rerun to resume:"),
        (Unreachable("Away."), "Rerun to resume:"),
    ],
)
def test_a_rerun_is_proposed_once_it_can_succeed(
    warehouse: Warehouse, shop: FakeAccount, capsys: pytest.CaptureFixture[str], error: KlaviyoPgError, proposal: str
) -> None:
    shop.fail("metrics", error)
    summarize(warehouse, warehouse.daily())
    assert proposal in capsys.readouterr().out.splitlines()


def test_a_run_with_new_rejects_ends_with_how_to_see_them(
    warehouse: Warehouse, shop: FakeAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    """A later run that rejects the same record only counts it."""
    summarize(warehouse, warehouse.daily())
    assert ".rejects GROUP BY" not in capsys.readouterr().out
    shop.unreadable["campaigns", 0] = Reject("{}", "No ID.")
    ran = warehouse.daily()
    assert ran.counts["campaigns"]["rejected"] == 1
    summarize(warehouse, ran)
    printed = capsys.readouterr().out
    assert ".rejects GROUP BY" in printed and "\n1 rejected; 1 new record in the table rejects\n" in printed
    summarize(warehouse, warehouse.daily())
    printed = capsys.readouterr().out
    assert ".rejects GROUP BY" not in printed and "\n1 rejected; no new records in the table rejects\n" in printed


def test_only_the_first_complete_run_ends_with_how_to_look_at_the_data(
    warehouse: Warehouse, shop: FakeAccount, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does for the embedded Postgres, which this test replaces."""
    url = str(warehouse.configured().database_url.get_secret_value())  # type: ignore[union-attr]
    monkeypatch.setattr("klaviyo_pg.postgres.server.embedded.warehouse_url", lambda settings: url)
    shop.fail("lists", MissingScope("lists:read"))
    for expected in (True, True, False):
        summarize(warehouse, warehouse.daily(), database_url="", embedded_postgres=True)
        shop.recover()
        assert ("Look at the data:" in capsys.readouterr().out) is expected


def test_programs_get_one_line_of_json(warehouse: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    ran = warehouse.daily()
    capsys.readouterr()
    summarize(warehouse, ran, log_format="json")
    out, err = capsys.readouterr()
    line = json.loads(out)
    assert err == ""
    assert (line["message"], line["level"], line["state"], line["exit_code"]) == (
        "shop: complete",
        "info",
        "complete",
        0,
    )
    assert (line["account"], line["flow"], line["run_id"], line["seconds"]) == ("shop", "daily", ran.run.id, 3.5)
    assert line["rows"]["opens"]["inserted"] == 6 and line["sentences"] == []


def test_a_quiet_run_prints_nothing_but_its_sentences(
    warehouse: Warehouse, shop: FakeAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    complete = warehouse.daily()
    summarize(warehouse, complete, quiet=True)
    assert capsys.readouterr() == ("", "")
    shop.fail("lists", MissingScope("lists:read"))
    partial = warehouse.daily()
    summarize(warehouse, partial, quiet=True)
    assert capsys.readouterr() == ("", "".join(f"shop: {sentence}\n" for sentence in partial.sentences))


def test_a_quiet_run_has_a_line_of_json_only_if_something_is_wrong(
    warehouse: Warehouse, shop: FakeAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    summarize(warehouse, warehouse.daily(), quiet=True, log_format="json")
    assert capsys.readouterr() == ("", "")
    shop.fail("lists", MissingScope("lists:read"))
    partial = warehouse.daily()
    summarize(warehouse, partial, quiet=True, log_format="json")
    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["sentences"]) == ("warning", partial.sentences)


def test_a_later_run_says_how_long_the_last_one_took(warehouse: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    """The first run says nothing about later ones, so the third run is the first one to say so."""
    caplog.set_level(logging.INFO)
    for expected in (0, 0, 1):
        caplog.clear()
        warehouse.daily()
        assert len([each for each in caplog.records if "took" in each.getMessage()]) == expected
        warehouse.execute(
            "UPDATE runs SET as_of = as_of - interval '1 h', started_at = started_at - interval '1 h',"
            " finished_at = started_at - interval '59 min'"
        )
