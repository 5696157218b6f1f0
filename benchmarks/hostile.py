"""`python -m benchmarks.hostile`: what becomes of a reader when the API gives hostile or broken answers.

Each answer meets a separate process that reads a page of events with the code that reads all pages. It must end with
one sentence, in time, in little memory, and within seconds of SIGTERM.
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import NamedTuple

from pydantic import SecretStr

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.klaviyo.pace import Pace
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window
from pipeline.outcome import describe
from pipeline.stop import StopFlag
from tests.any_page import ACCOUNT, METRICS
from tests.hostile import ANSWERS, HostileServer
from transforms.events import event_frames

_TIMEOUT, _BUDGET = 2.0, 3.0  # seconds, of a request and of its retries
_LONGEST = _BUDGET + _TIMEOUT + 3.0  # seconds; the last three are for decoding, on a busy machine
_LONGEST_STOP = 5.0  # seconds from SIGTERM to the end
_MEGABYTES = 300
_AT_ONCE = 4  # answers: most of the time, readers wait
_HOPELESS = 60.0  # seconds after which a process that has not ended is killed
_LONGEST_SENTENCE = 800  # characters
_PRELOADED = ["klaviyo_pg.klaviyo.dialects", "pipeline.outcome", "pipeline.stop", "tests.any_page", "tests.hostile"]
_WINDOW = Window(datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


class Measured(NamedTuple):
    """The outcome of one answer. `stopped` is None where the reader had ended before SIGTERM."""

    name: str
    outcome: str
    seconds: float
    megabytes: float
    stopped: float | None

    def broken(self) -> Iterator[str]:
        """Yield the bounds that do not hold."""
        if self.seconds > _LONGEST:
            yield f"took {self.seconds:.1f} s"
        if self.megabytes > _MEGABYTES:
            yield f"used {self.megabytes:.0f} MB"
        if self.stopped is not None and self.stopped > _LONGEST_STOP:
            yield f"ended {self.stopped:.1f} s after SIGTERM"
        if not self.outcome.isprintable() or len(self.outcome) > _LONGEST_SENTENCE or "Traceback" in self.outcome:
            yield "is not one printable sentence"


def main() -> None:
    """Meet all answers, or those whose names contain a text. Exit with 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only answers whose names contain this text")
    parser.add_argument("--write", type=Path, help="write the results to this file")
    options = parser.parse_args()
    get_context("forkserver").set_forkserver_preload(_PRELOADED)
    chosen = [name for name in ANSWERS if options.only in name]
    results = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for result in pool.map(_measure, chosen):
            results.append(result)
            print(_line(result), *result.broken(), sep="  ", flush=True)
    broken = [result.name for result in results if any(result.broken())]
    print(f"{len(results)} answers, {len(broken)} broke a bound")
    if options.write:
        options.write.write_text(_document(results))
    sys.exit(bool(broken))


def _measure(name: str) -> Measured:
    with HostileServer(ANSWERS[name]) as server:
        ended, _ = _outcome(server, _TIMEOUT, _BUDGET, 2)
    with HostileServer(ANSWERS[name]) as server:
        _, stopped = _outcome(server, 120.0, 900.0, 8, is_stopped=True)
    return Measured(name, *ended, stopped)


def _outcome(
    server: HostileServer, timeout: float, budget: float, tries: int, is_stopped: bool = False
) -> tuple[tuple[str, float, float], float | None]:
    """Let a process read a page. Return what it says, and the seconds that it went on after SIGTERM."""
    processes = get_context("forkserver")
    receiving, sending = processes.Pipe(duplex=False)
    process = processes.Process(target=_read, args=(server.url, timeout, budget, tries, sending))
    process.start()
    sending.close()
    stopped = None
    if is_stopped:
        server.was_asked.wait(60)
        process.join(1.0)
        if process.is_alive():
            stopped = monotonic()
            process.terminate()
    said = receiving.recv() if receiving.poll(_HOPELESS) else ("Traceback: no outcome", _HOPELESS, 0.0)
    seconds = None if stopped is None else monotonic() - stopped
    process.kill()  # does nothing if it has ended
    process.join()
    return said, seconds


def _read(url: str, timeout: float, budget: float, tries: int, sending: Connection) -> None:
    """Read a page of events in a thread, as a flow does, and send what became of it."""
    settings = Settings(
        _env_file=None,
        klaviyo_base_url=url,
        klaviyo_api_key=SecretStr("pk_hostile"),
        events_page_size=10,  # the smallest: it is not reduced further
        request_timeout_seconds=timeout,
        retry_budget_seconds=budget,
        request_attempts=tries,
    )
    stop, outcomes = StopFlag(), list[str]()
    began, thread = monotonic(), Thread(target=lambda: outcomes.append(_read_page(settings, stop)))
    with stop.on_signals():
        thread.start()
        while thread.is_alive():
            thread.join(0.05)
    sending.send((outcomes[0], monotonic() - began, _peak_megabytes()))


def _read_page(settings: Settings, stop: StopFlag) -> str:
    source = open_source(settings, Pace(1.0, settings.retry_budget_seconds, check=stop.check))
    events = rejects = 0
    try:
        for page in source.events(_WINDOW):
            event_frames(page.events, [0] * len(page.events), METRICS, ACCOUNT)
            events, rejects = events + len(page.events), rejects + len(page.rejects)
    except KlaviyoPgError as error:
        return describe(error)
    except Exception as error:
        return f"Traceback {error!r}"
    return f"Read {events} events; {rejects} records are in rejects."


def _peak_megabytes() -> float:
    """Return the most memory that this process had. The kernel's figure for children includes their parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _line(result: Measured) -> str:
    stopped = "" if result.stopped is None else f"{result.stopped:.1f}"
    return f"{result.name:45} {result.seconds:5.1f} s {result.megabytes:4.0f} MB {stopped:>4}  {result.outcome[:150]}"


def _document(results: list[Measured]) -> str:
    rows = "\n".join(
        f"| {result.name} | {_cell(result.outcome)} | {result.seconds:.1f} | {result.megabytes:.0f} | "
        f"{'' if result.stopped is None else f'{result.stopped:.1f}'} |"
        for result in results
    )
    return _DOCUMENT.format(count=len(results), timeout=_TIMEOUT, budget=_BUDGET, rows=rows)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


_DOCUMENT = """# Hostile and broken answers

A server answers every request in the same wrong way, and a process reads a page of events from it with the code that
reads all pages. `python -m benchmarks.hostile --write docs/hostile.md` measured these {count} answers with
`REQUEST_TIMEOUT_SECONDS={timeout:g}`, `RETRY_BUDGET_SECONDS={budget:g}` and `REQUEST_ATTEMPTS=2`.

- *seconds*: until the reader ended. A request ends after `REQUEST_TIMEOUT_SECONDS` whatever the server sends, and no
  retry begins after `RETRY_BUDGET_SECONDS`.
- *MB*: the most memory that the process had, including Python and its libraries.
- *SIGTERM*: seconds from the signal to the end, with the default settings. Empty if the reader had ended before.

| answer | outcome | seconds | MB | SIGTERM |
|---|---|---:|---:|---:|
{rows}
"""


if __name__ == "__main__":
    main()
