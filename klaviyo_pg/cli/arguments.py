"""The commands and their arguments: names, help texts and examples. Knows nothing of what the commands do."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

from klaviyo_pg import __version__
from klaviyo_pg.cli import flags
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

    `program` runs this command alone. Each example is the arguments and what they do. `reads_account` is true if the
    command sends requests to one account.
    """

    name: str
    program: str
    summary: str
    description: str
    examples: tuple[tuple[str, str], ...]
    declare: Callable[[argparse.ArgumentParser], None]
    runs_flow: bool = False
    reads_account: bool = False

    def function(self) -> Function:
        """Import the function that carries out the command."""
        name = self.name.replace("-", "_")
        module = "run_commands" if self.runs_flow else name
        found: Function = getattr(import_module(f"klaviyo_pg.cli.{module}"), name)
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
    on wrong usage, and after printing help, which `klaviyo-pg` alone does.
    """
    parser = _all_commands() if name is None else _one_command(COMMANDS[name])
    if name is None and not arguments:
        parser.print_help()
        parser.exit(2)
    parsed, rest = parser.parse_known_args(arguments)
    parsed.rest = rest
    if "sandbox" in parsed:
        parsed.sandbox = _demo_account(parsed.sandbox, parsed.sandbox_events)
    if rest and parsed.command is not _PSQL:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return parsed


def account_of(arguments: argparse.Namespace) -> str | None:
    """Return the name of the account that a command reads; None if it reads none.

    Other settings may be invalid, and the file with settings unreadable. An account that is saved as a block has the
    name of the block, unless the settings give it another one.
    """
    if not arguments.command.reads_account:
        return None
    from klaviyo_pg import env_file  # imported late, because importing it takes time

    name = None
    with suppress(OSError, UnicodeDecodeError):  # the error that is reported says so
        _, name = env_file.first("KLAVIYO_INTEGRATION") or ("", None)
    return getattr(arguments, "integration", None) or name or getattr(arguments, "klaviyo", None) or "default"


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


_PSQL = Command(
    name="psql",
    program=f"{PROGRAM} psql",
    summary="open psql on the warehouse",
    description="Open psql on the warehouse. All arguments are passed on to psql.",
    examples=(("-c 'SELECT * FROM freshness'", "show how fresh and complete each metric is"),),
    declare=flags.psql,
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
            ("--json", "print the result as JSON, for a program that watches scopes and requests"),
        ),
        declare=flags.check,
        reads_account=True,
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
        declare=flags.daily,
        runs_flow=True,
        reads_account=True,
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
        declare=flags.backfill,
        runs_flow=True,
        reads_account=True,
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
        declare=flags.reconcile,
        runs_flow=True,
        reads_account=True,
    ),
    Command(
        name="status",
        program=f"{PROGRAM} status",
        summary="show all accounts, their last runs and the progress of backfills",
        description="Show the last run of each account, and the progress of its backfill, from the warehouse's ledger.",
        examples=(
            ("", "show a line for each account, and details where something is unfinished or wrong"),
            ("--rows", "also show how many rows each table has, by account"),
            ("--coverage coverage.png", "also draw which days of each metric are loaded"),
            ("--max-age 26h", "exit with 1 if the last complete daily run, or the last read of events, is older"),
            ("--json", "print it as JSON, for a program that watches the warehouse"),
        ),
        declare=flags.status,
    ),
    Command(
        name="tables",
        program=f"{PROGRAM} tables",
        summary="list the tables that runs can fill, and which are selected",
        description="List the tables that runs can fill, which of them TABLES selects, and which cost extra requests.",
        examples=(
            ("", "show what every run fills"),
            ("--tables=default,coupons", "show what a selection means"),
        ),
        declare=flags.tables,
    ),
    Command(
        name="metrics",
        program=f"{PROGRAM} metrics",
        summary="list the metrics, with the tables of their events",
        description=(
            "List the metrics in the warehouse: names, IDs, tables, oldest and newest events, and how far each is read."
        ),
        examples=(("--integration shop-de", "show the metrics of one account"),),
        declare=flags.metrics,
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
        declare=flags.erase,
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
        declare=flags.report,
    ),
    Command(
        name="reread",
        program=f"{PROGRAM} reread",
        summary="let the next daily run read tables in full again",
        description=(
            "Let the next daily run read everything that fills these tables again, and compare it with what is\n"
            "stored. Deletes nothing, and sends no request. For events, use klaviyo-pg backfill --restart."
        ),
        examples=(
            ("members", "read all profiles, with their properties and consents"),
            ("stg_member_lists templates", "read all members of lists, and all templates"),
        ),
        declare=flags.reread,
    ),
    Command(
        name="rename",
        program=f"{PROGRAM} rename",
        summary="give an account another name in the warehouse",
        description="Give an account another name in the warehouse. Its rows are not changed.",
        examples=(("default shop-de", "from now on, KLAVIYO_INTEGRATION=shop-de stands for the account"),),
        declare=flags.rename,
    ),
    Command(
        name="remove",
        program=f"{PROGRAM} remove",
        summary="remove an account from the warehouse",
        description=(
            "Remove an account from the warehouse, with all of its rows, and its spool on this machine. The other\n"
            "accounts stay, and can be loaded at the same time. Rerun to resume."
        ),
        examples=(
            ("shop-de", "show how many rows the account has, and remove it once its name is typed"),
            ("shop-de --yes", "remove it without asking, in a script"),
        ),
        declare=flags.remove,
    ),
    Command(
        name="upgrade",
        program=f"{PROGRAM} upgrade",
        summary="rebuild what a new version stores in another way",
        description=(
            "Rebuild what this version stores in another way than the one that created the warehouse:\n"
            "primary keys and indexes of large tables. The tables stay in use. Rerun to resume."
        ),
        examples=(
            ("--plan", "print what has to be rebuilt, and how much time and disk it takes"),
            ("", "rebuild it"),
        ),
        declare=flags.upgrade,
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
            ("--fivetran --all", "the same for every account, in schemas such as klaviyo_fivetran_shop_de"),
            ("--fivetran --drop", "drop them"),
        ),
        declare=flags.views,
    ),
    Command(
        name="save-blocks",
        program="python -m tasks.save_blocks",
        summary="save the settings as blocks on the Prefect server, for deployments",
        description="Save the settings as blocks on the Prefect server, so that deployments need no secrets.",
        examples=(("--klaviyo shop-de --warehouse main", "save both, for deployments that name these blocks"),),
        declare=flags.save_blocks,
        reads_account=True,
    ),
    Command(
        name="schedule",
        program=f"{PROGRAM} schedule",
        summary="schedule the runs of an account on the Prefect server",
        description="Let the deployments daily and reconcile load another account: the one in a block.",
        examples=(
            ("shop-fr", "at the times of the deployments' own schedules"),
            ("shop-fr --daily '45 5 * * *' --timezone Europe/Paris", "daily at another time"),
            ("shop-fr --off", "no longer"),
        ),
        declare=flags.schedule,
    ),
)
COMMANDS = {command.name: command for command in _ALL}
"""The commands by name."""
