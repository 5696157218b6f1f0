"""One run of a flow at a terminal: checks, display, summary. Knows no flow beyond what its command passes."""

import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from time import monotonic
from typing import Any

from klaviyo_pg.cli import preview
from klaviyo_pg.cli.display import LiveDisplay, is_live, starting
from klaviyo_pg.cli.startup import Startup
from klaviyo_pg.cli.summary import Invocation, Times, show
from klaviyo_pg.errors import Stopped
from klaviyo_pg.postgres import embedded
from klaviyo_pg.settings import Settings, load_settings, parse_moment, parse_since
from klaviyo_pg.windows import Window
from pipeline.backfill.plan import history_window
from pipeline.streams import streams_of

_DEMO_ACCOUNT = "sandbox"

Check = Callable[[Namespace], object]
"""Raises BadSettings if an argument is invalid."""
RunFlow = Callable[[Mapping[str, Any]], Any]
"""Runs a flow with parameters, and returns its result or its exception."""


def check_daily(arguments: Namespace) -> None:
    """Check the arguments of the daily flow."""
    streams_of(arguments.tables or ())
    parse_since("--since", arguments.since)


def check_backfill(arguments: Namespace) -> Window:
    """Check the arguments of the backfill, and return the window that they name."""
    end = None if arguments.end is None else parse_moment("--end", arguments.end)
    return history_window(datetime.now(UTC), parse_moment("--start", arguments.start), end)


def check_reconcile(arguments: Namespace) -> None:
    """Check the arguments of the reconcile flow."""
    load_settings(reconcile_days=arguments.days)


def show_plan(startup: Startup, arguments: Namespace) -> int:
    """Print what a backfill would read."""
    _check(startup, arguments, check_backfill)
    settings = _settings(startup, arguments)
    startup.wait()
    preview.show(settings, check_backfill(arguments))
    return 0


def run(startup: Startup, arguments: Namespace, check: Check, parameters: Sequence[str]) -> int:
    """Run the flow of a command with the arguments that are its parameters, and return the exit code."""
    with starting() if is_live() else nullcontext():
        invocation = Invocation.of(arguments, prefix=_check(startup, arguments, check))
        run_flow = _import(startup, arguments.command.name)
        settings = _settings(startup, arguments)
        startup.wait()
    print(_route(settings))
    started = monotonic()
    try:
        result = run_flow({name: getattr(arguments, name) for name in parameters})
    except KeyboardInterrupt:
        raise Stopped from None
    return show(settings, result, Times(started - startup.began, monotonic() - started), invocation)


def _check(startup: Startup, arguments: Namespace, check: Check) -> str:
    """Check the settings and arguments, and start the embedded Postgres if it is the warehouse.

    Returns what has to precede later commands for the same warehouse.
    """
    settings, prefix = load_settings(), ""
    if startup.uses_sandbox:
        prefix = "DATABASE_URL= " if settings.database_url else ""
        os.environ["DATABASE_URL"] = ""
        arguments.integration = arguments.integration or _DEMO_ACCOUNT
        settings = load_settings()
    else:
        settings.api_key  # noqa: B018  # raises BadKey if it is missing
    check(arguments)
    load_settings(klaviyo_integration=arguments.integration, metrics=arguments.metrics)
    if not settings.database_url:
        startup.submit(embedded.url, settings.data_dir)
    return prefix


def _import(startup: Startup, name: str) -> RunFlow:
    """Import a flow, and check that the Prefect server responds if it is not this command's own."""
    if is_live():
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    from tasks import local, logs  # Prefect reads the environment when it is imported

    flow = getattr(import_module(f"flows.{name}"), name)
    if startup.must_check_server:
        local.check_server()
    startup.enter(local.command_settings())
    console = logs.console()
    if is_live() and console is not None:
        local.DISPLAY.set(partial(LiveDisplay, console=console))
    return partial(local.run_flow, flow)


def _settings(startup: Startup, arguments: Namespace) -> Settings:
    startup.use_sandbox()
    return load_settings(klaviyo_integration=arguments.integration, metrics=arguments.metrics)


def _route(settings: Settings) -> str:
    embedded_in = f"embedded Postgres in {(settings.data_dir / 'postgres').absolute()}"
    warehouse = "DATABASE_URL" if settings.database_url else embedded_in
    source = f"{settings.klaviyo_base_url} ({settings.klaviyo_dialect})"
    return f"{source} -> {warehouse}, schema {settings.warehouse_schema}"
