"""`python -m sandbox`: serve an account on this machine until told to stop."""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NoReturn

import uvicorn

from sandbox.account import Options
from sandbox.broken import with_connection
from sandbox.chaos import Chaos
from sandbox.control import routes
from sandbox.endpoints import endpoints
from sandbox.generate import generate
from sandbox.legacy import legacy_endpoints
from sandbox.limits import Limiter
from sandbox.server import API_KEY, LEGACY_MODES, Box, application

HOST = "127.0.0.1"
_KEEP_ALIVE = 75  # seconds: a client that waits for its database finds its connections open


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message[:1].upper()}{message[1:].rstrip('.')}.\n")


class _Server(uvicorn.Server):
    """Leaves signals to us: a sandbox has nothing to finish when it is told to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _until(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _from(least: int, most: int = 10**9) -> "type[int]":
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return int(text)

    return number  # type: ignore[return-value]


def _parser() -> _Parser:
    known = Options()
    parser = _Parser(prog="python -m sandbox", description="Serve a made-up Klaviyo account over HTTP.")
    parser.add_argument("--port", type=_from(0, 65_535), default=8900, help="0 takes any free port")
    parser.add_argument("--account", default=known.account, help="the account's id")
    parser.add_argument("--seed", type=int, default=known.seed)
    parser.add_argument("--members", type=_from(1), default=known.members)
    parser.add_argument("--events", type=_from(0, 100_000_000), default=known.events)
    parser.add_argument("--days", type=_from(2, 10_000), default=known.days, help="how far back events go")
    parser.add_argument("--until", type=_until, default=known.until, help="the end of the account's time")
    parser.add_argument("--limits", choices=("published", "off"), default="published")
    parser.add_argument("--latency-ms", type=_from(0), default=0, help="how long each answer is held back")
    parser.add_argument(
        "--legacy", choices=LEGACY_MODES, default="on", help="the dialect of v1 and v2: served, 410, or 404"
    )
    parser.add_argument("--chaos-rate", type=float, default=0.0, help="the share of requests that meet a fault")
    parser.add_argument("--chaos-seed", type=int, default=0)
    return parser


def _chaos(rate: float, seed: int) -> Chaos:
    try:
        return Chaos(rate, seed)
    except ValueError as error:
        sys.exit(f"No chaos can be made of that: {error}.")


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for the reader's ACK
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        sys.exit(f"Port {port} cannot be used: {error.strerror}.")
    listener.listen(128)
    return listener


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, generate, listen, serve."""
    given = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    options = Options(given.account, given.seed, given.members, given.events, given.days, given.until)
    chaos = _chaos(given.chaos_rate, given.chaos_seed)
    listener = _listen(given.port)
    account = generate(options)
    limiter = Limiter() if given.limits == "published" else None
    box = Box(account, limiter, given.latency_ms / 1000, legacy=given.legacy, chaos=chaos)
    app = application(box, [*endpoints(account), *legacy_endpoints(account)], routes(box))
    config = uvicorn.Config(
        with_connection(app),
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE,
    )
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    print(f"Account {options.account} is ready at {url} with key {API_KEY}", flush=True)
    _Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
