"""Requests over a real socket: their content, the retries, and the errors for failures."""

import gzip
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import pytest

from klaviyo_pg.errors import (
    BadAnswer,
    BadKey,
    Garbled,
    KlaviyoPgError,
    MissingScope,
    NotFound,
    PageTooLarge,
    Refused,
    Throttled,
    TooMuch,
    Unavailable,
    WrongDialect,
)
from klaviyo_pg.klaviyo import client as client_module
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.pace import Limit, Pace
from klaviyo_pg.klaviyo.retries import Patience

KEY = "pk_0123456789abcdef"
EVENTS = Endpoint("api/x", "events:read")
ONCE = Patience(timeout=60, attempts=1, budget=60)
SLOW = 100  # seconds; a limit for waits of seconds, far below the budgets of these tests


class Answer(NamedTuple):
    """A response of the server, after `delay` seconds. `length` replaces the true Content-Length."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None
    delay: float = 0


class Received(NamedTuple):
    """A request as the server received it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


class Server:
    """A server that sends its answers in turn and repeats the last one."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [Answer()]
        self.received: list[Received] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.received.append(Received(self.command, self.path, dict(self.headers), body, time.monotonic()))
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                time.sleep(answer.delay)
                self.send_response_only(answer.status)  # without a date
                self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):  # the client has given up
                    self.wfile.write(answer.body)
                self.close_connection = answer.length is not None

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server on this machine."""
    running = Server()
    yield running
    running.close()


@pytest.fixture
def client(server: Server) -> Iterator[Callable[..., Client]]:
    """A factory of clients that send the key in a header, and in the query as the legacy API expects it."""
    clients: list[Client] = []

    def client(patience: Patience = ONCE, url: str | None = None, pace: Pace | None = None) -> Client:
        headers = {"Authorization": f"Klaviyo-API-Key {KEY}"}
        clients.append(Client(url or server.url, headers, {"api_key": KEY}, patience, pace))
        return clients[-1]

    yield client
    for each in clients:
        each.__exit__(None, None, None)


def refused(status: int, detail: str = "") -> Answer:
    return Answer(status, json.dumps({"errors": [{"detail": detail}]}).encode())


@pytest.mark.parametrize(
    ("answer", "year"),
    [
        pytest.param(Answer(headers=(("Date", "Mon, 02 Feb 2026 10:00:00 GMT"),)), 2026, id="a date"),
        pytest.param(Answer(headers=(("Date", "Mon, 02 Feb 2026 10:00:00 -0000"),)), 2026, id="an odd zone"),
        pytest.param(Answer(headers=(("Date", "yesterday"),)), None, id="no date"),
        pytest.param(Answer(headers=(("Date", "Fri, 31 Dec 9999 23:59:59 GMT"),)), None, id="the last date"),
        pytest.param(Answer(headers=(("Date", "Mon, 02 Feb 2026 10:00:00 GMT"), ("Age", "60"))), None, id="cached"),
        pytest.param(Answer(404, headers=(("Date", "Mon, 02 Feb 2026 10:00:00 GMT"),)), None, id="an error"),
    ],
)
def test_the_date_of_a_response_is_the_api_s_time(
    client: Callable[..., Client], server: Server, answer: Answer, year: int | None
) -> None:
    """It continues from there. Dates of errors and caches do not count: they may be another server's, or old."""
    server.answers, reader = [answer], client()
    assert reader.api_time is None
    with suppress(NotFound):
        reader.get("api/events")
    first = reader.api_time
    assert (first and first.year) == year
    if first is not None:
        assert (later := reader.api_time) and first < later < first + timedelta(minutes=1)


def test_a_request_carries_its_parameters_and_the_key(client: Callable[..., Client], server: Server) -> None:
    """The path, its parameters, and the parameters and headers of every request are sent."""
    server.answers = [Answer(body=b'{"a":1}')]
    assert client().get("api/events", {"filter": "equals(a,'ü&')"}) == b'{"a":1}'
    (request,) = server.received
    assert (request.method, request.path) == (
        "GET",
        f"/api/events?filter=equals%28a%2C%27%C3%BC%26%27%29&api_key={KEY}",
    )
    assert request.headers["Authorization"] == f"Klaviyo-API-Key {KEY}"
    assert request.headers["User-Agent"] == "klaviyo-pg"


