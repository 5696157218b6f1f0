"""`python -m benchmarks.pictures`: recreate the pictures in docs/pictures/ by running what they show.

They show a backfill in a terminal, stopped halfway, and its coverage, and Prefect's user interface with that backfill
and with runs of two accounts that end in different states, and the report on one of them. Needs pyte
(`pip install pyte`) and Chromium.
"""

import argparse
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pyte
import stamina
from rich.color import ColorParseError
from rich.console import Console
from rich.style import Style
from rich.text import Text

from klaviyo_pg.postgres.server import embedded
from sandbox.launcher import Sandbox, running
from tests.driver import prefect_server

_ROOT = Path(__file__).resolve().parent.parent
_FOLDER = _ROOT / "docs" / "pictures"
_COLUMNS, _LINES = 110, 43
_DAYS = 3 * 365
_STOP_AT = 0.55  # of the events
_QUIET = 0.03  # seconds without output, after which the screen is complete
_SCOPES = (
    *("accounts", "metrics", "events", "profiles", "campaigns", "flows", "lists", "segments", "tags"),
    *("templates", "forms", "images"),
)
_PROGRESS = re.compile(r"^all .*?([\d,]+) +of ([\d,]+)", re.MULTILINE)
_SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 24 {width} {height}">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
{styles}
</style>
<defs>{lines}</defs>
<rect y="24" width="100%" height="100%" rx="8" fill="#292929"/>
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Terminal:
    """A command in a separate terminal, and the contents of the screen."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.screen = pyte.Screen(_COLUMNS, _LINES)
        self._stream = pyte.ByteStream(self.screen)
        self.pid, self._end = pty.fork()
        if not self.pid:
            os.chdir(_ROOT)
            terminal = {"TERM": "xterm-256color", "COLUMNS": str(_COLUMNS), "LINES": str(_LINES)}
            os.execvpe(command[0], list(command), {**environment, **terminal})
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))

    def read(self) -> bool:
        """Read some of the output; return False once the command has exited."""
        try:
            written = os.read(self._end, 65_536)
        except OSError:  # Linux reports a closed terminal as an error
            return False
        self._stream.feed(written)
        return bool(written)

    @property
    def is_quiet(self) -> bool:
        """True if no output is waiting, so that a picture does not show half an update of the screen."""
        return not select.select([self._end], [], [], _QUIET)[0]

    def finish(self) -> int:
        """Read the rest of the output; return the exit code."""
        while self.read():
            pass
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    @property
    def share(self) -> float:
        """The share of the events that is stored, according to the screen; 0 while their number is not known."""
        shown = "\n".join(self.screen.display)
        match = _PROGRESS.search(shown)
        if not match or "unknown" in shown:  # before all metrics are counted
            return 0.0
        stored, events = (int(each.replace(",", "")) for each in match.groups())
        return stored / max(1, events)

    @property
    def picture(self) -> str:
        """The screen as SVG, down to its last line with text."""
        last = max(number for number, line in enumerate(self.screen.display) if line.strip())
        console = Console(record=True, width=_COLUMNS, file=StringIO(), force_terminal=True)
        for number in range(last + 1):
            line = [self.screen.buffer[number][column] for column in range(_COLUMNS)]
            spans = [("".join(char.data for char in chars), style) for style, chars in groupby(line, _style)]
            console.print(Text.assemble(*spans), crop=True)
        svg = console.export_svg(code_format=_SVG, unique_id="terminal")
        return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _style(char: Any) -> Style:
    return Style(color=_colour(char.fg), bgcolor=_colour(char.bg), bold=char.bold, reverse=char.reverse)


def _colour(name: str) -> str | None:
    """Translate pyte's name of a colour into rich's."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    translated = name.replace("brown", "yellow").replace("bright", "bright_")
    with suppress(ColorParseError):
        Style(color=translated)
        return translated
    return None


