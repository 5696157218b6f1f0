"""One run of a flow at a terminal: start, display, summary. Knows no flow beyond what its command passes."""

import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from time import monotonic
from typing import Any

from klaviyo_pg.cli import preview
from klaviyo_pg.cli.display import LiveDisplay, is_live, starting
from klaviyo_pg.cli.output import tolerant_output
from klaviyo_pg.cli.preflight import check_backfill
from klaviyo_pg.cli.signals import handle_signals
from klaviyo_pg.cli.startup import Startup
from klaviyo_pg.cli.summary import Invocation, Times, show
from klaviyo_pg.errors import Stopped
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings, load_settings

RunFlow = Callable[[Mapping[str, Any]], Any]
"""Runs a flow with parameters, and returns its result or its exception."""


def show_plan(startup: Startup, arguments: Namespace) -> int:
    """Print what a backfill would read."""
    settings = _settings(startup, arguments)
    startup.wait()
    preview.show(settings, check_backfill(arguments), arguments.restart)
    return 0


def run(startup: Startup, arguments: Namespace, prefix: str, parameters: Sequence[str]) -> int:
    """Run the flow of a command with the arguments that are its parameters, and return the exit code.

    `prefix` has to precede later commands for the same warehouse. The run does not depend on a reader of its output.
    """
    with tolerant_output():
        return _run(startup, arguments, prefix, parameters)


def _run(startup: Startup, arguments: Namespace, prefix: str, parameters: Sequence[str]) -> int:
    with _announced(startup):
        _start_warehouse(startup)
        run_flow = _import(startup, arguments.command.name)
        settings = _settings(startup, arguments)
        startup.wait()
    if not settings.quiet and settings.log_format == "text":
        print(_route(settings))
    started = monotonic()
    handle_signals()
    try:
        result = run_flow({name: getattr(arguments, name) for name in parameters})
    except KeyboardInterrupt:
        raise Stopped from None
    times = Times(started - startup.began, monotonic() - started)
    return show(settings, result, times, Invocation.of(arguments, prefix))


def _announced(startup: Startup) -> AbstractContextManager[object]:
    """Show that the command is starting while the block runs, where that takes seconds; in a log, as one line."""
    settings = load_settings()
    if _has_display():
        return starting("Starting Prefect")
    if startup.starts_server and not settings.quiet and settings.log_format == "text":
        print("Starting a temporary Prefect server. Set PREFECT_API_URL to use your own.", flush=True)
    return nullcontext()


def _start_warehouse(startup: Startup) -> None:
    """Start the embedded Postgres if it is the warehouse."""
    settings = load_settings()
    if not settings.database_url:
        startup.submit(embedded.url, settings.data_dir)


def _import(startup: Startup, name: str) -> RunFlow:
    """Import a flow, and check that the Prefect server responds if it is not this command's own."""
    if has_display := _has_display():
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    from tasks import local, logs  # Prefect reads the environment when it is imported

    flow = getattr(import_module(f"flows.{name}"), name)
    if startup.must_check_server:
        local.check_server()
    startup.enter(local.command_settings())
    logs.configure_command()
    console = logs.console()
    if has_display and console is not None:
        local.show_runs_with(partial(LiveDisplay, console=console))
    return partial(local.run_flow, flow)


def _has_display() -> bool:
    """Return whether a live display can be shown, and the settings want one."""
    settings = load_settings()
    return is_live() and not settings.quiet and settings.log_format == "text"


def _settings(startup: Startup, arguments: Namespace) -> Settings:
    startup.use_sandbox()
    return load_settings(klaviyo_integration=arguments.integration, metrics=arguments.metrics, tables=arguments.tables)


def _route(settings: Settings) -> str:
    embedded_in = f"embedded Postgres in {(settings.data_dir / 'postgres').absolute()}"
    warehouse = "DATABASE_URL" if settings.database_url else embedded_in
    source = f"{settings.klaviyo_base_url} ({settings.klaviyo_dialect})"
    return f"{source} -> {warehouse}, schema {settings.warehouse_schema}"
