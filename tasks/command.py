"""What `python flows/daily.py` does around its flow: flags, the sandbox, the summary, the exit code."""

import argparse
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from httpx import HTTPError
from prefect import Flow, State
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from klaviyo_pg.errors import BadSettings, KlaviyoPgError, Unavailable
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.settings import Settings, load_settings, parse_moment, parse_since
from klaviyo_pg.windows import Window
from tasks import edges, terminal
from tasks.ending import show
from tasks.history import history_window, preview
from tasks.plan import streams
from tasks.reading import told

_PREFECT = {
    PREFECT_SERVER_EPHEMERAL_ENABLED: True,  # also in a profile that says nothing of it
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 180,  # of Prefect's temporary server, on a slow machine
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # nobody looks for it at a terminal, and ending it takes a second
}
_QUERY = (
    "SELECT c.name, count(*) AS opens FROM {schema}.opens o JOIN {schema}.campaigns c USING (campaign_key, "
    "esp_integration_id) GROUP BY c.name ORDER BY opens DESC LIMIT 10"
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message[:1].upper()}{message[1:].rstrip('.')}: see --help.\n")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parser(flow: Flow[..., Any]) -> _Parser:
    described = (flow.description or "").split("\n", maxsplit=1)[0]
    parser = _Parser(prog=f"python flows/{flow.name}.py", description=described)
    parser.add_argument("--sandbox", action="store_true", help="a made-up account on this machine, embedded Postgres")
    if flow.name == "backfill":
        parser.add_argument("--start", metavar="DATE", required=True, help="the first day of history to read")
        parser.add_argument("--end", metavar="DATE", help="the day behind the last one; today where not given")
        parser.add_argument("--plan", action="store_true", help="only tell what there is to read, and for how long")
        parser.add_argument("--distribute", action="store_true", help="read by the deployment chunk, on its workers")
        parser.add_argument("--restart", action="store_true", help="read again what has been read before")
    elif flow.name == "reconcile":
        parser.add_argument("--days", metavar="N", type=int, help="how many days back; RECONCILE_DAYS where not given")
    else:
        parser.add_argument("--since", metavar="DATE", help="read events from this date or time on")
        parser.add_argument(
            "--tables", metavar="NAMES", type=_names, help="tables to bring up to date, comma-separated"
        )
    parser.add_argument("--integration", metavar="NAME", help="what this warehouse calls the account")
    parser.add_argument(
        "--metrics", metavar="NAMES", type=_names, help="by name or id, comma-separated; --metrics=-NAME leaves out"
    )
    return parser