def test_a_post_carries_json_and_is_repeated(client: Callable[..., Client], server: Server) -> None:
    """It only reads, so a retry is safe; it counts as one. A link replaces the path."""
    server.answers = [Answer(429, headers=(("Retry-After", "0"),)), Answer()]
    reader, endpoint = client(Patience(attempts=2)), Endpoint("api/v2/list/L1/get-members")
    reader.post(endpoint, {"emails": ["zoë@example.com"]})
    reader.post(endpoint, {}, link=f"{server.url}/api/next?page_cursor=2")
    assert [each.method for each in server.received] == ["POST"] * 3
    assert [json.loads(each.body) for each in server.received] == [{"emails": ["zoë@example.com"]}] * 2 + [{}]
    assert server.received[2].path.startswith("/api/next?page_cursor=2")
    assert reader.traffic[:2] == (3, 1)


def test_a_link_is_followed_unchanged(client: Callable[..., Client], server: Server) -> None:
    """A link already contains the parameters of the first request."""
    client().get(f"{server.url}/api/events?page%5Bcursor%5D=abc%3D")
    assert server.received[0].path.startswith("/api/events?page%5Bcursor%5D=abc%3D")


def test_a_base_url_with_a_path_keeps_it(client: Callable[..., Client], server: Server) -> None:
    """A proxy can serve the API below a path."""
    client(url=f"{server.url}/proxy/").get("api/events")
    assert server.received[0].path.startswith("/proxy/api/events?")


@pytest.mark.parametrize("link", ["http://127.0.0.1:1/api", "https://127.0.0.1/api", "//example.com/api", "ftp://x/"])
def test_a_link_to_another_host_is_refused(client: Callable[..., Client], server: Server, link: str) -> None:
    """The key must not be sent to another host."""
    with pytest.raises(
        BadAnswer, match=r"^The API returned a link to another host \(.*\), which is not followed .*KLAVIYO_BASE_URL\.$"
    ):
        client().get(link)
    assert server.received == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused(client: Callable[..., Client], server: Server, status: int) -> None:
    """This includes a redirect to the same host."""
    server.answers = [Answer(status, headers=(("Location", "/elsewhere"),)), Answer()]
    with pytest.raises(BadAnswer, match=rf"redirect \({status}\), which is not followed\. Check KLAVIYO_BASE_URL\.$"):
        client().get("api/events")
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        pytest.param(refused(401, KEY), BadKey, r"does not accept the API key\. Set KLAVIYO_API_KEY", id="401"),
        pytest.param(refused(403, "no permission"), MissingScope, r"lacks the scope events:read", id="403"),
        pytest.param(refused(403, "Missing scope of the API key."), MissingScope, r"events:read", id="403 of a scope"),
        pytest.param(
            refused(403, "The API key is invalid."), BadKey, r"does not accept the API key", id="403 of a key"
        ),
        pytest.param(refused(404, "No such list."), NotFound, r"^GET /api/x: No such list\.", id="404"),
        pytest.param(Answer(404, b"<html>"), NotFound, r"^GET /api/x: not found", id="404 without a reason"),
        pytest.param(refused(410), WrongDialect, r"retired on 2024-06-30\. Set KLAVIYO_DIALECT=current", id="410"),
        pytest.param(
            refused(400, "Bad filter."), Refused, r"^GET /api/x: the API returned 400: Bad filter\.", id="400"
        ),
        pytest.param(
            Answer(400, b'{"errors":[{"detail":"Too many.","source":{"parameter":"page[size]"}}]}'),
            PageTooLarge,
            r"^GET /api/x: the API returned 400: Too many\.",
            id="400 of a parameter page[size]",
        ),
        pytest.param(
            Answer(400, b'{"errors":[{"source":{"pointer":"/page/size"}}]}'),
            PageTooLarge,
            r"returned 400: the page size is not accepted",
            id="400 of a pointer to the page size",
        ),
        pytest.param(
            refused(400, "Page size must be from 1 to 100."), PageTooLarge, r"Page size must", id="400 of a page size"
        ),
        pytest.param(refused(404, "No page size."), NotFound, r"No page size\.", id="404 that names a page size"),
        pytest.param(Answer(400, b'{"message":"No."}'), Refused, r"returned 400: No\.", id="400 of the legacy API"),
        pytest.param(Answer(418, b"\xff"), Refused, r"returned 418: no reason given", id="418 without a reason"),
        pytest.param(Answer(204, b""), Refused, r"returned 204: no reason given", id="no content"),
    ],
)
def test_refusals_raise_an_error_without_a_retry(
    client: Callable[..., Client], server: Server, answer: Answer, error: type[KlaviyoPgError], message: str
) -> None:
    """Each error explains how to solve the problem."""
    server.answers = [answer]
    with pytest.raises(error, match=message) as caught:
        client(Patience(60, 5, 60)).get("api/x", {"filter": "a"}, EVENTS)
    assert type(caught.value) is error
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 520, 522, 524, 530, 599])
def test_temporary_failures_are_retried(client: Callable[..., Client], server: Server, status: int) -> None:
    """Retries are counted."""
    server.answers = [refused(status), Answer(body=b"[1]")]
    it = client(Patience(60, 3, 300))
    assert it.get("api/x") == b"[1]"
    assert it.traffic[:2] == (2, 1)
    assert len(server.received) == 2
    before = it.traffic
    it.get("api/x")
    assert it.traffic.since(before)[:2] == (1, 0)
    assert it.traffic.seconds > before.seconds > 0


