"""After a command is killed, none of its processes keeps running: Prefect's server, sandbox, Postgres, psql."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import processes
from tests.driver import PATIENCE, ROOT, copy_prefect_home, wait_until
from tests.processes import Marked

DAILY = str(ROOT / "flows" / "daily.py")


@pytest.fixture(scope="module")
def home(prefect: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PREFECT_HOME that is set up."""
    home = tmp_path_factory.mktemp("kills") / "prefect-home"
    copy_prefect_home(prefect, home)
    return home


@pytest.fixture
def environment(home: Path, tmp_path: Path) -> dict[str, str]:
    """An environment with a separate data folder. The tests share PREFECT_HOME."""
    return {**processes.bare_environment(), "DATA_DIR": str(tmp_path), "PREFECT_HOME": str(home)}


def names(command: Marked) -> set[str]:
    """Return the kinds of process that a command has started."""
    lines = [" ".join(each.cmdline()) for each in command.descendants()]
    kinds = ("temporary_server.py", "-m sandbox", "guardian.py", "postgres", "psql")
    return {kind for kind in kinds if any(kind in line for line in lines)}


def is_left_alone(command: Marked) -> bool:
    """Return whether everything that a command has started ends after it was killed."""
    command.kill()
    return command.seconds_until_alone(PATIENCE) is not None


def test_a_run_that_is_killed_while_it_starts(environment: dict[str, str], tmp_path: Path) -> None:
    """The servers that are starting when the command is killed do not survive it."""
    command = processes.start([DAILY, "--sandbox"], tmp_path, environment)
    wait_until(lambda: {"temporary_server.py", "-m sandbox"} <= names(command), "two servers are starting")
    assert is_left_alone(command)


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_middle(environment: dict[str, str], tmp_path: Path) -> None:
    """None of the three servers survives a run that was killed, and the next run can use the warehouse."""
    with (tmp_path / "log").open("w") as log:
        command = processes.start([DAILY, "--sandbox"], tmp_path, environment, output=log.fileno())
        wait_until(lambda: " chunks done" in (tmp_path / "log").read_text(), "the run has loaded something")
    assert {"temporary_server.py", "-m sandbox", "postgres"} <= names(command)
    assert is_left_alone(command)
    assert "Error" not in (tmp_path / "log").read_text()
    again = subprocess.run(
        [sys.executable, "-m", "klaviyo_pg", "status"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "last run daily, running" in again.stdout


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose data folder has an embedded Postgres, which no process uses between two tests."""
    folder = tmp_path_factory.mktemp("warehouse")
    environment = {**processes.bare_environment(), "DATA_DIR": str(folder)}
    start = "from klaviyo_pg.postgres.server import embedded; embedded.url"
    program = f"from pathlib import Path; {start}(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    return environment


def sleep(environment: dict[str, str], folder: Path, seconds: int, output: int | None = subprocess.DEVNULL) -> Marked:
    """Start psql on the warehouse with a query that takes a while, and wait until it runs."""
    query = f"SELECT pg_sleep({seconds}), 'done'"
    command = processes.start(["-m", "klaviyo_pg", "psql", "-Atc", query], folder, environment, output)
    wait_until(lambda: psutil.Process(command.process.pid).name() == "psql", "psql has replaced the command")
    return command


def test_psql_that_is_killed(warehouse: dict[str, str], tmp_path: Path) -> None:
    """psql takes the place of the command, so that it dies with it; then the embedded Postgres stops."""
    command = sleep(warehouse, tmp_path, 600)
    assert {"postgres", "guardian.py"} <= names(command)
    assert is_left_alone(command)


def test_the_embedded_postgres_gets_no_secrets(warehouse: dict[str, str], tmp_path: Path) -> None:
    """A server keeps the environment of the process that started it, and shows it to whoever may look at processes."""
    command = sleep({**warehouse, "KLAVIYO_API_KEY": "pk_secret"}, tmp_path, 600)
    environments = [each.environ() for each in command.descendants() if each.name() == "postgres"]
    command.kill()
    assert any("PATH" in each for each in environments)
    assert not any("KLAVIYO_API_KEY" in each for each in environments)
    assert command.seconds_until_alone(PATIENCE) is not None


def test_the_embedded_postgres_serves_its_other_users(warehouse: dict[str, str], tmp_path: Path) -> None:
    """If one of two commands is killed, the other one keeps the embedded Postgres until it ends."""
    first = sleep(warehouse, tmp_path, 600)
    with (tmp_path / "output").open("w") as output:
        second = sleep(warehouse, tmp_path, 5, output.fileno())
    first.kill()
    assert second.process.wait(PATIENCE) == 0
    assert (tmp_path / "output").read_text() == "|done\n"
    assert first.seconds_until_alone(PATIENCE) is not None
    assert second.seconds_until_alone(PATIENCE) is not None


def test_a_command_that_is_stopped_when_the_embedded_postgres_has_just_started(
    warehouse: dict[str, str], tmp_path: Path
) -> None:
    """It does not count as a user of the server yet, so it does not stop the server itself."""
    program = f"""if True:
        from pathlib import Path
        from klaviyo_pg.postgres.server import embedded
        start = embedded.subprocess.run
        def stopped(*arguments, **options):
            start(*arguments, **options)
            raise KeyboardInterrupt
        embedded.subprocess.run = stopped
        embedded.url(Path({warehouse["DATA_DIR"]!r}))
    """
    command = processes.start(["-c", program], tmp_path, {**warehouse, "PYTHONPATH": str(ROOT)})
    assert command.process.wait(PATIENCE) == -signal.SIGINT
    assert command.seconds_until_alone(PATIENCE) is not None