@dataclass(frozen=True)
class Bench:
    """A Prefect server and a database, by the environment that names them."""

    environment: Mapping[str, str]

    def run(self, *command: str, codes: Sequence[int] = (0,), settings: Mapping[str, str] | None = None) -> None:
        """Run a Python command of the project, which must exit with one of these codes."""
        ran = subprocess.run(
            [sys.executable, *command],
            cwd=_ROOT,
            env={**self.environment, **(settings or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode in codes, ran.stdout + ran.stderr

    def ask(self, path: str, body: Any = None) -> Any:
        """Send a request to Prefect's API, with retries while its database is busy, as Prefect's own clients do."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.environment["PREFECT_API_URL"] + path, data, {"Content-Type": "application/json"})
        for attempt in stamina.retry_context(on=_is_busy, attempts=5, wait_initial=1):
            with attempt, urlopen(request, timeout=60) as answer:
                return json.load(answer)

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return the runs of a flow, newest first."""
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC"}
        return self.ask("/flow_runs/filter", body)  # type: ignore[no-any-return]

    def run_deployment(self, deployment: str, **parameters: Any) -> None:
        """Let a worker run a deployment, and wait until the run is over, in whatever state."""
        deployment_id = self.ask(f"/deployments/name/{deployment}")["id"]
        run = self.ask(f"/deployments/{deployment_id}/create_flow_run", {"parameters": parameters})["id"]
        _until(lambda: self.ask(f"/flow_runs/{run}")["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"))

    def photograph(self, path: str, name: str, height: int = 1000, is_still: bool = True) -> None:
        """Save a screenshot of a page of Prefect's user interface. Most pages are incomplete while animations run."""
        options = ["--force-prefers-reduced-motion"] if is_still else []
        url = self.environment["PREFECT_API_URL"].removesuffix("/api") + path
        _screenshot(url, name, 1400, height, "--virtual-time-budget=60000", *options)


def _screenshot(url: str, name: str, width: int, height: int, *options: str) -> None:
    """Save a screenshot of a page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "Chromium is not installed"
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--user-data-dir={profile}", f"--window-size={width},{height}"),
                *(*options, f"--screenshot={_FOLDER / name}", url),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


def _is_busy(error: Exception) -> bool:
    return isinstance(error, HTTPError) and error.code == 503


def _until(holds: Callable[[], bool], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.3)


@contextmanager
def _bench(folder: Path) -> Iterator[Bench]:
    url = embedded.url(folder)
    (folder / "prefect").mkdir()
    with prefect_server(folder / "prefect") as prefect:
        yield Bench({**prefect, "DATABASE_URL": url, "DATA_DIR": str(folder / "data")})


def _account(box: Sandbox, name: str) -> dict[str, str]:
    return {"KLAVIYO_BASE_URL": box.url, "KLAVIYO_API_KEY": box.api_key, "KLAVIYO_INTEGRATION": name}


def backfill(bench: Bench, box: Sandbox) -> None:
    """Run a backfill in a terminal and stop it halfway; take a picture of it and of the coverage; complete it."""
    account = _account(box, "shop-de")
    start = _day(_DAYS)
    bench.run("flows/daily.py", settings=account)
    environment = {**bench.environment, **account}
    terminal = Terminal([sys.executable, "flows/backfill.py", "--start", start], environment)
    while terminal.read() and (terminal.share < _STOP_AT or not terminal.is_quiet):
        pass
    (_FOLDER / "backfill.svg").write_text(terminal.picture, encoding="utf-8")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.finish() == 130, terminal.picture
    box.lie("Active on Site", _day(90), 2)  # so that one count differs
    bench.run("flows/reconcile.py", "--days", str(_DAYS // 3), settings=account)
    bench.run("-m", "klaviyo_pg", "status", "--coverage", str(_FOLDER / "coverage.png"), settings=account)
    bench.run("flows/backfill.py", "--start", start, settings=account)


def runs_of_a_day(bench: Bench, box: Sandbox, other: Sandbox, folder: Path) -> None:
    """Let a worker run deployments for two accounts, so that the runs end in different states."""
    bench.run("-m", "prefect", "--no-prompt", "work-pool", "create", "klaviyo", "--type", "process")
    bench.run("-m", "tasks.save_blocks", "--klaviyo=shop-de", "--warehouse=main", settings=_account(box, "shop-de"))
    names = {"KLAVIYO_BLOCK": "shop-de", "WAREHOUSE_BLOCK": "main", "PROJECT_DIR": str(_ROOT)}
    bench.run("-m", "prefect", "--no-prompt", "deploy", "--all", settings=names)

    def give_key(key: str, *scopes: str) -> None:
        if scopes:
            other.add_key(key, *(f"{scope}:read" for scope in scopes))
        settings = {**_account(other, "shop-fr"), "KLAVIYO_API_KEY": key}
        bench.run("-m", "tasks.save_blocks", "--klaviyo=shop-fr", settings=settings)

    german = {"klaviyo": "shop-de", "warehouse": "main"}
    french = {"klaviyo": "shop-fr", "warehouse": "main"}
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "klaviyo", "--name", "worker-1"]
    environment = {**bench.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with (
        (folder / "worker.log").open("w") as log,
        subprocess.Popen(worker, cwd=folder, env=environment, stdout=log, stderr=log) as child,
    ):
        try:
            give_key("pk_mistyped")
            bench.run_deployment("daily/daily", **french)
            give_key("pk_french", *(scope for scope in _SCOPES if scope != "lists"))
            bench.run_deployment("daily/daily", **french)
            give_key("pk_whole", *_SCOPES)
            bench.run_deployment("daily/daily", **french)
            other.set_faults({"endpoint": "GET /api/events", "status": 429, "retry_after": 7_200, "times": 10**9})
            bench.run_deployment("backfill/backfill", **french, start=_day(_DAYS))
            other.set_faults()
            bench.run_deployment("backfill/backfill", **french, start=_day(_DAYS))
            box.lie("Opened Email", _day(10), 3)
            box.lie("Placed Order", _day(400), -1)
            bench.run_deployment("reconcile/reconcile", **german, days=_DAYS)
            bench.run_deployment("daily/daily", **german)
        finally:
            child.kill()  # with SIGTERM a worker may wait for ever for a run that has just ended


def pages(bench: Bench) -> None:
    """Take screenshots of these runs in Prefect's user interface."""
    bench.photograph("/runs", "prefect-runs.png", 1820)
    _run_form(bench)
    [partial, *_] = [run for run in bench.runs("daily") if run["state"]["name"] == "Partial"]
    bench.photograph(f"/runs/flow-run/{partial['id']}?tab=Details", "prefect-partial.png", 950, is_still=False)
    [whole, *_] = [run for run in bench.runs("backfill") if run["state"]["name"] == "Completed"]
    bench.photograph(f"/runs/flow-run/{whole['id']}", "prefect-backfill.png", is_still=False)
    artifacts = [each for each in bench.ask("/artifacts/filter", {}) if each["key"]]  # progress has no key
    [table] = [each for each in artifacts if each["key"].startswith("backfill-") and each["flow_run_id"] == whole["id"]]
    bench.photograph(f"/artifacts/artifact/{table['id']}", "prefect-backfill-table.png", 700)
    differs = max(
        (each for each in artifacts if each["key"].startswith("reconciliation-")), key=lambda each: len(each["data"])
    )
    bench.photograph(f"/artifacts/artifact/{differs['id']}", "prefect-reconciliation.png", 500)


def _run_form(bench: Bench) -> None:
    """Take a screenshot of the form that starts a daily run, with the block of an account picked."""
    block = bench.ask("/block_types/slug/klaviyo-credentials/block_documents/name/shop-fr")["id"]
    deployment = bench.ask("/deployments/name/daily/daily")["id"]
    parameters = quote(json.dumps({"klaviyo": {"$ref": {"block_document_id": block}}, "warehouse": "main"}))
    bench.photograph(f"/deployments/deployment/{deployment}/run?parameters={parameters}", "prefect-run-form.png", 1150)


def html_report(bench: Bench, folder: Path) -> None:
    """Take screenshots of the report on an account: on a wide screen, on a dark one, and on a phone."""
    file = folder / "report.html"
    bench.run("-m", "klaviyo_pg", "report", "--integration", "shop-fr", "--out", str(file))
    _screenshot(file.as_uri(), "report-desktop.png", 1000, 1300)
    _screenshot(file.as_uri(), "report-dark.png", 1000, 800, "--blink-settings=preferredColorScheme=0")
    _screenshot(file.as_uri(), "report-phone.png", 390, 1300)


def _day(ago: int) -> str:
    return f"{datetime.now(UTC) - timedelta(days=ago):%Y-%m-%d}"


def main() -> None:
    """Recreate all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    options = parser.parse_args()
    _FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        bench = stack.enter_context(_bench(Path(name)))
        box = stack.enter_context(running(events=options.events, days=_DAYS, members=2_000, latency_ms=40))
        other = stack.enter_context(running(events=20_000, days=_DAYS, members=500, account="Fr2nch", seed=2))
        backfill(bench, box)
        runs_of_a_day(bench, box, other, Path(name))
        pages(bench)
        html_report(bench, Path(name))


if __name__ == "__main__":
    main()
