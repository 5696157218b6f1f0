"""The commands and their arguments: names, help texts and examples. Knows nothing of what the commands do."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from klaviyo_pg import __version__
from klaviyo_pg.cli.demo import DemoAccount, large

PROGRAM = "klaviyo-pg"
Function = Callable[[argparse.Namespace], int]
"""Carries out a command and returns its exit code."""

_SETTINGS = "Settings come from the environment and from .env in the current folder.\n.env.example lists them all."
_EXIT_CODES = """\
exit codes:
  0    complete
  1    failed; the message says whether a retry may help
  2    wrong usage, a wrong setting, or another run in progress
  3    partial: the API key lacks a scope, or some history could not be read
  4    to be continued: the API requires a long pause; rerun later to resume
  130  stopped; rerun to resume"""


class _Parser(argparse.ArgumentParser):
    """A parser that reports wrong usage in one sentence, and prints an epilog as it is written."""

    def __init__(self, **options: Any) -> None:
        layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=26)
        super().__init__(formatter_class=layout, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message[:1].upper()}{message[1:].rstrip('.')}. See {self.prog} --help.\n")


@dataclass(frozen=True)
class Command:
    """A command: its help, the arguments that it declares, and where the function is that carries it out.

    `program` runs this command alone. Each example is the arguments and what they do.
    """

    name: str
    program: str
    summary: str
    description: str
    examples: tuple[tuple[str, str], ...]
    declare: Callable[[argparse.ArgumentParser], None]
    module: str
    runs_flow: bool = False

    def function(self) -> Function:
        """Import the function that carries out the command."""
        found: Function = getattr(import_module(f"klaviyo_pg.cli.{self.module}"), self.name.replace("-", "_"))
        return found

    def epilog(self, program: str) -> str:
        """Return what follows the arguments in the help, where the command is run by `program`."""
        examples = (f"  {program} {arguments}\n      {effect}" for arguments, effect in self.examples)
        parts = ["examples:\n" + "\n".join(examples)]
        if self.runs_flow:
            parts += [_EXIT_CODES, _SETTINGS]
        return "\n\n".join(parts)


def parse(name: str | None, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of a program: of one command or, without a name, of `klaviyo-pg` with all of them.

    The result has the Command as `command`, how it was run as `program`, and the arguments for psql as `rest`. Exits
    on wrong usage, and after printing help.
    """
    parser = _all_commands() if name is None else _one_command(COMMANDS[name])
    parsed, rest = parser.parse_known_args(arguments)
    parsed.rest = rest
    if "sandbox" in parsed:
        parsed.sandbox = _demo_account(parsed.sandbox, parsed.sandbox_events)
    if rest and parsed.command is not _PSQL:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return parsed


def _demo_account(is_small: bool, events: int | None) -> DemoAccount | None:
    if events is not None:
        return large(events)
    return DemoAccount() if is_small else None


def _all_commands() -> _Parser:
    parser = _Parser(
        prog=PROGRAM,
        description="Load a whole Klaviyo account into Postgres, and look at it there.",
        epilog=f"{PROGRAM} COMMAND --help describes a command.\n\n{_SETTINGS}",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS.values():
        program = f"{PROGRAM} {command.name}"
        takes_help = command is not _PSQL  # psql prints its own
        added = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            epilog=command.epilog(program),
            add_help=takes_help,
        )
        command.declare(added)
        added.set_defaults(command=command, program=program)
    return parser


def _one_command(command: Command) -> _Parser:
    program = command.program
    parser = _Parser(prog=program, description=command.description, epilog=command.epilog(program))
    command.declare(parser)
    parser.set_defaults(command=command, program=program)
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _block_name(text: str) -> str:
    if not text or set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
        raise argparse.ArgumentTypeError(f"{text} is not a block name (lower-case letters, digits and dashes)")
    return text


def _declare_account(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.add_argument(
        "--metrics",
        metavar="NAMES",
        type=_names,
        help=f"{verb} only these metrics: names or IDs, comma-separated; --metrics=-NAME leaves one out",
    )
    parser.add_argument(
        "--tables",
        metavar="NAMES",
        type=_names,
        help=f"{verb} only what fills these tables, comma-separated; --tables=-NAME leaves one out",
    )
    _declare_integration(parser)


def _declare_integration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--integration",
        metavar="NAME",
        help="the account's name in this warehouse (default: KLAVIYO_INTEGRATION)",
    )


def _declare_sandbox(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sandbox",
        action="store_true",
        help="use a built-in demo account on this machine, and an embedded Postgres",
    )
    parser.add_argument(
        "--sandbox-events",
        metavar="N",
        type=_demo_size,
        help="the same with a large demo account of N events, which grows every day",
    )


