"""The start of a command: Prefect's server, a sandbox and Postgres start while the command imports its modules.

This module imports nothing that takes time, because the server takes longest and must start first.
"""

import gc
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from klaviyo_pg.cli.demo import DemoAccount
from klaviyo_pg.environment import override
from klaviyo_pg.errors import BadSettings
from tasks.server import ExistingServer, TemporaryServer, find_or_start

_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PYDANTIC_DISABLE_PLUGINS": "true",  # looking for plugins takes a moment
}
_PEOPLE_PER_EVENT = 6  # in percent


class Startup:
    """Starts things in the background, and stops the sandbox when the block ends.

    `demo` replaces the account by one in a sandbox, and the warehouse by the embedded Postgres. `began` is when the
    command began, on the monotonic clock. Garbage collection is off until `wait` returns: imports make many objects
    that stay.
    """

    def __init__(self, demo: DemoAccount | None, began: float, needs_server: bool = True) -> None:
        self.began = began
        self._demo, self._needs_server = demo, needs_server
        self._server: ExistingServer | TemporaryServer | None = None
        self._waiting: list[Future[Any]] = []

    def __enter__(self) -> Self:
        gc.disable()
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self._needs_server:
            self._server = find_or_start()
        self._stack = ExitStack()
        # Closed before the stack, so that the sandbox is on the stack by then.
        self._threads = ThreadPoolExecutor(thread_name_prefix="startup")
        if self._demo is not None:
            self._sandbox = self._threads.submit(self._start_sandbox, self._demo)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        gc.enable()
        self._threads.shutdown()
        self._stack.close()

    def submit(self, work: Callable[..., object], *arguments: object) -> None:
        """Do some work in the background. `wait` waits for it and raises its error."""
        self._waiting.append(self._threads.submit(work, *arguments))

    def enter(self, context: AbstractContextManager[object]) -> None:
        """Enter a context, and leave it when the block ends."""
        self._stack.enter_context(context)

    def use_sandbox(self) -> None:
        """Wait for the sandbox, if there is one, and let the environment name its account, with all its history."""
        if self._demo is not None:
            override(self._sandbox.result())

    def wait(self) -> None:
        """Wait until everything has started."""
        for each in self._waiting:
            each.result()
        if self._server is not None:
            self._server.wait()
        gc.freeze()
        gc.enable()

    @property
    def starts_server(self) -> bool:
        """True if a temporary server of Prefect is started, which takes seconds."""
        return isinstance(self._server, TemporaryServer)

    @property
    def must_check_server(self) -> bool:
        """True if Prefect's client must check that the server responds."""
        return not (self._server and self._server.responds)

    def _start_sandbox(self, demo: DemoAccount) -> dict[str, str]:
        try:
            from sandbox.account import Options
            from sandbox.derived.options import DerivedOptions
            from sandbox.launcher import running
        except ImportError:
            raise BadSettings("This installation does not include the sandbox. Use a clone of the project.") from None
        options: Options | DerivedOptions = Options()
        settings: dict[str, object] = {}
        if demo.account_id is not None and demo.events is not None:
            members = max(10, demo.events * _PEOPLE_PER_EVENT // 100)
            options = DerivedOptions(demo.account_id, events=demo.events, members=members)
            settings = {"large": True, "account": demo.account_id, "events": demo.events, "members": members}
        box = self._stack.enter_context(running(**settings))
        days = (datetime.now(UTC) - options.until + timedelta(days=options.days + 1)).days
        return {
            "KLAVIYO_BASE_URL": box.url,
            "KLAVIYO_API_KEY": box.api_key,
            "KLAVIYO_ACCOUNT_ID": options.account,
            "FIRST_SYNC_DAYS": str(max(1, days)),
        }