def test_attempts_are_bounded(client: Callable[..., Client], server: Server) -> None:
    """After the last attempt, the failure is raised."""
    server.answers = [refused(500)]
    it = client(Patience(60, 2, 300))
    with pytest.raises(
        Unavailable, match=r"^GET /api/x: the API returned 500\. Rerun with the same arguments to resume\.$"
    ):
        it.get("api/x")
    assert len(server.received) == 2 and it.traffic[:2] == (2, 1)


def test_time_is_bounded(client: Callable[..., Client], server: Server) -> None:
    """The budget ends the retries, however many attempts are left."""
    server.answers = [refused(503)]
    began = time.monotonic()
    with pytest.raises(Unavailable):
        client(Patience(60, 1000, 1)).get("api/x")
    assert time.monotonic() - began < SLOW
    assert 1 <= len(server.received) < 20


def test_retry_after_is_respected(client: Callable[..., Client], server: Server) -> None:
    """Retry-After is in seconds. An earlier request would be refused again."""
    server.answers = [Answer(429, headers=(("Retry-After", "1.5"),)), Answer()]
    began = time.monotonic()
    client(Patience(60, 3, 300)).get("api/x")
    assert time.monotonic() - began < SLOW
    assert server.received[1].at - server.received[0].at >= 1.5


def test_waiting_for_the_rate_limit_is_not_a_failure(client: Callable[..., Client], server: Server) -> None:
    """The number of attempts does not limit the wait; the budget does. Then the run can be resumed."""
    server.answers = [Answer(429, headers=(("Retry-After", "1"),))] * 3 + [Answer(body=b"[1]")]
    assert client(Patience(60, 1, 300)).get("api/x") == b"[1]"
    server.answers = [Answer(429, headers=(("Retry-After", "1"),))]
    with pytest.raises(Throttled, match="to resume"):
        client(Patience(60, 1, 2)).get("api/x")


def test_all_clients_of_a_pace_wait_for_retry_after(client: Callable[..., Client], server: Server) -> None:
    """During the pause, no client that shares the pace sends a request to the endpoint."""
    waiting = Event()

    class Watched(Pace):
        def close(self, endpoint: str, seconds: float) -> None:
            super().close(endpoint, seconds)
            waiting.set()

    pace = Watched(1.0, 300)
    server.answers = [Answer(429, headers=(("Retry-After", "2"),)), Answer()]
    first, second = client(Patience(60, 3, 300), pace=pace), client(Patience(60, 3, 300), pace=pace)
    endpoint = Endpoint("api/x", limit=Limit(10, 100), name="x")
    thread = Thread(target=first.get, args=("api/x", None, endpoint))
    thread.start()
    assert waiting.wait(SLOW)
    second.get("api/x", None, endpoint)
    thread.join()
    refusal, *others = server.received
    assert len(others) == 2
    assert all(other.at - refusal.at >= 2 for other in others)


def test_a_pause_covers_both_limits_of_an_endpoint(client: Callable[..., Client], server: Server) -> None:
    """The response does not say which of them is used up."""
    pace, limit = Pace(1.0, 300), Limit(10, 100)
    server.answers = [Answer(429, headers=(("Retry-After", "3600"),))]
    with pytest.raises(Throttled):
        client(pace=pace).get("api/x", None, Endpoint("api/x", limit=limit, name="x", also=("y", limit)))
    for name in ("x", "y"):
        with pytest.raises(Throttled, match=f"limit for {name} is used up"):
            pace.wait(name, limit)