def _demo_size(text: str) -> int:
    if not text.isdecimal() or not 1_000 <= int(text) <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number between 1000 and 1000000000")
    return int(text)


def _declare_daily(parser: argparse.ArgumentParser) -> None:
    _declare_sandbox(parser)
    parser.add_argument(
        "--since", metavar="DATE", help="read events from this date or time on (UTC), even if they are already loaded"
    )
    _declare_account(parser, "read")


def _declare_backfill(parser: argparse.ArgumentParser) -> None:
    _declare_sandbox(parser)
    parser.add_argument("--start", metavar="DATE", required=True, help="first day to read (UTC)")
    parser.add_argument("--end", metavar="DATE", help="end date, exclusive (default: today)")
    parser.add_argument("--plan", action="store_true", help="print the plan and the estimated duration, then exit")
    parser.add_argument(
        "--distribute", action="store_true", help="read on Prefect workers, by runs of the deployment backfill_part"
    )
    parser.add_argument("--restart", action="store_true", help="read again what has already been loaded")
    _declare_account(parser, "read")


def _declare_reconcile(parser: argparse.ArgumentParser) -> None:
    _declare_sandbox(parser)
    parser.add_argument(
        "--days", metavar="N", type=int, help="compare this many days up to now (default: RECONCILE_DAYS)"
    )
    _declare_account(parser, "compare")


def _declare_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--integration", metavar="NAME", help="show only this account")
    parser.add_argument(
        "--coverage", metavar="FILE", type=Path, help="also draw which days are loaded, as a .png or .svg image"
    )


def _declare_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--integration", metavar="NAME", help="report on this account only (default: all accounts)")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, default=Path("report.html"), help="the file to write (default: report.html)"
    )


def _declare_psql(parser: argparse.ArgumentParser) -> None:
    pass


def _declare_erase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--email",
        metavar="ADDRESS",
        nargs="+",
        action="extend",
        default=[],
        help="email addresses; other users of this machine can see arguments, but not the --file",
    )
    parser.add_argument("--id", metavar="ID", nargs="+", action="extend", default=[], help="IDs of profiles in Klaviyo")
    parser.add_argument("--file", metavar="FILE", help="a file with an address or ID on each line; - is standard input")
    _declare_integration(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def _declare_rename(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="the account's present name in this warehouse")
    parser.add_argument("new", metavar="NEW", help="its new name")


def _declare_upgrade(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plan", action="store_true", help="print what has to be rebuilt, with time and disk needed, then exit"
    )


def _declare_views(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fivetran", action="store_true", required=True, help="in the form of Fivetran's Klaviyo schema"
    )
    parser.add_argument(
        "--schema",
        metavar="NAME",
        default="klaviyo_fivetran",
        help="the schema of the views, one for each account (default: klaviyo_fivetran)",
    )
    parser.add_argument("--drop", action="store_true", help="drop the views instead")
    _declare_integration(parser)


def _declare_save_blocks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--klaviyo", metavar="NAME", type=_block_name, help="save the account, such as KLAVIYO_API_KEY, under this name"
    )
    parser.add_argument(
        "--warehouse", metavar="NAME", type=_block_name, help="save the warehouse, DATABASE_URL, under this name"
    )


def _declare_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-forecast", action="store_true", help="do not estimate how many requests runs will need, which takes some"
    )
    _declare_account(parser, "check")


