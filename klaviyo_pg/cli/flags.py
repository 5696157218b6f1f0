"""The flags of each command: names, types and help texts. Each function is that of the command of this name."""

import argparse
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from zoneinfo import available_timezones

_UNITS = MappingProxyType({"h": timedelta(hours=1), "d": timedelta(days=1)})
_LONGEST_AGE = 10_000  # of either unit


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _block_name(text: str) -> str:
    if not text or set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
        raise argparse.ArgumentTypeError(f"{text} is not a block name (lower-case letters, digits and dashes)")
    return text


def _time_zone(text: str) -> str:
    if text not in available_timezones():
        raise argparse.ArgumentTypeError(f"{text} is not a time zone such as Europe/Berlin")
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


def _declare_integration(parser: argparse._ActionsContainer) -> None:
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


def _age(text: str) -> timedelta:
    number, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is None or not number.isdecimal() or not 0 < int(number) <= _LONGEST_AGE:
        raise argparse.ArgumentTypeError(f"{text} is not an age such as 26h or 2d")
    return int(number) * unit


def daily(parser: argparse.ArgumentParser) -> None:
    _declare_sandbox(parser)
    parser.add_argument(
        "--since", metavar="DATE", help="read events from this date or time on (UTC), even if they are already loaded"
    )
    _declare_account(parser, "read")


def backfill(parser: argparse.ArgumentParser) -> None:
    _declare_sandbox(parser)
    parser.add_argument("--start", metavar="DATE", required=True, help="first day to read (UTC)")
    parser.add_argument("--end", metavar="DATE", help="end date, exclusive (default: today)")
    parser.add_argument("--plan", action="store_true", help="print the plan and the estimated duration, then exit")
    parser.add_argument(
        "--distribute", action="store_true", help="read on Prefect workers, by runs of the deployment backfill_part"
    )
    parser.add_argument("--restart", action="store_true", help="read again what has already been loaded")
    _declare_account(parser, "read")


def reconcile(parser: argparse.ArgumentParser) -> None:
    _declare_sandbox(parser)
    parser.add_argument(
        "--days", metavar="N", type=int, help="compare this many days up to now (default: RECONCILE_DAYS)"
    )
    _declare_account(parser, "compare")


def status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--integration", metavar="NAME", help="show only this account")
    parser.add_argument(
        "--coverage", metavar="FILE", type=Path, help="also draw which days are loaded, as a .png or .svg image"
    )
    parser.add_argument(
        "--max-age",
        metavar="AGE",
        type=_age,
        help="exit with 1 and a sentence if complete daily runs or events are older, such as 26h or 2d",
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON document, for programs")


def tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tables", metavar="NAMES", type=_names, help="show this selection, comma-separated (default: TABLES)"
    )


def metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--integration", metavar="NAME", help="show only this account")


def report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--integration", metavar="NAME", help="report on this account only (default: all accounts)")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, default=Path("report.html"), help="the file to write (default: report.html)"
    )


def psql(parser: argparse.ArgumentParser) -> None:
    pass


def erase(parser: argparse.ArgumentParser) -> None:
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


def rename(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="the account's present name in this warehouse")
    parser.add_argument("new", metavar="NEW", help="its new name")


def reread(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", metavar="TABLE", nargs="+", help="tables to read again")
    _declare_integration(parser)


def remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="INTEGRATION", help="the account's name in this warehouse")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def upgrade(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plan", action="store_true", help="print what has to be rebuilt, with time and disk needed, then exit"
    )


def views(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fivetran", action="store_true", required=True, help="in the form of Fivetran's Klaviyo schema"
    )
    parser.add_argument(
        "--schema",
        metavar="NAME",
        help="the schema of the views, one for each account; {account} stands for the account's name (default: "
        "klaviyo_fivetran, with --all klaviyo_fivetran_{account})",
    )
    parser.add_argument("--drop", action="store_true", help="drop the views instead")
    chosen = parser.add_mutually_exclusive_group()
    _declare_integration(chosen)
    chosen.add_argument("--all", action="store_true", help="every account of the warehouse")


def save_blocks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--klaviyo", metavar="NAME", type=_block_name, help="save the account, such as KLAVIYO_API_KEY, under this name"
    )
    parser.add_argument(
        "--warehouse", metavar="NAME", type=_block_name, help="save the warehouse, DATABASE_URL, under this name"
    )
    parser.add_argument("--no-check", action="store_true", help="do not try the API key")


def schedule(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", metavar="NAME", type=_block_name, help="the block of the account")
    parser.add_argument(
        "--daily", metavar="CRON", help="when daily runs, such as '15 5 * * *' (default: as the deployment daily)"
    )
    parser.add_argument(
        "--reconcile", metavar="CRON", help="when reconcile runs (default: as the deployment reconcile)"
    )
    parser.add_argument(
        "--timezone", metavar="ZONE", type=_time_zone, help="of these times (default: that of the deployments)"
    )
    parser.add_argument(
        "--warehouse", metavar="NAME", type=_block_name, help="the block of the warehouse (default: of the deployments)"
    )
    parser.add_argument("--off", action="store_true", help="delete the schedules of the account")


def check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-forecast", action="store_true", help="do not estimate how many requests runs will need, which takes some"
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON document, for programs")
    _declare_account(parser, "check")