def test_garbled_responses_are_retried_twice(client: Callable[..., Client], server: Server) -> None:
    """A proxy can return HTML or a truncated body. Other failures do not count towards these retries."""

    def read(body: bytes) -> bytes:
        if body != b"[1]":
            raise Garbled
        return body

    server.answers = [refused(503), refused(502), Answer(body=b"<html>"), Answer(body=b"[1"), Answer(body=b"[1]")]
    assert client(Patience(60, 8, 300)).get("api/x", read=read) == b"[1]"
    server.answers = [Answer(body=b"<html>")]
    before = len(server.received)
    with pytest.raises(BadAnswer, match="KLAVIYO_BASE_URL"):
        client(Patience(60, 8, 300)).get("api/x", read=read)
    assert len(server.received) - before == 3


def test_a_huge_response_is_not_read_to_its_end(client: Callable[..., Client], server: Server) -> None:
    """A few kilobytes can expand to any size. Reading stops before memory runs out."""
    server.answers = [Answer(body=gzip.compress(bytes(100 << 20)), headers=(("Content-Encoding", "gzip"),))]
    with pytest.raises(TooMuch, match="larger than 64 MB"):
        client(Patience(300, 1, 300)).get("api/x")


def test_a_wait_beyond_the_budget_is_not_started(client: Callable[..., Client], server: Server) -> None:
    """If the API demands an hour and the budget is less, the request fails at once."""
    server.answers = [Answer(429, headers=(("Retry-After", "3600"),))]
    began = time.monotonic()
    with pytest.raises(Unavailable):
        client(Patience(60, 3, 1000)).get("api/x")
    assert time.monotonic() - began < SLOW and len(server.received) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_no_pause_is_not_asked_without_end(
    client: Callable[..., Client], server: Server, status: int
) -> None:
    """The usual back-off applies, so that the budget is used up after a few tries."""
    server.answers = [Answer(status, headers=(("Retry-After", "0"),))]
    with pytest.raises(Unavailable, match=f"returned {status}"):
        client(Patience(60, 1000, 1)).get("api/x")
    assert 1 <= len(server.received) < 20


DATED = ("Date", "Mon, 02 Feb 2026 23:59:59 GMT")


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        pytest.param((DATED, ("Retry-After", "Tue, 03 Feb 2026 00:00:01 GMT")), 2, id="after the response"),
        pytest.param((DATED, ("Retry-After", "Tue, 03 Feb 2026 01:00:01 +0100")), 2, id="in another zone"),
        pytest.param((DATED, ("Retry-After", "Mon, 02 Feb 2026 20:00:00 GMT")), 0, id="in the past"),
        pytest.param((("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),), 0, id="of a response without a date"),
    ],
)
def test_retry_after_can_be_a_date(
    client: Callable[..., Client], server: Server, headers: tuple[tuple[str, str], ...], least: float
) -> None:
    """The date of the response says how far ahead it is, whatever time this machine has."""
    server.answers = [Answer(429, headers=headers), Answer()]
    client(Patience(60, 3, 300)).get("api/x")
    first, second = server.received
    assert least <= second.at - first.at < SLOW


@pytest.mark.parametrize("has_date", [True, False])
def test_a_retry_after_date_beyond_the_budget_ends_the_request(
    client: Callable[..., Client], server: Server, has_date: bool
) -> None:
    """A pause of 2,000 seconds does not begin."""
    now = datetime.now(UTC)
    headers = {"Retry-After": now + timedelta(seconds=2000), **({"Date": now} if has_date else {})}
    server.answers = [Answer(503, headers=tuple((name, format_datetime(at)) for name, at in headers.items()))]
    with pytest.raises(Throttled, match="asks for a pause of") as caught:
        client(Patience(60, 3, 900)).get("api/x")
    assert 2000 - SLOW < (caught.value.retry_after or 0) <= 2000 and len(server.received) == 1


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "nan", "1e9", "²", "Mon, 99 Feb 2026 10:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"]
)
def test_an_unreadable_retry_after_is_ignored(client: Callable[..., Client], server: Server, text: str) -> None:
    """The usual back-off applies instead."""
    server.answers = [Answer(429, headers=(("Retry-After", text.encode().decode("latin-1")),)), Answer()]
    began = time.monotonic()
    client(Patience(60, 3, 300)).get("api/x")
    assert time.monotonic() - began < SLOW and len(server.received) == 2


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(body=b'{"data":[', length=1000), id="cut off"),
        pytest.param(
            Answer(body=b"not gzip", headers=(("Content-Encoding", "gzip"),)), id="not compressed as declared"
        ),
        pytest.param(Answer(delay=4), id="too slow"),
    ],
)
def test_an_incomplete_response_is_retried(client: Callable[..., Client], server: Server, answer: Answer) -> None:
    """Nothing of an incomplete response is used. If the retry fails, too, an error is raised."""
    server.answers = [answer, Answer(body=b"whole")]
    assert client(Patience(2, 2, 300)).get("api/x") == b"whole"
    server.answers = [answer]
    with pytest.raises(Unavailable, match=r"^GET /api/x: .*\.$"):
        client(Patience(2, 1, 300)).get("api/x")


