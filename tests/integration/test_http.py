"""Requests over a real socket: what is sent, what is tried again, and how failures are told."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

from klaviyo_pg.errors import (
    BadAnswer,
    BadKey,
    Garbled,
    KlaviyoPgError,
    MissingScope,
    NotFound,
    Refused,
    Throttled,
    TooMuch,
    Unavailable,
    WrongDialect,
)
from klaviyo_pg.klaviyo.http import Client, Endpoint, Patience
from klaviyo_pg.klaviyo.limits import Limit, Pace

KEY = "pk_0123456789abcdef"
EVENTS = Endpoint("api/x", "events:read")
ONCE = Patience(timeout=5, attempts=1, budget=5)


class Answer(NamedTuple):
    """What the server sends; `length` is what it says of the body's length, `delay` seconds before it says anything."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None
    delay: float = 0


class Asked(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Server:
    """Answers in turn, the last answer again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [Answer()]
        self.asked: list[Asked] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.asked.append(Asked(self.command, self.path, dict(self.headers), body))
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                time.sleep(answer.delay)
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):  # of a client that has given up
                    self.wfile.write(answer.body)
                self.close_connection = answer.length is not None

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

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
    """A server on this machine."""
    running = Server()
    yield running
    running.close()


@pytest.fixture
def client(server: Server) -> Iterator[Callable[..., Client]]:
    """Makes clients of the server that carry the key in a header, and in the query as the legacy API wants it."""
    made: list[Client] = []

    def client(patience: Patience = ONCE, url: str | None = None, pace: Pace | None = None) -> Client:
        headers = {"Authorization": f"Klaviyo-API-Key {KEY}"}
        made.append(Client(url or server.url, headers, {"api_key": KEY}, patience, pace))
        return made[-1]

    yield client
    for each in made:
        each.__exit__(None, None, None)


def refused(status: int, detail: str = "") -> Answer:
    return Answer(status, json.dumps({"errors": [{"detail": detail}]}).encode())


def test_a_request_carries_its_parameters_and_the_key(client: Callable[..., Client], server: Server) -> None:
    """Path and parameters as given, and what goes into every request."""
    server.answers = [Answer(body=b'{"a":1}')]
    assert client().get("api/events", {"filter": "equals(a,'ü&')"}) == b'{"a":1}'
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("GET", f"/api/events?filter=equals%28a%2C%27%C3%BC%26%27%29&api_key={KEY}")
    assert asked.headers["Authorization"] == f"Klaviyo-API-Key {KEY}"
    assert asked.headers["User-Agent"] == "klaviyo-pg"


def test_a_post_carries_json(client: Callable[..., Client], server: Server) -> None:
    """The legacy API wants to be asked like that."""
    client().post(Endpoint("api/v2/list/L1/get-members"), {"emails": ["zoë@example.com"]})
    assert server.asked[0].method == "POST"
    assert json.loads(server.asked[0].body) == {"emails": ["zoë@example.com"]}


def test_a_link_of_an_answer_is_followed_as_it_is(client: Callable[..., Client], server: Server) -> None:
    """It repeats the parameters of the request before."""
    client().get(f"{server.url}/api/events?page%5Bcursor%5D=abc%3D")
    assert server.asked[0].path.startswith("/api/events?page%5Bcursor%5D=abc%3D")


def test_a_base_url_with_a_path_keeps_it(client: Callable[..., Client], server: Server) -> None:
    """A proxy may serve the API below a path of its own."""
    client(url=f"{server.url}/proxy/").get("api/events")
    assert server.asked[0].path.startswith("/proxy/api/events?")


@pytest.mark.parametrize("link", ["http://127.0.0.1:1/api", "https://127.0.0.1/api", "//example.com/api", "ftp://x/"])
def test_a_link_to_another_host_is_refused(client: Callable[..., Client], server: Server, link: str) -> None:
    """The key must not leave for where an answer points."""
    with pytest.raises(
        BadAnswer, match=r"^The API answered with a link to another host \(.*\), which is not followed\.$"
    ):
        client().get(link)
    assert server.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused(client: Callable[..., Client], server: Server, status: int) -> None:
    """Not even one to the same host."""
    server.answers = [Answer(status, headers=(("Location", "/elsewhere"),)), Answer()]
    with pytest.raises(BadAnswer, match=rf"redirect \({status}\), which is not followed\.$"):
        client().get("api/events")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        pytest.param(refused(401, KEY), BadKey, r"does not accept the API key: set KLAVIYO_API_KEY", id="401"),
        pytest.param(refused(403, "no permission"), MissingScope, r"lacks the scope events:read", id="403"),
        pytest.param(refused(403, "Missing scope of the API key."), MissingScope, r"events:read", id="403 of a scope"),
        pytest.param(
            refused(403, "The API key is invalid."), BadKey, r"does not accept the API key", id="403 of a key"
        ),
        pytest.param(refused(404, "No such list."), NotFound, r"^GET /api/x: No such list\.", id="404"),
        pytest.param(Answer(404, b"<html>"), NotFound, r"^GET /api/x: not found", id="404 without a word"),
        pytest.param(refused(410), WrongDialect, r"retired on 2024-06-30: set KLAVIYO_DIALECT=current", id="410"),
        pytest.param(
            refused(400, "Bad filter."), Refused, r"^GET /api/x: the API answered 400: Bad filter\.", id="400"
        ),
        pytest.param(Answer(400, b'{"message":"No."}'), Refused, r"answered 400: No\.", id="400 of the legacy API"),
        pytest.param(Answer(418, b"\xff"), Refused, r"answered 418: no reason given", id="418 of nobody"),
        pytest.param(Answer(204, b""), Refused, r"answered 204: no reason given", id="no content"),
    ],
)
def test_refusals_are_told_and_not_tried_again(
    client: Callable[..., Client], server: Server, answer: Answer, error: type[KlaviyoPgError], sentence: str
) -> None:
    """Each by what the user can do about it."""
    server.answers = [answer]
    with pytest.raises(error, match=sentence) as caught:
        client(Patience(5, 5, 5)).get("api/x", {"filter": "a"}, EVENTS)
    assert type(caught.value) is error
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 524])
def test_what_may_pass_is_tried_again(client: Callable[..., Client], server: Server, status: int) -> None:
    """And counted."""
    server.answers = [refused(status), Answer(body=b"[1]")]
    it = client(Patience(5, 3, 30))
    assert it.get("api/x") == b"[1]"
    assert it.traffic[:2] == (2, 1)
    assert len(server.asked) == 2
    before = it.traffic
    it.get("api/x")
    assert it.traffic.since(before)[:2] == (1, 0)
    assert it.traffic.seconds > before.seconds > 0


def test_attempts_are_bounded(client: Callable[..., Client], server: Server) -> None:
    """After the last one it is told."""
    server.answers = [refused(500)]
    it = client(Patience(5, 2, 30))
    with pytest.raises(Unavailable, match=r"^GET /api/x: the API answered 500\.$"):
        it.get("api/x")
    assert len(server.asked) == 2 and it.traffic[:2] == (2, 1)


def test_time_is_bounded(client: Callable[..., Client], server: Server) -> None:
    """However many attempts there are."""
    server.answers = [refused(503)]
    began = time.monotonic()
    with pytest.raises(Unavailable):
        client(Patience(5, 1000, 1)).get("api/x")
    assert time.monotonic() - began < 10
    assert 1 <= len(server.asked) < 20


def test_a_wait_that_the_api_asks_for_is_kept(client: Callable[..., Client], server: Server) -> None:
    """Retry-After is seconds, and waiting less would only be refused again."""
    server.answers = [Answer(429, headers=(("Retry-After", "1.5"),)), Answer()]
    began = time.monotonic()
    client(Patience(5, 3, 30)).get("api/x")
    assert 1.5 <= time.monotonic() - began < 20


def test_waiting_for_the_limit_is_no_failure(client: Callable[..., Client], server: Server) -> None:
    """However few tries there are: the budget of time decides, and then the run is to be continued."""
    server.answers = [Answer(429, headers=(("Retry-After", "1"),))] * 3 + [Answer(body=b"[1]")]
    assert client(Patience(5, 1, 30)).get("api/x") == b"[1]"
    server.answers = [Answer(429, headers=(("Retry-After", "1"),))]
    with pytest.raises(Throttled, match="goes on where it stopped"):
        client(Patience(5, 1, 2)).get("api/x")


def test_all_threads_keep_to_what_one_was_told(client: Callable[..., Client], server: Server) -> None:
    """An endpoint that wants a pause is not asked by another client of the same pace meanwhile."""
    pace = Pace(1.0, 30)
    server.answers = [Answer(429, headers=(("Retry-After", "2"),)), Answer()]
    one, other = client(Patience(5, 3, 30), pace=pace), client(Patience(5, 3, 30), pace=pace)
    endpoint = Endpoint("api/x", limit=Limit(10, 100), name="x")
    thread = Thread(target=one.get, args=("api/x", None, endpoint))
    thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    other.get("api/x", None, endpoint)
    thread.join()
    assert 1.0 <= time.monotonic() - began < 20
    assert len(server.asked) == 3


def test_what_cannot_be_read_is_asked_for_again(client: Callable[..., Client], server: Server) -> None:
    """A page of a proxy, or half an answer that looks whole: twice, whatever else fails, and then it is told."""

    def read(body: bytes) -> bytes:
        if body != b"[1]":
            raise Garbled
        return body

    server.answers = [refused(503), refused(502), Answer(body=b"<html>"), Answer(body=b"[1"), Answer(body=b"[1]")]
    assert client(Patience(5, 8, 30)).get("api/x", read=read) == b"[1]"
    server.answers = [Answer(body=b"<html>")]
    before = len(server.asked)
    with pytest.raises(BadAnswer, match="KLAVIYO_BASE_URL"):
        client(Patience(5, 8, 30)).get("api/x", read=read)
    assert len(server.asked) - before == 3


def test_an_answer_without_end_is_not_read_to_its_end(client: Callable[..., Client], server: Server) -> None:
    """A few kilobytes can expand to any size: they are given up, in little memory."""
    server.answers = [Answer(body=gzip.compress(bytes(400 << 20)), headers=(("Content-Encoding", "gzip"),))]
    with pytest.raises(TooMuch, match="more than"):
        client(Patience(30, 1, 30)).get("api/x")


def test_a_wait_beyond_all_patience_is_not_begun(client: Callable[..., Client], server: Server) -> None:
    """An hour is not waited for where there are ten seconds."""
    server.answers = [Answer(429, headers=(("Retry-After", "3600"),))]
    began = time.monotonic()
    with pytest.raises(Unavailable):
        client(Patience(5, 3, 10)).get("api/x")
    assert time.monotonic() - began < 5 and len(server.asked) == 1


@pytest.mark.parametrize("text", ["", "soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT", "nan", "1e9", "²"])
def test_a_wait_that_is_none_is_ignored(client: Callable[..., Client], server: Server, text: str) -> None:
    """Then the wait is our own."""
    server.answers = [Answer(429, headers=(("Retry-After", text.encode().decode("latin-1")),)), Answer()]
    began = time.monotonic()
    client(Patience(5, 3, 30)).get("api/x")
    assert time.monotonic() - began < 20 and len(server.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(body=b'{"data":[', length=1000), id="cut off"),
        pytest.param(Answer(body=b"not gzip", headers=(("Content-Encoding", "gzip"),)), id="not compressed as it says"),
        pytest.param(Answer(delay=1), id="too slow"),
    ],
)
def test_half_an_answer_is_none(client: Callable[..., Client], server: Server, answer: Answer) -> None:
    """It is tried again, and where that does not help it is told; what came is not used."""
    server.answers = [answer, Answer(body=b"whole")]
    assert client(Patience(0.5, 2, 30)).get("api/x") == b"whole"
    server.answers = [answer]
    with pytest.raises(Unavailable, match=r"^GET /api/x: .*\.$"):
        client(Patience(0.5, 1, 30)).get("api/x")


def test_a_compressed_answer_is_read(client: Callable[..., Client], server: Server) -> None:
    """Pages are large, and compress well."""
    server.answers = [Answer(body=gzip.compress(b"x" * 9999), headers=(("Content-Encoding", "gzip"),))]
    assert client().get("api/x") == b"x" * 9999


def test_nobody_listens(client: Callable[..., Client]) -> None:
    """It may be a restart, or a wrong address."""
    with pytest.raises(
        Unavailable, match=r"no connection to 127\.0\.0\.1:1: check KLAVIYO_BASE_URL and the network\.$"
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
        pytest.param(Answer(delay=1), id="too slow"),
    ],
)
def test_no_error_tells_the_key(client: Callable[..., Client], server: Server, answer: Answer) -> None:
    """Neither its text, nor its repr, nor what it came from; the key stands in header and query."""
    server.answers = [answer]
    with pytest.raises(KlaviyoPgError) as caught:
        client(Patience(0.5, 1, 5)).get(f"api/x?api_key={KEY}", {"other": KEY}, EVENTS)
    assert KEY in server.asked[0].path
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in f"{error} {error!r}"
        assert error.__suppress_context__ or error.__context__ is None
        error = error.__cause__


def test_netrc_is_not_used(
    client: Callable[..., Client], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that lies about for this host does not take the place of the key."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    it = client()
    it._session.trust_env = True  # as of an address with https
    it.get("api/x")
    assert server.asked[0].headers["Authorization"] == f"Klaviyo-API-Key {KEY}"


def test_a_proxy_does_not_see_plain_requests(
    client: Callable[..., Client], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request to this machine stays on it."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    client().get("api/x")
    assert len(server.asked) == 1
