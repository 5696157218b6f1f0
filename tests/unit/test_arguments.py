"""The command line's arguments and help."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from klaviyo_pg.cli.arguments import COMMANDS, Command, account_of, parse
from klaviyo_pg.cli.preflight import use_demo_account

HEAVY = {"prefect", "pydantic", "rich", "psycopg", "polars", "sqlalchemy", "httpx"}
EXAMPLES = [(command, arguments) for command in COMMANDS.values() for arguments, _ in command.examples]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_help_shows_examples(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of a command names the program as it was run, and shows how to use it."""
    with pytest.raises(SystemExit, match="0"):
        parse(command.name, ["--help"])
    printed = capsys.readouterr().out
    assert f"usage: {command.program} " in printed
    assert f"examples:\n  {command.program}" in printed


@pytest.mark.parametrize(("command", "arguments"), EXAMPLES)
def test_examples_are_valid(command: Command, arguments: str) -> None:
    """Every example of the help can be parsed, by either program."""
    alone = parse(command.name, shlex.split(arguments))
    together = parse(None, [command.name, *shlex.split(arguments)])
    assert alone.command is together.command is command
    assert {**vars(alone), "program": ""} == {**vars(together), "program": ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["daily", "--frobnicate"], "Unrecognized arguments: --frobnicate.", id="unknown argument"),
        pytest.param(["backfill"], "The following arguments are required: --start.", id="required argument"),
        pytest.param(["reconcile", "--days", "x"], "Argument --days: invalid int value: 'x'.", id="not a number"),
        pytest.param(["save-blocks", "--klaviyo", "A b"], "Argument --klaviyo: A b is not a block name", id="name"),
        pytest.param(["daily", "--sand"], "Unrecognized arguments: --sand.", id="abbreviation"),
        pytest.param(["dayly"], "Argument COMMAND: invalid choice: 'dayly'", id="no such command"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage ends with exit code 2 and one sentence that points to the help."""
    with pytest.raises(SystemExit, match="2"):
        parse(None, arguments)
    printed = capsys.readouterr().err
    assert printed.startswith(message)
    assert "--help.\n" in printed
    assert len(printed.splitlines()) == 1


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is that of wrong usage, so that a script notices."""
    with pytest.raises(SystemExit, match="2"):
        parse(None, [])
    printed = capsys.readouterr()
    assert (printed.out.splitlines()[0], printed.err) == ("usage: klaviyo-pg [-h] [--version] COMMAND ...", "")


def test_psql_gets_the_other_arguments() -> None:
    """Arguments after `psql`, options included, are meant for psql."""
    assert parse(None, ["psql", "-c", "SELECT 1", "--csv"]).rest == ["-c", "SELECT 1", "--csv"]


@pytest.mark.parametrize(
    ("content", "arguments", "account"),
    [
        pytest.param(b"KLAVIYO_INTEGRATION=shop-de", ["daily"], "shop-de", id="setting"),
        pytest.param(b"KLAVIYO_INTEGRATION=shop-de", ["daily", "--integration=shop-fr"], "shop-fr", id="argument"),
        pytest.param(b"", ["save-blocks", "--klaviyo=shop-fr"], "shop-fr", id="block"),
        pytest.param(b"\xff", ["check"], "default", id="not text"),
        pytest.param(b"", ["status"], None, id="no account"),
    ],
)
def test_errors_name_the_account_of_a_command(
    content: bytes, arguments: list[str], account: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the settings cannot be read."""
    (tmp_path / "settings").write_bytes(content)
    monkeypatch.setenv("KLAVIYO_PG_ENV_FILE", str(tmp_path / "settings"))
    monkeypatch.delenv("KLAVIYO_INTEGRATION", raising=False)
    assert account_of(parse(None, arguments)) == account


def test_names_are_split_at_commas() -> None:
    """Lists of names are separated by commas; blanks around them do not count."""
    assert parse("daily", ["--metrics=-Active on Site, Opened Email,"]).metrics == ["-Active on Site", "Opened Email"]


def test_help_imports_nothing_heavy() -> None:
    """Help appears at once, because nothing is imported that only a run needs."""
    program = f"""
import sys
from klaviyo_pg.cli import main
try:
    main(None, ["daily", "--help"])
except SystemExit:
    print("imported:", sorted({HEAVY!r} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "imported: []"


def test_a_run_starts_its_server_before_it_imports_prefect() -> None:
    """Importing Prefect takes seconds, in which the server starts."""
    program = "import sys, klaviyo_pg.cli.run_commands; print('prefect' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        pytest.param([], None, id="none"),
        pytest.param(["--sandbox"], "sandbox", id="small"),
        pytest.param(["--sandbox-events", "5000"], "large-5000", id="large"),
        pytest.param(["--sandbox", "--sandbox-events", "6000"], "large-6000", id="both"),
        pytest.param(["--sandbox-events", "5000", "--integration", "mine"], "mine", id="named"),
    ],
)
def test_each_demo_account_has_a_name(monkeypatch: pytest.MonkeyPatch, given: list[str], name: str | None) -> None:
    """One warehouse can have several of them, since they are different accounts."""
    monkeypatch.setenv("KLAVIYO_API_KEY", "pk_none")
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("KLAVIYO_PG_DATABASE_URL", "")
    arguments = parse("daily", given)
    if name is not None:
        use_demo_account(arguments)
    assert arguments.integration == name
    assert (arguments.sandbox is not None) == (name is not None)
