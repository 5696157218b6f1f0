"""The commands that run a flow: daily, backfill and reconcile.

Each checks what the user may have got wrong before it starts a server. It starts what it needs before it imports the
rest of what takes seconds, so that both happen at the same time.
"""

import gc
from argparse import Namespace
from collections.abc import Sequence

from klaviyo_pg.cli.preflight import (
    Check,
    check_backfill,
    check_daily,
    check_reconcile,
    check_run,
    check_settings,
    use_demo_account,
)
from klaviyo_pg.cli.startup import Startup


def daily(arguments: Namespace) -> int:
    """Run the daily flow."""
    return _run(arguments, check_daily, ("integration", "since", "metrics", "tables"))


def backfill(arguments: Namespace) -> int:
    """Run the backfill, or print its plan."""
    if not arguments.plan:
        parameters = ("start", "end", "integration", "metrics", "tables", "restart", "distribute")
        return _run(arguments, check_backfill, parameters)
    _prepare(arguments, check_backfill, flow=None)
    with Startup(arguments.sandbox, arguments.began, needs_server=False) as startup:
        from klaviyo_pg.cli.run_flow import show_plan

        return show_plan(startup, arguments)


def reconcile(arguments: Namespace) -> int:
    """Run the reconcile flow."""
    return _run(arguments, check_reconcile, ("integration", "days", "metrics", "tables"))


def _run(arguments: Namespace, check_arguments: Check, parameters: Sequence[str]) -> int:
    prefix = _prepare(arguments, check_arguments, arguments.command.name)
    with Startup(arguments.sandbox, arguments.began) as startup:
        from klaviyo_pg.cli.run_flow import run

        return run(startup, arguments, prefix, parameters)


def _prepare(arguments: Namespace, check_arguments: Check, flow: str | None) -> str:
    """Check what the user may have got wrong, and return what has to precede later commands for the same warehouse.

    Garbage collection is off from here on, as it is during the startup: imports make many objects that stay.
    """
    gc.disable()
    check_settings()
    prefix = use_demo_account(arguments) if arguments.sandbox else ""
    check_run(arguments, check_arguments, flow)
    return prefix