_PSQL = Command(
    name="psql",
    program=f"{PROGRAM} psql",
    summary="open psql on the warehouse",
    description="Open psql on the warehouse. All arguments are passed on to psql.",
    examples=(("-c 'SELECT * FROM freshness'", "show how fresh and complete each metric is"),),
    declare=_declare_psql,
    module="warehouse",
)
_ALL = (
    Command(
        name="check",
        program=f"{PROGRAM} check",
        summary="try the API key and the database, and estimate the requests of runs",
        description=(
            "Try the API key and the database. Print for each stream whether the key has its scope, and how many "
            "requests a first\nand a daily run need. Writes nothing."
        ),
        examples=(
            ("", "check everything before the first run"),
            ("--no-forecast", "check the key, its scopes and the database, with a request or two for each stream"),
            ("--tables=-campaigns", "check and estimate runs that leave out a table"),
        ),
        declare=_declare_check,
        module="check",
    ),
    Command(
        name="daily",
        program="python flows/daily.py",
        summary="load everything that the account gained or changed since the last run",
        description="Load everything that the Klaviyo account gained or changed since the last run.",
        examples=(
            ("--sandbox", "try it without an account"),
            ("--metrics='Opened Email,Placed Order'", "load the events of two metrics"),
            ("--metrics='-Active on Site'", "load the events of all metrics but one"),
            ("--since 2026-01-01 --tables sends", "read this year's events again, for one table"),
            ("--tables=-campaigns", "load everything but one table"),
        ),
        declare=_declare_daily,
        module="flow_runs",
        runs_flow=True,
    ),
    Command(
        name="backfill",
        program="python flows/backfill.py",
        summary="load the history of events",
        description=(
            "Load the history of events, up to the last midnight (UTC).\nRerun with the same arguments to resume."
        ),
        examples=(
            ("--start 2019-01-01 --plan", "print how many events there are, and how long loading them takes"),
            ("--start 2019-01-01", "load everything since 2019, or resume after an interruption"),
            ("--start 2024-01-01 --end 2025-01-01 --restart", "load 2024 again"),
        ),
        declare=_declare_backfill,
        module="flow_runs",
        runs_flow=True,
    ),
    Command(
        name="reconcile",
        program="python flows/reconcile.py",
        summary="compare counts with Klaviyo, and load what is missing",
        description="Compare the number of stored events with Klaviyo's counts, and read again what differs.",
        examples=(
            ("", "compare the last RECONCILE_DAYS days"),
            ("--days 365 --metrics='Placed Order'", "compare a year of one metric"),
        ),
        declare=_declare_reconcile,
        module="flow_runs",
        runs_flow=True,
    ),
    Command(
        name="status",
        program=f"{PROGRAM} status",
        summary="show the last run, and the progress of the backfill",
        description="Show the last run of each account, and the progress of its backfill, from the warehouse's ledger.",
        examples=(
            ("", "show all accounts"),
            ("--coverage coverage.png", "also draw which days of each metric are loaded"),
        ),
        declare=_declare_status,
        module="warehouse",
    ),
    _PSQL,
    Command(
        name="erase",
        program=f"{PROGRAM} erase",
        summary="erase people from the warehouse",
        description=(
            "Erase people from all tables, permanently. Erase them in Klaviyo first.\nWithout people, finish what was "
            "interrupted."
        ),
        examples=(
            ("--file people.txt", "erase everything about these people, after a confirmation"),
            ("--id 01GDDKASAP8TKDDA2GRZDSVP4H 01GDDKASAP8TKDDA2GRZDSVP4J", "erase two people"),
        ),
        declare=_declare_erase,
        module="erase",
    ),
    Command(
        name="report",
        program=f"{PROGRAM} report",
        summary="write a report on the warehouse as an HTML file",
        description=(
            "Write a report on the warehouse as one HTML file, which needs no network: coverage, freshness, runs,\n"
            "differences, rejects, sizes, requests, consent, and the top campaigns and flows. It names no person."
        ),
        examples=(
            ("", "write report.html, with a section for each account"),
            ("--integration shop-de --out shop-de.html", "report on one account"),
        ),
        declare=_declare_report,
        module="report",
    ),
    Command(
        name="rename",
        program=f"{PROGRAM} rename",
        summary="give an account another name in the warehouse",
        description="Give an account another name in the warehouse. Its rows are not changed.",
        examples=(("default shop-de", "from now on, KLAVIYO_INTEGRATION=shop-de stands for the account"),),
        declare=_declare_rename,
        module="warehouse",
    ),
    Command(
        name="upgrade",
        program=f"{PROGRAM} upgrade",
        summary="rebuild what a new version stores in another way",
        description=(
            "Rebuild what this version stores in another way than the one that created the warehouse:\n"
            "primary keys and indexes of event tables. The tables stay in use. Rerun to resume."
        ),
        examples=(
            ("--plan", "print what has to be rebuilt, and how much time and disk it takes"),
            ("", "rebuild it"),
        ),
        declare=_declare_upgrade,
        module="upgrade",
    ),
    Command(
        name="views",
        program=f"{PROGRAM} views",
        summary="create views with the schema that dbt_klaviyo reads",
        description=(
            "Create a schema of views over an account, in the form of Fivetran's Klaviyo schema, for the dbt package\n"
            "dbt_klaviyo: campaign, event, flow, metric and person. Rerun to upgrade them. See docs/dbt.md."
        ),
        examples=(
            ("--fivetran", "create or upgrade the views in the schema klaviyo_fivetran"),
            ("--fivetran --integration shop-fr --schema fivetran_fr", "the same for another account"),
            ("--fivetran --drop", "drop them"),
        ),
        declare=_declare_views,
        module="views",
    ),
    Command(
        name="save-blocks",
        program="python -m tasks.save_blocks",
        summary="save the settings as blocks on the Prefect server, for deployments",
        description="Save the settings as blocks on the Prefect server, so that deployments need no secrets.",
        examples=(("--klaviyo shop-de --warehouse main", "save both, for deployments that name these blocks"),),
        declare=_declare_save_blocks,
        module="blocks",
    ),
)
COMMANDS = {command.name: command for command in _ALL}
"""The commands by name."""
