"""A server of event pages that costs next to nothing: a simulated account whose events follow from their numbers.

It knows what a backfill asks for and no more: no limits, no faults, no profiles beyond those on pages of events. Run it
as a separate process, so that its time is not that of the loader.
"""

import argparse
import json
import re
import socketserver
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

PAGE = 1_000  # events
_QUARTER = 900  # seconds in which each metric has one page
_ROOT = Path(__file__).resolve().parent.parent
_EMPTY = b'{"data":[],"links":{"self":null,"next":null,"prev":null}}'
_METRIC = re.compile(r'equals\(metric_id,"?([^")]+)"?\)')
_FROM = re.compile(r"greater-(?:than|or-equal)\((?:datetime|timestamp),([^)]+)\)")
_TO = re.compile(r"less-(?:than|or-equal)\((?:datetime|timestamp),([^)]+)\)")
_STRIDE = 7_919  # a prime, so that people come in no order
_NAMES = ("Received Email", "Opened Email", "Placed Order", "Clicked Email", "Viewed Product", "Active on Site")
_EVENT = (
    b'{"type":"event","id":"%b","attributes":{"timestamp":%d,"event_properties":PROPERTIES%b},"relationships":{'
    b'"profile":{"data":{"type":"profile","id":"%b"},"links":{"self":"BASE/api/events/%b/relationships/profile/",'
    b'"related":"BASE/api/events/%b/profile/"}},"metric":{"data":{"type":"metric","id":"METRIC"},"links":{'
    b'"self":"BASE/api/events/%b/relationships/metric/","related":"BASE/api/events/%b/metric/"}}%b},"links":{'
    b'"self":"BASE/api/events/%b/"}}'
)
_REFERENCE = b',"attributions":{"data":[{"type":"attribution","id":"%b:A"}]}'
_ATTRIBUTION = (
    b'{"type":"attribution","id":"%b:A","relationships":{"event":{"data":{"type":"event","id":"%b"}},'
    b'"attributed-event":{"data":{"type":"event","id":"E00%09d"}},"campaign":{"data":{"type":"campaign","id":"C%02d"}},'
    b'"campaign-message":{"data":{"type":"campaign-message","id":"M%02d"}},"flow":{"data":null}}}'
)


