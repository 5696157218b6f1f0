"""Small accounts that answer in this process, without a network."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from sandbox.account import Options
from sandbox.control import routes
from sandbox.endpoints import endpoints
from sandbox.generate import generate
from sandbox.legacy import legacy_endpoints
from sandbox.limits import Limiter
from sandbox.server import API_KEY, Box, application
from tests.driver import MIDNIGHT

LONG_AGO = "1000000000"


@dataclass
class Asked:
    """An account, and a way to ask it."""

    box: Box
    app: Starlette

    def send(self, method: str, path: str, key: str | None = API_KEY, **given: Any) -> httpx.Response:
        """Any request, the key as a query parameter."""
        parameters = {**given.pop("params", {}), **({} if key is None else {"api_key": key})}
        if parameters:  # an empty dictionary would take the query off the path
            given["params"] = parameters

        async def answer() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
                return await client.request(method, path, **given)

        return asyncio.run(answer())

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON of a good answer to a GET below /api/."""
        answer = self.send("GET", f"/api/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def status(self, path: str, **parameters: Any) -> int:
        """Only the status of the answer."""
        return self.send("GET", f"/api/{path}", params=parameters).status_code

    def current(self, path: str, **parameters: Any) -> Any:
        """The JSON of a good answer in the current dialect."""
        headers = {"authorization": f"Klaviyo-API-Key {API_KEY}", "revision": "2026-07-15"}
        answer = self.send("GET", f"/api/{path}", None, params=parameters, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def walk(self, path: str, since: str | None = LONG_AGO, **parameters: Any) -> Iterator[dict[str, Any]]:
        """All events of a timeline."""
        start = {} if since is None else {"since": since}
        while True:
            page = self.get(path, **{"count": 100, "sort": "asc", **parameters, **start})
            assert page["object"] == "$list" and page["count"] == len(page["data"])
            yield from page["data"]
            if page["next"] is None:
                return
            start = {"since": page["next"]}

    def pages(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """All rows of a collection with numbered pages, read as its old readers did."""
        for number in range(1000):
            page = self.get(path, page=number, **parameters)
            assert (page["object"], page["page"], page["page_size"]) == ("$list", number, len(page["data"]))
            yield from page["data"]
            if page["end"] >= page["total"] - 1:
                return

    def add(self, *events: dict[str, Any]) -> list[Any]:
        """Add events over the control API."""
        answer = self.send("POST", "/sandbox/events", json=events)
        assert answer.status_code == 200, answer.text
        return answer.json()["ids"]


def serve(options: Options, limiter: Limiter | None = None) -> Asked:
    account = generate(options)
    box = Box(account, limiter)
    return Asked(box, application(box, [*endpoints(account), *legacy_endpoints(account)], routes(box)))


@pytest.fixture(scope="session")
def shared() -> Asked:
    """An account that no test changes; it ended last midnight, so that it has events of the future."""
    return serve(Options(members=400, events=4000, days=40, until=MIDNIGHT))


@pytest.fixture
def own() -> Asked:
    """An account for one test."""
    return serve(Options(members=60, events=300, days=20))


@pytest.fixture
def limited() -> Asked:
    """An account with published limits, at a time that stands still."""
    return serve(Options(members=20, events=50, days=5), Limiter(lambda: 1_000_000.25))
