"""The command `klaviyo-pg` on a real warehouse."""

import hashlib
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from klaviyo_pg.catalogue import loads
from klaviyo_pg.cli.erase import erase as erase_command
from klaviyo_pg.cli.remove import remove
from klaviyo_pg.postgres import accounts, claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erase, erase_events
from klaviyo_pg.postgres.ledgers import reconciliation, run_ledger
from klaviyo_pg.postgres.ledgers.reconciliation import Comparison
from klaviyo_pg.states import CountState, RunState
from pipeline.erasing import in_transactions
from tests.erasing import erase_with
from tests.runs import url_of
from tests.terminal import Terminal

ADDRESS = "ann@example.com"


@pytest.fixture
def integration_id(merged: Any, connection: psycopg.Connection) -> str:
    """An account with one metric and one person."""
    one = accounts.register(connection, "klaviyo", "shop", None).integration_id
    merged(loads.METRICS, {"key": "k", "id": "m1", "name": "Opened", "destination": "opens"}, integration_id=one)
    person = {"key": "p", "id": "p1", "email": ADDRESS, "member_key": hashlib.md5(b"p1").hexdigest()}
    merged(loads.MEMBERS, person, integration_id=one)
    return one


@pytest.fixture
def command(database: str, tmp_path: Path) -> Any:
    """Runs `klaviyo-pg` in an empty folder."""
    parts = conninfo_to_dict(database)
    url = f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}"
    environment = {"DATABASE_URL": url, "KLAVIYO_INTEGRATION": "shop", "DATA_DIR": str(tmp_path / "data")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}

    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "klaviyo_pg", *arguments]
        return subprocess.run(
            line, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    return command


def test_erase_removes_a_person(
    command: Any, integration_id: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """Erasing needs a confirmation, removes the person's rows, and empties the spool of this account only."""
    spool, other = (tmp_path / "data" / "spool" / name for name in (integration_id, "another"))
    for folder in (spool, other):
        folder.mkdir(parents=True)
    asked = command("erase", "--email", ADDRESS)
    assert asked.returncode == 2
    assert asked.stderr == "Nothing was erased: confirmation needs a terminal. In a script, pass --yes.\n"
    assert connection.execute("SELECT count(*) FROM members").fetchone() == (1,)
    done = command("erase", "--email", ADDRESS.upper(), "--yes")
    assert done.returncode == 0, done.stderr
    assert ["members", "1"] in [
        line.strip("\u2502").replace("\u2502", " ").split() for line in done.stdout.splitlines()
    ]
    assert ADDRESS not in (done.stdout + done.stderr).lower()
    assert connection.execute("SELECT count(*) FROM members").fetchone() == (0,)
    assert (spool.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(["erase", "--id", "p1", "--yes", "--integration", "x"], "There is no account x", id="no account"),
        pytest.param(["erase", "--email", " ", "--yes"], "pass --email or --id", id="no person"),
        pytest.param(["status", "--coverage", "a.gif"], "must end in .png or .svg", id="unknown image format"),
        pytest.param(["status", "--coverage", "no/a.png"], "cannot write the file", id="no such folder"),
        pytest.param(["status", "--integration", "x"], "There is no account x", id="status of no account"),
        pytest.param(["psql"], "psql is not installed", id="no psql"),
    ],
)
def test_a_mistake_is_explained(command: Any, integration_id: str, arguments: list[str], sentence: str) -> None:
    """A mistake ends with exit code 2 and one sentence."""
    ran = command(*arguments)
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_status_draws_the_coverage(command: Any, integration_id: str, tmp_path: Path) -> None:
    """`--coverage` writes an image that names the metrics."""
    ran = command("status", "--coverage", "coverage.svg")
    assert ran.returncode == 0, ran.stderr
    assert "Opened" in (tmp_path / "coverage.svg").read_text()


def test_status_without_a_backfill(command: Any, integration_id: str) -> None:
    """Without a backfill, status says so instead of printing an empty table."""
    ran = command("status")
    assert ran.returncode == 0
    assert ran.stdout.splitlines() == [
        "shop is stale: no daily run has been complete yet.",
        "shop: no backfill yet.",
    ]


def test_status_shows_what_the_last_run_reported(
    command: Any, integration_id: str, connection: psycopg.Connection
) -> None:
    """And how many days differ according to all checks so far, whichever run is the last one."""
    account = Account(connection, "klaviyo", integration_id)
    now = datetime(2026, 7, 1, 12, tzinfo=UTC)
    run = run_ledger.open_run(account, "daily", "all", now, is_limited=False)
    run_ledger.close_run(account, run.run_id, RunState.COMPLETE_WITH_DIFFERENCES, "Counts differ.")
    midnight = now - timedelta(hours=12)
    hour, day = (
        Comparison("m1", midnight, midnight + timedelta(hours=length), 1_008, 8, CountState.DIFFERS)
        for length in (1, 24)
    )
    reconciliation.write(account, [hour, day], {}, now)
    connection.execute("UPDATE runs SET finished_at = started_at + interval '754.4 seconds'")
    run_ledger.add_counts(account, run.run_id, {"opens": {"rows_read": 1_009, "inserted": 8, "rejected": 1}})
    lines = command("status").stdout.splitlines()
    assert lines[:2] + lines[3:4] == [
        "shop: last run daily, complete with differences, started 2026-07-01 12:00 UTC, took 0:12:34: 1,009 rows read "
        "(8 new, 0 changed), 1 rejected",
        "Counts differ.",
        "1 day differs: the source counts 1,008 events, the warehouse has 8. See the table reconciliation.",
    ]


def test_erasing_an_unknown_person(command: Any, integration_id: str) -> None:
    """An unknown address is a mistake; an unknown ID is recorded, so that future runs ignore it."""
    by_address = command("erase", "--email", "unknown@example.com", "--yes")
    assert by_address.returncode == 2
    assert by_address.stderr == "Nothing was erased: shop has no person with this address.\n"
    by_id = command("erase", "--id", "unknown", "--yes")
    assert by_id.returncode == 0
    assert by_id.stdout == "shop has no such profile. Future runs will ignore this ID.\n"


def test_a_file_names_the_people_to_erase(
    command: Any, integration_id: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """It has addresses, which can contain #, and IDs. A line that is neither is refused before anything is erased."""
    file = tmp_path / "people.txt"
    file.write_text(f"# asked on Monday\n\n{ADDRESS}\nnot a person\n")
    refused = command("erase", "--file", "people.txt", "--yes")
    assert (refused.returncode, refused.stderr) == (
        2,
        "--file people.txt: line 4 is neither an email address nor the ID of a profile. Nothing was erased.\n",
    )
    assert connection.execute("SELECT count(*) FROM members").fetchone() == (1,)
    file.write_text(f"# asked on Monday\n\n{ADDRESS}\n{ADDRESS.upper()}\np8\np9\np9\nbob#1@example.com\n")
    done = command("erase", "--file", "people.txt", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == [
        "1 profile erased.",
        "shop has no profiles with 2 of these IDs. Future runs will ignore them.",
        "1 address not found.",
    ]
    assert connection.execute("SELECT count(*) FROM members").fetchone() == (0,)
    assert command("erase", "--yes").stderr.endswith("No erasing is left to finish.\n")


def test_status_shows_erasing_that_was_interrupted(
    command: Any, integration_id: str, connection: psycopg.Connection
) -> None:
    """Erasing without naming anyone finishes it."""
    with connection.transaction():
        erase.request(Account(connection, "klaviyo", integration_id), [], ["p1"])
    sentence = "Erasing 1 person is not finished. The next daily run does the rest, or klaviyo-pg erase."
    assert sentence in command("status").stdout
    assert command("erase").returncode == 0
    assert connection.execute("SELECT count(*) FROM members").fetchone() == (0,)
    assert sentence not in command("status").stdout


@pytest.fixture
def environment(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets commands in this process use the warehouse."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url_of(database))
    monkeypatch.setenv("KLAVIYO_INTEGRATION", "shop")


@pytest.fixture
def finish_erasing(environment: None) -> Callable[[], int]:
    """Runs `klaviyo-pg erase` without people, in this process."""
    return lambda: erase_command(Namespace(email=[], id=[], file=None, yes=True, integration=None))


@pytest.mark.parametrize(
    ("named", "lines"),
    [
        pytest.param(([ADDRESS], []), ["1 profile erased."], id="a profile"),
        pytest.param((["x@example.com"], []), ["1 address not found."], id="an unknown address"),
        pytest.param(
            ([], ["p9"]), ["shop has no such profile. Future runs will ignore this ID."], id="an unknown profile"
        ),
    ],
)
def test_finishing_says_what_became_of_the_people(
    integration_id: str,
    connection: psycopg.Connection,
    finish_erasing: Callable[[], int],
    capsys: pytest.CaptureFixture[str],
    named: tuple[list[str], list[str]],
    lines: list[str],
) -> None:
    """Also where only the last step was left, which deletes no row."""
    account = Account(connection, "klaviyo", integration_id)

    def interrupted(work: Callable[[Account], Any], /) -> Any:
        if work is erase_events.rename_campaigns:  # the last step but one
            in_transactions(account)(work)
            raise InterruptedError
        return in_transactions(account)(work)

    with pytest.raises(InterruptedError):
        erase_with(interrupted, *named)
    assert finish_erasing() == 0
    assert capsys.readouterr().out.splitlines() == ["Finished erasing people of shop.", *lines]
    assert erase.pending(account) == 0


def test_people_are_left_to_another_process_that_is_erasing(
    command: Any, integration_id: str, connection: psycopg.Connection
) -> None:
    """They are recorded, and the command says who finishes."""
    account = Account(connection, "klaviyo", integration_id)
    with connection.transaction():
        assert claims.try_claim(account, erase.CLAIM, for_transaction=True)
        left = command("erase", "--id", "p1", "--yes")
    assert (left.returncode, left.stderr) == (
        2,
        "This person is recorded. Another process that is erasing people of shop erases them, too: klaviyo-pg status "
        "says whether that is finished.\n",
    )
    assert erase.pending(account) == 1
    assert command("erase").returncode == 0
    assert erase.pending(account) == 0


@pytest.mark.parametrize("arguments", [["psql"], ["status"], ["erase", "--id", "p1", "--yes"]])
def test_looking_for_a_warehouse_creates_none(tmp_path: Path, arguments: list[str]) -> None:
    """In a folder without a warehouse, the error names the folder, and nothing is created."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}
    line = [sys.executable, "-m", "klaviyo_pg", *arguments]
    ran = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert f"no embedded Postgres in {tmp_path / '.data'}" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_rename_gives_an_account_another_name(
    command: Any, integration_id: str, connection: psycopg.Connection
) -> None:
    """The account keeps its rows, its rate limits and its page sizes; taken and unknown names are refused."""
    connection.execute("INSERT INTO page_sizes VALUES ('shop', 'events', 500, now())")
    accounts.register(connection, "klaviyo", "taken", None)
    for arguments, sentence in [
        (("shop", "taken"), "There is an account taken in the schema klaviyo already. Choose another name."),
        (("absent", "x"), "There is no account absent in the schema klaviyo. Choose another name: shop and taken."),
        (("shop", " "), "The new name must not be blank."),
    ]:
        refused = command("rename", *arguments)
        assert (refused.returncode, refused.stderr) == (2, f"{sentence}\n")
    done = command("rename", "shop", "shop-de")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Set KLAVIYO_INTEGRATION=shop-de" in done.stdout
    names = connection.execute("SELECT name, esp_integration_id FROM integrations ORDER BY name").fetchall()
    assert names[0] == ("shop-de", integration_id)
    assert connection.execute("SELECT integration FROM page_sizes").fetchall() == [("shop-de",)]


def test_remove_needs_a_confirmation(command: Any, integration_id: str, connection: psycopg.Connection) -> None:
    """Without a terminal, --yes is one. What is unknown, or in use, is refused before that."""
    for arguments, sentence in [
        (("shop",), "Nothing was removed: confirmation needs a terminal. In a script, pass --yes."),
        (("absent", "--yes"), "There is no account absent in the schema klaviyo. Choose another name: shop."),
    ]:
        refused = command("remove", *arguments)
        assert (refused.returncode, refused.stderr) == (2, f"{sentence}\n")
    account = Account(connection, "klaviyo", integration_id)
    with connection.transaction():
        assert claims.try_claim(account, "backfill", for_transaction=True)
        assert "Another backfill run of shop is in progress" in command("remove", "shop").stderr
    assert connection.execute("SELECT count(*) FROM members").fetchone() == (1,)
    done = command("remove", "shop", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Removed shop." in done.stdout
    assert connection.execute("SELECT count(*) FROM integrations").fetchone() == (0,)


@pytest.mark.parametrize(("typed", "code"), [("yes", 1), ("", 1), ("shop", 0)])
def test_remove_asks_for_the_name_of_the_account(
    environment: None,
    integration_id: str,
    connection: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    code: int,
) -> None:
    """It shows how many rows are deleted. Anything but the name removes nothing."""
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert remove(Namespace(name="shop", yes=False)) == code
    assert ["members", "1"] in [line.replace("\u2502", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert connection.execute("SELECT count(*) FROM members").fetchone() == (code,)


def test_status_shows_that_removing_was_interrupted(
    command: Any, integration_id: str, connection: psycopg.Connection
) -> None:
    """Removing is resumed without another confirmation, and until then no one is erased."""
    accounts.record_removal(Account(connection, "klaviyo", integration_id))
    sentence = "Removing shop is not finished. Run klaviyo-pg remove shop to resume it."
    assert sentence in command("status").stdout
    assert "shop is being removed from this warehouse" in command("erase", "--id", "p1", "--yes").stderr
    assert command("remove", "shop").returncode == 0
    assert connection.execute("SELECT count(*) FROM members").fetchone() == (0,)
