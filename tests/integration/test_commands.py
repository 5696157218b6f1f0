"""The command `klaviyo-pg` on a real warehouse."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import ledger

ADDRESS = "ann@example.com"


@pytest.fixture
def integration_id(merged: Any, connection: psycopg.Connection) -> str:
    """An account with one metric and one person."""
    one = ledger.register(connection, "klaviyo", "shop", None)
    merged(loads.METRICS, {"key": "k", "id": "m1", "name": "Opened", "destination": "opens"}, integration_id=one)
    person = {"key": "p", "id": "p1", "email": ADDRESS, "member_key": hashlib.md5(b"p1").hexdigest()}
    merged(loads.EVENT_MEMBERS, person, integration_id=one)
    return one


@pytest.fixture
def command(database: str, tmp_path: Path) -> Any:
    """Runs `klaviyo-pg` in an empty folder; answers what subprocess answers."""
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


def test_erase(command: Any, integration_id: str, connection: psycopg.Connection, tmp_path: Path) -> None:
    """Not without being told so; then the person is gone, and so is what waits on disk, of this account only."""
    waiting, other = (tmp_path / "data" / "spool" / name for name in (integration_id, "another"))
    for folder in (waiting, other):
        folder.mkdir(parents=True)
    asked = command("erase", "--email", ADDRESS)
    assert (asked.returncode, asked.stderr) == (2, "Nothing was erased: add --yes where nobody can be asked.\n")
    assert connection.execute("SELECT count(*) FROM members").fetchone() == (1,)
    done = command("erase", "--email", ADDRESS.upper(), "--yes")
    assert done.returncode == 0, done.stderr
    assert ["members", "1"] in [
        line.strip("\u2502").replace("\u2502", " ").split() for line in done.stdout.splitlines()
    ]
    assert ADDRESS not in (done.stdout + done.stderr).lower()
    assert connection.execute("SELECT count(*) FROM members").fetchone() == (0,)
    assert (waiting.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(["erase", "--id", "p1", "--yes", "--integration", "x"], "has no account x", id="no such account"),
        pytest.param(["erase", "--email", " ", "--yes"], "give --email or --id", id="nobody"),
        pytest.param(["status", "--coverage", "a.gif"], "a name that ends in .png or .svg", id="no such picture"),
        pytest.param(["status", "--coverage", "no/a.png"], "cannot be written", id="no such folder"),
        pytest.param(["status", "--coverage", "a.png", "--integration", "x"], "no account x", id="no account"),
    ],
)
def test_what_is_wrong_is_told(command: Any, integration_id: str, arguments: list[str], sentence: str) -> None:
    """In one sentence, and with exit code 2."""
    ran = command(*arguments)
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_picture_of_the_coverage(command: Any, integration_id: str, tmp_path: Path) -> None:
    """Drawn beside the table."""
    ran = command("status", "--coverage", "found.svg")
    assert ran.returncode == 0, ran.stderr
    assert "Opened" in (tmp_path / "found.svg").read_text()


def test_status_without_a_backfill(command: Any, integration_id: str) -> None:
    """It says so, instead of an empty table."""
    ran = command("status")
    assert (ran.returncode, ran.stdout) == (0, "No backfill yet.\n")


def test_nobody_was_erased(command: Any, integration_id: str) -> None:
    """An address that nobody has is a mistake; an id that nobody has yet is kept, so that it stays out."""
    by_address = command("erase", "--email", "nobody@example.com", "--yes")
    assert by_address.returncode == 2
    assert by_address.stderr == "Nothing was erased: shop knows nobody with this address.\n"
    by_id = command("erase", "--id", "nobody", "--yes")
    assert (by_id.returncode, by_id.stdout) == (
        0,
        "shop knows nobody with this id; should it come, runs leave it out.\n",
    )


def test_looking_makes_no_database(tmp_path: Path) -> None:
    """In the wrong folder it is told where was looked, and nothing is left there."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}
    for arguments in (["psql"], ["status"], ["erase", "--id", "p1", "--yes"]):
        line = [sys.executable, "-m", "klaviyo_pg", *arguments]
        ran = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 2
        assert f"no embedded Postgres in {tmp_path / '.data'}" in ran.stderr
        assert list(tmp_path.iterdir()) == []
