"""`python -m benchmarks.people_server PORT PEOPLE`: an account of people and their events, derived from their numbers.

It serves the current API as far as a daily run needs it, holds one time for each person in memory and nothing else, and
counts the requests that it answers. It knows nothing of the project.
"""

import argparse
import json
import re
from array import array
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from time import sleep
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

PROPERTIES = 20
_BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
_DAYS = 1_000  # over which profiles changed
_EVENTS_BEGAN = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=6)
_EVENT_SECONDS = 5 * 86_400
_KINDS = ("even", "minute", "second", "burst")
_BOUND = re.compile(r"(greater|less)-than\((\w+),([^)]+)\)")


class People:
    """The account: `kind` says how the times of the last change are spread.

    Evenly, all in one minute, all in one second, or nine of ten in one hour.
    """

    def __init__(self, people: int, events: int, kind: str) -> None:
        self.people, self.events, self.version, self.latency = people, events, 0, 0.0
        self.updated = array("q", self._times(kind))
        self.requests: dict[str, int] = {}
        self._lock = Lock()

    def _times(self, kind: str) -> Any:
        first, span = int(_BEGAN.timestamp()), _DAYS * 86_400
        if kind == "minute":
            return (first + number * 60 // self.people for number in range(self.people))
        if kind == "second":
            return (first for _ in range(self.people))
        if kind == "burst":
            spread = max(1, self.people // 10)
            early = [first + number * span // spread for number in range(spread)]
            return sorted(
                [*early, *(first + span // 2 + n * 3_600 // self.people for n in range(self.people - spread))]
            )
        return (first + number * span // self.people for number in range(self.people))

    def note(self, path: str) -> None:
        with self._lock:
            self.requests[path] = self.requests.get(path, 0) + 1

    def profile(self, number: int) -> dict[str, Any]:
        updated = _moment(self.updated[number])
        properties = {f"Property {each}": f"value {number % 997} {each}" for each in range(PROPERTIES)}
        properties["Property 7"] = f"version {self.version}"
        consent = {"consent": "SUBSCRIBED", "consent_timestamp": updated, "list_suppressions": [], "suppression": []}
        return {
            "email": f"person{number}@example.com",
            "first_name": f"First {number % 1000}",
            "last_name": f"Last {number % 5000}",
            "phone_number": None,
            "created": _moment(int(_BEGAN.timestamp()) - 86_400 + number),
            "updated": updated,
            "location": {"city": "Cork", "country": "Ireland", "zip": str(number % 90_000)},
            "properties": properties,
            "subscriptions": {"email": {"marketing": consent}},
        }


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


def _id(number: int) -> str:
    return f"01H{number:023d}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    account: People

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        name = url.path.strip("/")
        if name == "control":
            return self._control(query)
        self.account.note(f"{name} any" if "any(id" in query.get("filter", "") else name)
        sleep(self.account.latency)
        answers = {"api/profiles": self._profiles, "api/events": self._events}
        self._answer(answers[name](query) if name in answers else _few(name))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.account.note("counts")
        self._answer({"data": {"type": "metric-aggregate", "id": "x", "attributes": {"dates": [], "data": []}}})

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""

    def _control(self, query: dict[str, str]) -> None:
        if "version" in query:
            self.account.version = int(query["version"])
        if "latency" in query:
            self.account.latency = float(query["latency"])
        counted = dict(self.account.requests)
        if "reset" in query:
            self.account.requests.clear()
        self._answer(counted)

    def _profiles(self, query: dict[str, str]) -> Any:
        account = self.account
        if ids := re.search(r"any\(id,\[(.*)\]\)", query.get("filter", "")):
            numbers: Any = [int(each[4:-1]) for each in ids[1].split(",")]
            following = None
        else:
            numbers, following = self._range(query, account.updated)
        fields = query["fields[profile]"].split(",")
        extra = ["subscriptions"] if "additional-fields[profile]" in query else []
        data = []
        for number in numbers:
            person = account.profile(number)
            attributes = {name: person[name] for name in (*fields, *extra) if name in person}
            data.append({"type": "profile", "id": _id(number), "attributes": attributes})
        return {"data": data, "links": {"next": following}}

    def _range(self, query: dict[str, str], times: Any) -> tuple[Any, str | None]:
        first, last = 0, len(times)
        for kind, _, text in _BOUND.findall(query.get("filter", "")):
            at = int(datetime.fromisoformat(text).timestamp())
            if kind == "greater":
                first = bisect_right(times, at)
            else:
                last = bisect_left(times, at)
        if query.get("sort", "").startswith("-"):
            numbers = range(last - 1, first - 1, -1)
        else:
            numbers = range(first, max(first, last))
        offset, size = int(query.get("page[cursor]", 0)), int(query.get("page[size]", 20))
        following = None
        if offset + size < len(numbers):
            host = f"http://{self.headers['Host']}{urlsplit(self.path).path}?"
            following = host + urlencode({**query, "page[cursor]": str(offset + size)})
        return numbers[offset : offset + size], following

    def _events(self, query: dict[str, str]) -> Any:
        account = self.account
        numbers, following = self._range(query, _EventTimes(account.events))
        data, included = [], {}
        fields = query.get("fields[profile]", "email").split(",")
        for number in numbers:
            person = number * 7_919 % account.people
            at = int(_EVENTS_BEGAN.timestamp()) + number * _EVENT_SECONDS // account.events
            data.append(
                {
                    "type": "event",
                    "id": f"E{number:010d}",
                    "attributes": {
                        "timestamp": at,
                        "event_properties": {"Subject": f"Mail {number % 50}", "n": number},
                    },
                    "relationships": {
                        "profile": {"data": {"type": "profile", "id": _id(person)}},
                        "metric": {"data": {"type": "metric", "id": "OPEN"}},
                    },
                }
            )
            if person not in included:
                values = account.profile(person)
                attributes = {name: values[name] for name in fields if name in values}
                included[person] = {"type": "profile", "id": _id(person), "attributes": attributes}
        return {"data": data, "included": list(included.values()), "links": {"next": following}}

    def _answer(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.api+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _EventTimes:
    """The times of the events, in order."""

    def __init__(self, events: int) -> None:
        self._events, self._first = events, int(_EVENTS_BEGAN.timestamp())

    def __len__(self) -> int:
        return self._events

    def __getitem__(self, number: int) -> int:
        return self._first + number * _EVENT_SECONDS // self._events


def _few(name: str) -> Any:
    if name == "api/accounts":
        return {"data": [{"type": "account", "id": "PEOPLE", "attributes": {"test_account": True}}]}
    if name == "api/metrics":
        return {"data": [{"type": "metric", "id": "OPEN", "attributes": {"name": "Opened Email"}}], "links": {}}
    return {"data": [], "links": {}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore that a reader was killed."""


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("people", type=int)
    parser.add_argument("--events", type=int, default=1_000)
    parser.add_argument("--kind", choices=_KINDS, default="even")
    options = parser.parse_args()
    _Handler.account = People(options.people, options.events, options.kind)
    _Server(("127.0.0.1", options.port), _Handler).serve_forever()


if __name__ == "__main__":
    main()
