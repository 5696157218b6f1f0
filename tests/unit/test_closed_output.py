"""Commands whose standard output has no reader any more, such as `klaviyo-pg daily | head -1`."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from time import monotonic

import pytest
from rich.console import Console

from klaviyo_pg.cli import run_flow, terminal
from klaviyo_pg.cli.arguments import parse
from klaviyo_pg.cli.startup import Startup
from klaviyo_pg.errors import BadSettings

BUFFERING = pytest.mark.parametrize("buffering", [1, -1], ids=["lines are written at once", "lines are buffered"])


@contextmanager
def no_reader(buffering: int) -> Iterator[None]:
    """Make standard output a pipe that nothing reads. Flushing it at the end, as Python does, raises no error."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w", buffering) as pipe, redirect_stdout(pipe):
        yield
        sys.stdout.flush()


@pytest.fixture
def _handlers() -> Iterator[None]:
    """Restore the handlers of signals, which a flow's command sets."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@BUFFERING
@pytest.mark.usefixtures("_handlers")
def test_a_run_does_not_need_a_reader(monkeypatch: pytest.MonkeyPatch, buffering: int) -> None:
    """It happens, and its exit code is the command's."""
    ran = []

    def run(parameters: object) -> BadSettings:
        ran.append(parameters)
        Console().print("Printed by Rich")
        print("Printed last")
        return BadSettings("The run failed.")

    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/none")
    monkeypatch.setattr(run_flow, "_import", lambda startup, name: run)
    with no_reader(buffering):
        code = run_flow.run(Startup(None, monotonic(), needs_server=False), parse("daily", []), "", ["since"])
    assert (ran, code) == ([{"since": None}], BadSettings.exit_code)


@BUFFERING
@pytest.mark.parametrize("show", [print, lambda text: Console().print(text)], ids=["printed", "printed by Rich"])
def test_another_command_ends_without_a_sentence(
    show: Callable[[str], None], capsys: pytest.CaptureFixture[str], buffering: int
) -> None:
    """Its exit code is that of a program that SIGPIPE ends."""

    def command() -> int:
        show("A line")
        return 0

    with pytest.raises(SystemExit) as ended, no_reader(buffering):
        terminal.run(command)
    assert ended.value.code == 141
    assert capsys.readouterr() == ("", "")
