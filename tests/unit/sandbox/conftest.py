"""Accounts for the unit tests of the sandbox, some on a server that runs in this process, without a network."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from sandbox.account import Account, Options, generate
from sandbox.api.keys import API_KEY
from sandbox.server.application import application
from sandbox.server.limiter import Limiter
from sandbox.server.state import ServerState

OPTIONS = Options(members=600, events=20_000, days=30)
LONG_AGO = "1000000000"
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="session")
def account() -> Account:
    """An account that tests must not change."""
    return generate(OPTIONS)


@pytest.fixture
def make_account() -> Callable[[], Account]:
    """A function that generates a small account for a test to change."""
    return lambda: generate(Options(members=60, events=500, days=10))


@dataclass
class Server:
    """A server and a client for it."""

    state: ServerState
    app: Starlette

    @property
    def account(self) -> Account:
        return self.state.account

    def send(self, method: str, path: str, key: str | None = API_KEY, **options: Any) -> httpx.Response:
        """Send a request with the key as a query parameter."""
        parameters = {**options.pop("params", {}), **({} if key is None else {"api_key": key})}
        if parameters:  # an empty dictionary would remove the query from the path
            options["params"] = parameters

        async def answer() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
                return await client.request(method, path, **options)

        return asyncio.run(answer())

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON that a GET below /api/ answers with status 200."""
        answer = self.send("GET", f"/api/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def status(self, path: str, **parameters: Any) -> int:
        """Return the status that a GET below /api/ answers with."""
        return self.send("GET", f"/api/{path}", params=parameters).status_code

    def current(self, path: str, **parameters: Any) -> Any:
        """Return the JSON that a GET in the current dialect answers with status 200."""
        headers = {"authorization": f"Klaviyo-API-Key {API_KEY}", "revision": "2026-07-15"}
        answer = self.send("GET", f"/api/{path}", None, params=parameters, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def timeline(self, path: str, since: str | None = LONG_AGO, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield all events of a timeline."""
        start = {} if since is None else {"since": since}
        while True:
            page = self.get(path, **{"count": 100, "sort": "asc", **parameters, **start})
            assert page["object"] == "$list" and page["count"] == len(page["data"])
            yield from page["data"]
            if page["next"] is None:
                return
            start = {"since": page["next"]}

    def pages(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield all rows of a collection with numbered pages, read until a page contains the last row."""
        for number in range(1000):
            page = self.get(path, page=number, **parameters)
            assert (page["object"], page["page"], page["page_size"]) == ("$list", number, len(page["data"]))
            yield from page["data"]
            if page["end"] >= page["total"] - 1:
                return

    def add_events(self, *events: dict[str, Any]) -> list[Any]:
        """Add events through the control API."""
        answer = self.send("POST", "/sandbox/events", json=events)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["ids"])


def serve(options: Options, limiter: Limiter | None = None) -> Server:
    state = ServerState(generate(options), limiter)
    return Server(state, application(state))


@pytest.fixture(scope="session")
def shared() -> Server:
    """A server with an account that tests must not change. It ends last midnight and has events in the future."""
    return serve(Options(members=400, events=4000, days=40, until=MIDNIGHT))


@pytest.fixture
def own() -> Server:
    """A server with an account for one test to change."""
    return serve(Options(members=60, events=300, days=20))


@pytest.fixture
def limited() -> Server:
    """A server with the published limits and a clock that stands still."""
    return serve(Options(members=20, events=50, days=5), Limiter(lambda: 1_000_000.25))