def main(flow: Flow[..., Any], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a flow as a command. Ends the process, with 0 only if the run is complete."""
    given = vars(_parser(flow).parse_args(arguments))
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    logging.getLogger("prefect.SqlAlchemyConnector").setLevel(logging.WARNING)  # tells of each engine
    terminal.prepare()
    try:
        with ExitStack() as stack:
            prefix = stack.enter_context(_sandbox(given)) if given.pop("sandbox") else ""
            sys.exit(_run(flow, given, prefix))
    except KlaviyoPgError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, TerminationSignal):
        print("Stopped; the same command goes on where it stopped.", file=sys.stderr)
        sys.exit(130)


def _run(flow: Flow[..., Any], parameters: dict[str, Any], prefix: str) -> int:
    settings = load_settings()
    settings.api_key  # noqa: B018  # the one thing that is always needed
    where = f"embedded Postgres in {(settings.data_dir / 'postgres').absolute()}"
    where = "DATABASE_URL" if settings.database_url else where
    print(f"{settings.klaviyo_base_url} ({settings.klaviyo_dialect}) -> {where}, schema {settings.warehouse_schema}")
    _check(parameters)
    if parameters.pop("plan", False):
        Console().print(_plan(settings, parameters))
        return 0
    began = monotonic()
    with temporary_settings(_PREFECT):
        if not PREFECT_API_URL.value():
            terminal.start_server()
        state = _state(flow, parameters)
    code = show(settings, state, monotonic() - began)
    if not settings.database_url and code in (0, 3):
        name = settings.warehouse_schema
        schema = name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"{}"'.format(name.replace('"', '""'))
        command = Path(sys.executable).with_name("klaviyo-pg")
        shown = prefix + (os.path.relpath(command) if command.is_relative_to(Path.cwd()) else "klaviyo-pg")
        print(f"Look at it with: {shown} psql")
        print(f"or:              {shown} psql -c {shlex.quote(_QUERY.format(schema=schema))}")
    return code


def _state(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> State[Any]:
    """How the flow ended. What it raises itself is a state; anything else is Prefect's."""
    try:
        return flow(**parameters, return_state=True)  # type: ignore[return-value]  # a state, so asked for
    except (HTTPError, RuntimeError) as error:
        raise Unavailable(
            f"Prefect's server failed ({told(error)}): see that it has time, and a database that is not busy, and give "
            "the same command again."
        ) from None


def _check(given: Mapping[str, Any]) -> None:
    """Tell what is wrong with the flags, and that Prefect's server is not there, before Prefect takes its time."""
    load_settings(klaviyo_integration=given["integration"], metrics=given["metrics"], reconcile_days=given.get("days"))
    parse_since(given.get("since"))
    streams(given.get("tables") or ())
    if "start" in given:
        _history(given)
    check_server()


def check_server() -> None:
    """Raises BadSettings where PREFECT_API_URL leads to no Prefect server; without it one is started for the time."""
    if not PREFECT_API_URL.value():
        return
    with get_client(sync_client=True) as client:
        if client.api_healthcheck():
            raise BadSettings("No Prefect server answers at PREFECT_API_URL: start it, or unset PREFECT_API_URL.")


def _history(given: Mapping[str, Any]) -> Window:
    end = None if given["end"] is None else parse_moment("--end", given["end"])
    return history_window(datetime.now(UTC), parse_moment("--start", given["start"]), end)


def _plan(settings: Settings, given: Mapping[str, Any]) -> Table:
    """What a backfill with these flags would read, and how long the API's limits make it take at least."""
    settings = load_settings(klaviyo_integration=given["integration"], metrics=given["metrics"])
    window, source = _history(given), edges.source(settings)
    table = Table(title=escape(f"{settings.klaviyo_integration}: history {window}"))
    for name in ("metric", "events", "chunks", "requests", "minutes at the API's limit"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    total_events = total_requests = 0
    watched = partial(track, description="Counting", console=Console(stderr=True), transient=True)
    for name, found in sorted(preview(settings, window, watched), key=lambda row: -row[1].expected):
        chunks = found.chunks - found.done  # those without any event are done already
        requests = -(-found.expected // source.events_in_request) + chunks
        table.add_row(escape(name), f"{found.expected:,}", str(chunks), f"{requests:,}", _minutes(source, requests))
        total_events, total_requests = total_events + found.expected, total_requests + requests
    table.add_section()
    table.add_row("all", f"{total_events:,}", "", f"{total_requests:,}", _minutes(source, total_requests))
    return table


def _minutes(source: Source, requests: int) -> str:
    limit = source.event_requests_a_minute
    return "unknown" if limit is None else f"{requests / limit:.1f}"


@contextmanager
def _sandbox(given: dict[str, Any]) -> Iterator[str]:
    """The sandbox account for as long as the block lasts, and an environment that leads to it, with all its history.

    Gives what a command that looks at it afterwards has to begin with, when the environment is the user's again.
    """
    try:
        from sandbox.account import Options
        from sandbox.launcher import running
    except ImportError:
        raise BadSettings("This installation comes without the sandbox: use a clone of the project.") from None

    options = Options()
    prefix = "DATABASE_URL= " if load_settings().database_url else ""
    age = datetime.now(UTC) - options.until + timedelta(days=options.days + 1)
    with running() as box:
        os.environ |= {
            "KLAVIYO_BASE_URL": box.url,
            "KLAVIYO_API_KEY": box.api_key,
            "KLAVIYO_ACCOUNT_ID": options.account,
            "DATABASE_URL": "",
            "FIRST_SYNC_DAYS": str(max(1, age.days)),
        }
        given["integration"] = given["integration"] or "sandbox"
        yield prefix