def test_a_compressed_answer_is_read(client: Callable[..., Client], server: Server) -> None:
    """Pages are large and compress well."""
    server.answers = [Answer(body=gzip.compress(b"x" * 9999), headers=(("Content-Encoding", "gzip"),))]
    assert client().get("api/x") == b"x" * 9999


def test_an_unreachable_host_raises_unavailable(client: Callable[..., Client]) -> None:
    """The host may be restarting, or the URL may be wrong."""
    with pytest.raises(
        Unavailable, match=r"no connection to 127\.0\.0\.1:1\. Check KLAVIYO_BASE_URL and the network\.$"
    ):
        client(url="http://127.0.0.1:1").get("api/x")


@pytest.mark.parametrize(
    "answer",
    [
        *(
            pytest.param(refused(status, "refused"), id=str(status))
            for status in (301, 400, 401, 403, 404, 410, 429, 500)
        ),
        pytest.param(Answer(body=b"x", length=9), id="cut off"),
        pytest.param(Answer(delay=4), id="too slow"),
    ],
)
def test_no_error_shows_the_key(client: Callable[..., Client], server: Server, answer: Answer) -> None:
    """The key is in the header and the query, but not in the error, its repr or its cause."""
    server.answers = [answer]
    with pytest.raises(KlaviyoPgError) as caught:
        client(Patience(2, 1, 5)).get(f"api/x?api_key={KEY}", {"other": KEY}, EVENTS)
    assert KEY in server.received[0].path
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in f"{error} {error!r}"
        assert error.__suppress_context__ or error.__context__ is None
        error = error.__cause__


def test_no_log_record_shows_the_key(
    client: Callable[..., Client], server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The legacy API expects the key in the query, which urllib3 logs at level DEBUG."""
    caplog.set_level(logging.DEBUG, "urllib3")  # by name, since Klaviyo's SDK sets it to WARNING in other tests
    server.answers = [refused(500), Answer()]
    client(Patience(60, 3, 300)).get("api/x", {"count": "1"})
    assert "api_key=..." in caplog.text
    assert KEY not in caplog.text
    assert not any(KEY in str(vars(record)) for record in caplog.records)


def test_no_repr_shows_the_key(client: Callable[..., Client]) -> None:
    """Neither a client nor its requests show the key where they are printed."""
    it = client()
    request = client_module._Request("GET", f"{it._base}api/x?api_key={KEY}", it._parameters, b"", EVENTS)
    assert KEY not in f"{it!r} {request!r} {request}"


def test_many_clients_redact_log_records_once(client: Callable[..., Client]) -> None:
    """Logging keeps one filter, however many clients a process opens."""
    client(), client()
    filters = logging.getLogger("urllib3.connectionpool").filters
    assert filters.count(client_module._redact_key) == 1


def test_netrc_is_not_used(
    client: Callable[..., Client], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password for the same host does not replace the key."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    it = client()
    it._session.trust_env = True  # as for an https URL
    it.get("api/x")
    assert server.received[0].headers["Authorization"] == f"Klaviyo-API-Key {KEY}"


def test_plain_requests_do_not_use_a_proxy(
    client: Callable[..., Client], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain HTTP request, which is allowed to this machine only, is not sent to a proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    client().get("api/x")
    assert len(server.received) == 1