@dataclass(frozen=True)
class Options:
    """The size and the kind of the account. `kind` is that of properties: small (about 360 characters) or orders.

    Each event whose number is a multiple of `attributed` is attributed to another one; 0: none is.
    """

    events: int = 200_000
    people: int = 2_000
    metrics: int = 4
    kind: str = "small"
    attributed: int = 0

    @property
    def pages_per_metric(self) -> int:
        """The number of pages of each metric."""
        return max(1, self.events // PAGE // self.metrics)


def properties(number: int) -> dict[str, object]:
    """Return the properties of an event of an email: about 360 characters as JSON."""
    return {
        "$event_id": f"0{number % 7}ABCDEFGH:9007199254740{number:03}",
        "$message": f"MSG{number % 20:03}",
        "$_cohort$message_send_cohort": f"1790000000:MSG{number % 20:03}",
        "Campaign Name": f"Autumn sale, Høst, part {number % 20}",
        "Subject": "Everything for the garden, now at half the price",
        "Email Domain": "example.com",
        "Client Name": "Apple Mail",
        "Client OS": "iOS",
        "Inbox Provider": "Gmail",
        "$ESP": 0,
    }


def order(number: int) -> dict[str, object]:
    """Return the properties of an order: about 2,000 characters as JSON."""
    item = {
        "ProductID": f"SKU-{number:06}",
        "ProductName": "Garden chair «Åse», solid wood, weatherproof",
        "Quantity": 1 + number % 3,
        "ItemPrice": 49.95,
        "RowTotal": 49.95,
        "ProductURL": "https://shop.example.com/products/garden-chair-ase-solid-wood-weatherproof",
        "ImageURL": "https://cdn.example.com/images/garden-chair-ase-solid-wood-weatherproof.jpg",
        "Categories": ["Garden", "Chairs", "Wood"],
        "Brand": "Åse",
    }
    address = {
        "FirstName": "Kari",
        "Address1": "Storgata 1",
        "City": "Oslo",
        "Zip": "0155",
        "Country": "Norway",
    }
    return {
        "$event_id": f"order-{number}",
        "$value": 149.85,
        "$value_currency": "NOK",
        "OrderId": str(1_000_000 + number),
        "ItemNames": [item["ProductName"]] * 3,
        "Items": [item] * 3,
        "DiscountCode": "AUTUMN",
        "DiscountValue": 0,
        "BillingAddress": address,
        "ShippingAddress": address,
    }


_KINDS = {"small": properties, "orders": order}


class Span(NamedTuple):
    """The half-open range of pages that a query asks for, of one metric or (None) of all."""

    first: int
    end: int
    metric: int | None


class FakeAccount:
    """The account: event number n of a metric is calculated, not stored."""

    def __init__(self, options: Options, base: str) -> None:
        self.options, self._base = options, base.encode()
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        days = 1 + options.pages_per_metric * _QUARTER // 86_400
        self.start = midnight - timedelta(days=days)
        self._began = int(self.start.timestamp())
        self._bodies = [
            json.dumps(_KINDS[options.kind](number), ensure_ascii=number % 2 == 0, separators=(",", ":"))
            .encode()
            .replace(b"%", b"%%")
            for number in range(50)
        ]

    def metric_id(self, number: int) -> str:
        """Return the id of a metric."""
        return f"METR{number:02}"

    @cached_property
    def _templates(self) -> list[list[bytes]]:
        return [
            [
                _EVENT.replace(b"BASE", self._base)
                .replace(b"METRIC", self.metric_id(metric).encode())
                .replace(b"PROPERTIES%b", body)
                for body in self._bodies
            ]
            for metric in range(self.options.metrics)
        ]

    @cached_property
    def _person_ids(self) -> list[bytes]:
        return [b"01JPERSON%017d" % number for number in range(self.options.people)]

    @cached_property
    def _people(self) -> list[bytes]:
        return [
            b'{"type":"profile","id":"%b","attributes":{"email":"person.%d@example.com"},"links":{"self":'
            b'"%b/api/profiles/%b/"}}' % (person_id, number, self._base, person_id)
            for number, person_id in enumerate(self._person_ids)
        ]

    def metrics(self) -> bytes:
        """Return the document of all metrics."""
        data = [
            {
                "type": "metric",
                "id": self.metric_id(number),
                "attributes": {
                    "name": _NAMES[number] if number < len(_NAMES) else f"Metric {number}",
                    "created": "2020-01-01T00:00:00+00:00",
                    "updated": "2020-01-01T00:00:00+00:00",
                    "integration": {"category": "Internal"},
                },
            }
            for number in range(self.options.metrics)
        ]
        return json.dumps({"data": data, "links": {"next": None}}).encode()

    def span(self, filters: str) -> Span:
        """Return the pages that a filter asks for."""
        found = _METRIC.search(filters)
        metric = int(found[1].removeprefix("METR")) if found else None
        pages = self.options.pages_per_metric
        first = self._quarter(_FROM, filters, 0)
        end = min(pages, max(first, self._quarter(_TO, filters, pages - 1, rounds_up=True)))
        if metric is None:
            return Span(first * self.options.metrics, end * self.options.metrics, None)
        return Span(first, end, metric)

    def _quarter(self, pattern: re.Pattern[str], filters: str, default: int, rounds_up: bool = False) -> int:
        found = pattern.search(filters)
        if not found:
            return default + rounds_up
        moment = datetime.fromisoformat(found[1].replace("Z", "+00:00"))
        seconds = int(moment.timestamp()) - self._began + (0 if rounds_up else 1)  # windows begin a second early
        return max(0, -(-seconds // _QUARTER) if rounds_up else seconds // _QUARTER)

    def page(self, span: Span, query: dict[str, str]) -> bytes:
        """Return a page and the link to the next one."""
        if span.first >= span.end:
            return _EMPTY
        metrics = self.options.metrics
        quarter, metric = divmod(span.first, metrics) if span.metric is None else (span.first, span.metric)
        numbers = range(quarter * PAGE, quarter * PAGE + PAGE)
        slot = _QUARTER // metrics
        began = self._began + quarter * _QUARTER + metric * slot
        people, count, templates = self._person_ids, self.options.people, self._templates[metric]
        chosen = [(number * _STRIDE + metric) % count for number in numbers]
        events, attributions = [], []
        step = self.options.attributed
        for place, (number, person) in enumerate(zip(numbers, chosen, strict=True)):
            event_id, reference = b"E%02d%09d" % (metric, number), b""
            if step and number % step == 0:
                reference = _REFERENCE % event_id
                attributions.append(_ATTRIBUTION % (event_id, event_id, number, number % 20, number % 20))
            events.append(
                templates[number % 50]
                % (
                    event_id,
                    began + place * slot // PAGE,
                    people[person],
                    event_id,
                    event_id,
                    event_id,
                    event_id,
                    reference,
                    event_id,
                )
            )
        included = b",".join([*(self._people[person] for person in dict.fromkeys(chosen)), *attributions])
        parts = [b'{"data":[', b",".join(events), b'],"included":[', included, b'],"links":{"next":']
        return b"".join([*parts, self._next(span, query), b"}}"])

    def _next(self, span: Span, query: dict[str, str]) -> bytes:
        if span.first + 1 >= span.end:
            return b"null"
        cursor = f"{span.first + 1}.{span.end}.{'' if span.metric is None else span.metric}"
        return json.dumps(f"{self._base.decode()}/api/events?{urlencode({**query, 'page[cursor]': cursor})}").encode()

    def counts(self, body: bytes) -> bytes:
        """Return an aggregate: the events of each hour."""
        asked = json.loads(body)["data"]["attributes"]
        filters = ",".join([*asked["filter"], f'equals(metric_id,"{asked["metric_id"]}")'])
        span = self.span(filters)
        hours = range(span.first // 4, -(-span.end // 4))
        dates = [(self.start + timedelta(hours=hour)).isoformat() for hour in hours]
        totals = [PAGE * (min(span.end, hour * 4 + 4) - max(span.first, hour * 4)) for hour in hours]
        attributes = {"dates": dates, "data": [{"dimensions": [], "measurements": {"count": totals}}]}
        return json.dumps({"data": {"type": "metric-aggregate", "id": "1", "attributes": attributes}}).encode()


class _Handler(socketserver.StreamRequestHandler):
    account: FakeAccount
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while line := self.rfile.readline():
            length = 0
            while (header := self.rfile.readline()) not in (b"\r\n", b""):
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            method, target, _ = line.decode().split(" ")
            content = self._answer(method, target, self.rfile.read(length))
            date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.api+json\r\nDate: {date}\r\nContent-Length: "
            self.connection.sendall(f"{head}{len(content)}\r\n\r\n".encode())
            self.connection.sendall(content)

    def _answer(self, method: str, target: str, body: bytes) -> bytes:
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        match url.path.strip("/"):
            case "api/accounts":
                return b'{"data":[{"type":"account","id":"FAKE01","attributes":{}}],"links":{"next":null}}'
            case "api/metrics":
                return self.account.metrics()
            case "api/metric-aggregates":
                return self.account.counts(body)
            case "api/events":
                return self.account.page(self._span(query), query)
        return _EMPTY

    def _span(self, query: dict[str, str]) -> Span:
        if cursor := query.get("page[cursor]"):
            first, end, metric = cursor.split(".")
            return Span(int(first), int(end), int(metric) if metric else None)
        return self.account.span(unquote(query.get("filter", "")))


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of an account to a parser."""
    parser.add_argument("--events", type=int, default=Options.events)
    parser.add_argument("--people", type=int, default=Options.people)
    parser.add_argument("--metrics", type=int, default=Options.metrics)
    parser.add_argument("--kind", choices=sorted(_KINDS), default=Options.kind)
    parser.add_argument("--attributed", type=int, default=Options.attributed, help="attribute each Nth event")


def options_of(parsed: argparse.Namespace) -> Options:
    """Return the options of an account from parsed arguments."""
    return Options(parsed.events, parsed.people, parsed.metrics, parsed.kind, parsed.attributed)


class Served(NamedTuple):
    """A running server: its address, and the first day of its account."""

    url: str
    start: datetime


@contextmanager
def serving(options: Options) -> Iterator[Served]:
    """Run the server in another process while the block runs."""
    sizes = [f"--{name}={getattr(options, name)}" for name in Options.__dataclass_fields__]
    command: Sequence[str] = [sys.executable, "-m", "benchmarks.fake_api", *sizes]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url, start = server.stdout.readline().split()
            yield Served(url, datetime.fromisoformat(start))
        finally:
            server.terminate()


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser)
    options = options_of(parser.parse_args())
    with _Server(("127.0.0.1", 0), _Handler) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        _Handler.account = FakeAccount(options, url)
        _Handler.account.page(Span(0, 1, None), {})  # renders what all pages share
        print(url, _Handler.account.start.isoformat(), flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
