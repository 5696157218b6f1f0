"""`python -m sandbox`: generate an account and serve it on this machine until the process is stopped."""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Thread
from typing import NoReturn

from sandbox.account import Options, generate
from sandbox.api.keys import API_KEY
from sandbox.derived import DerivedOptions, derive
from sandbox.faults.chaos import Chaos
from sandbox.legacy.dialect import LEGACY_MODES
from sandbox.server.application import application
from sandbox.server.limiter import Limiter
from sandbox.server.serving import HOST, listen, serve
from sandbox.server.state import ServerState


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message[:1].upper()}{message[1:].rstrip('.')}.\n")


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _integer(minimum: int, maximum: int = 10**9) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if not minimum <= int(text) <= maximum:
            raise argparse.ArgumentTypeError(f"{text} is not between {minimum} and {maximum}")
        return int(text)

    return integer


def _parser() -> _Parser:
    default = Options()
    parser = _Parser(prog="python -m sandbox", description="Serve a simulated Klaviyo account over HTTP.")
    parser.add_argument("--port", type=_integer(0, 65_535), default=8900, help="TCP port; 0 selects any free port")
    parser.add_argument("--account", default=default.account, help="account id")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of the account's data")
    parser.add_argument("--members", type=_integer(1), help="number of profiles")
    parser.add_argument("--events", type=_integer(0, 10**10), help="number of events of all metrics")
    parser.add_argument("--days", type=_integer(2, 10_000), help="days of history before the end date")
    parser.add_argument("--until", type=_time, help="end date of the account's history")
    _add_large_options(parser)
    parser.add_argument("--limits", choices=("published", "off"), default="published", help="rate limits to enforce")
    parser.add_argument("--latency-ms", type=_integer(0), default=0, help="delay of each answer in milliseconds")
    parser.add_argument(
        "--legacy", choices=LEGACY_MODES, default="on", help="serve v1 and v2, or answer 410 (gone) or 404 (off)"
    )
    parser.add_argument(
        "--chaos-rate", type=float, default=0.0, help="share of requests that meet a fault, from 0 to 1"
    )
    parser.add_argument("--chaos-seed", type=int, default=0, help="seed of the faults")
    parser.add_argument(
        "--exit-on-eof", action="store_true", help="exit when standard input is closed, for use by a parent process"
    )
    return parser


def _add_large_options(parser: argparse.ArgumentParser) -> None:
    default = DerivedOptions()
    large = parser.add_argument_group(
        "large accounts", "Data that is computed and not held in memory. Its people and members cannot be changed."
    )
    large.add_argument(
        "--large",
        action="store_true",
        help=f"serve a large account, by default with {default.events:,} events and {default.members:,} profiles",
    )
    large.add_argument("--metrics", type=_integer(1, 3_000), help="number of metrics, a fifth of which have no events")
    large.add_argument("--lists", type=_integer(2, 10_000), help="number of lists and segments")
    large.add_argument("--properties", type=_integer(0, 1_000), help="number of properties of each profile")
    large.add_argument("--order-size", type=_integer(300, 1_000_000), help="bytes of the properties of an order")
    large.add_argument("--daily-share", type=float, help="share of everything that is new or changes on an added day")
    large.add_argument(
        "--added-days",
        type=_integer(0, 10_000),
        help="days after the end date (default: up to now, if --until is not set, so that the account grows every day)",
    )


_LARGE = ("metrics", "lists", "properties", "order_size", "daily_share", "added_days")
_SIZES = ("members", "events", "days", "until")
_EVENTS_IN_MEMORY = 10**8


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Options]:
    """Return the settings and the options of the account. Exit with a message if they do not fit together."""
    settings = _parser().parse_args(arguments)
    given = {name: getattr(settings, name) for name in (*_SIZES, *_LARGE) if getattr(settings, name) is not None}
    alien = [name for name in _LARGE if name in given]
    if not settings.large and alien:
        sys.exit(f"--{alien[0].replace('_', '-')} is an option of large accounts. Add --large.")
    if not settings.large and given.get("events", 0) > _EVENTS_IN_MEMORY:
        sys.exit(f"An account with more than {_EVENTS_IN_MEMORY:,} events does not fit into memory. Add --large.")
    names = {"account": settings.account, "seed": settings.seed}
    if not settings.large:
        return settings, Options(**names, **given)
    try:
        options = DerivedOptions(**names, **given)
    except ValueError as error:
        sys.exit(f"{error}.")
    has_end = settings.until is not None or settings.added_days is not None
    return settings, options if has_end else options.grown_until(datetime.now(UTC))


def _chaos(rate: float, seed: int) -> Chaos:
    try:
        return Chaos(rate, seed)
    except ValueError as error:
        sys.exit(f"Invalid --chaos-rate: {error}.")


def _listen(port: int) -> socket.socket:
    try:
        return listen(port)
    except OSError as error:
        sys.exit(f"Cannot listen on port {port}: {error.strerror}.")


def _exit_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments, generate the account and serve it."""
    settings, options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    if settings.exit_on_eof:
        Thread(target=_exit_at_end_of_input, daemon=True).start()
    chaos, listener = _chaos(settings.chaos_rate, settings.chaos_seed), _listen(settings.port)
    account = derive(options) if isinstance(options, DerivedOptions) else generate(options)
    limiter = Limiter() if settings.limits == "published" else None
    state = ServerState(account, limiter, settings.latency_ms / 1000, legacy=settings.legacy, chaos=chaos)
    app = application(state)
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    print(f"Account {settings.account} is ready at {url} with key {API_KEY}", flush=True)
    serve(app, listener)


if __name__ == "__main__":
    main()
