"""Hostile answers over a real socket: a request ends at its deadline, or earlier if the run is stopped."""

import threading
import time
from collections.abc import Iterator

import pytest

from klaviyo_pg.errors import BadAnswer, KlaviyoPgError, Refused, Stopped, Throttled, TooMuch, Unavailable
from klaviyo_pg.klaviyo.client import Client
from klaviyo_pg.klaviyo.pace import Pace
from klaviyo_pg.klaviyo.retries import Patience
from pipeline.stop import StopFlag
from tests.hostile import ANSWERS, HostileServer

ENDLESS = (
    "says nothing",
    "TLS: says nothing",
    "TLS: drips a handshake",
    "drips the status line",
    "100 Continue without end",
    "100 Continue every second",
    "drips the headers",
    "drips chunks",
    "drips trailers",
    "drips the body every 0.1 s",
)
SLOW = 100  # seconds; each of these answers takes longer
OTHER_LIMIT = 60  # seconds; the limit of a request that does not apply
PROMPT = OTHER_LIMIT / 2  # seconds; a request takes longer if the wrong limit ends it


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[HostileServer]:
    """A server that gives one of the hostile answers."""
    with HostileServer(ANSWERS[request.param]) as running:
        yield running


def ask(server: HostileServer, patience: Patience, stop: StopFlag | None = None) -> bytes:
    """Send one request."""
    pace = Pace(1.0, patience.budget, check=(stop or StopFlag()).check)
    with Client(server.url, {"Authorization": "secret"}, patience=patience, pace=pace) as client:
        return client.get("api/x")


@pytest.mark.parametrize("server", ENDLESS, indirect=True)
def test_a_request_ends_at_its_deadline(server: HostileServer) -> None:
    """However the time is spent: each byte that arrives would start an ordinary timeout again."""
    threads = set(threading.enumerate())
    began = time.monotonic()
    with pytest.raises(TooMuch, match=r"no complete response within 0\.5 seconds \(REQUEST_TIMEOUT_SECONDS\)"):
        ask(server, Patience(0.5, 1, OTHER_LIMIT))
    assert time.monotonic() - began < PROMPT
    assert not [each for each in set(threading.enumerate()) - threads if "look up" in each.name]


@pytest.mark.parametrize("server", (*ENDLESS, "503 with Retry-After: 1, always"), indirect=True)
def test_a_stop_ends_a_request(server: HostileServer) -> None:
    """It does not wait for the response, nor for the end of a pause before a retry."""
    stop, errors = StopFlag(), list[KlaviyoPgError]()

    def read() -> None:
        try:
            ask(server, Patience(3600, 9999, 3600), stop)
        except KlaviyoPgError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert server.was_asked.wait(SLOW)
    stop.request(Stopped())
    thread.join(SLOW)
    assert not thread.is_alive() and [type(error) for error in errors] == [Stopped]


@pytest.mark.parametrize(
    "server",
    ["429 with Retry-After: 999999999", "429 with a Retry-After of 400 digits", "503 with Retry-After: 999999999"],
    indirect=True,
)
def test_a_pause_beyond_the_budget_is_not_begun(server: HostileServer) -> None:
    """The next run resumes, as after any pause that is too long."""
    began = time.monotonic()
    with pytest.raises(Throttled, match=r"another 1000000000 s|pause of 999999999 s|another 999999999 s"):
        ask(server, Patience(OTHER_LIMIT, 8, OTHER_LIMIT))
    assert time.monotonic() - began < PROMPT


@pytest.mark.parametrize(
    "server", ["429 with Retry-After: 1, always", "503 with Retry-After: 1, always"], indirect=True
)
def test_pauses_add_up_to_the_budget(server: HostileServer) -> None:
    """No pause is begun that would end after it."""
    began = time.monotonic()
    with pytest.raises(Unavailable):
        ask(server, Patience(OTHER_LIMIT, 9999, 1.5))
    assert time.monotonic() - began < PROMPT


@pytest.mark.parametrize("server", ["empty members of gzip without end"], indirect=True)
def test_decompression_ends_at_the_deadline(server: HostileServer) -> None:
    """Even if the server sends faster than its members can be decompressed."""
    began = time.monotonic()
    with pytest.raises(TooMuch, match="REQUEST_TIMEOUT_SECONDS"):
        ask(server, Patience(0.5, 1, OTHER_LIMIT))
    assert time.monotonic() - began < PROMPT


def test_a_link_of_any_length_is_refused() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(BadAnswer, match=r"^The API returned a link of 100,001"):
        client.get("/" + "x" * 100_000)


@pytest.mark.parametrize("server", ["400 with escape sequences"], indirect=True)
def test_the_text_of_an_error_is_printable(server: HostileServer) -> None:
    """It cannot clear a screen or forge a line of a log."""
    with pytest.raises(Refused, match=r"returned 400: �\[2J�\[31mERROR� 2026-01-01 \| all is well") as caught:
        ask(server, Patience(60, 1, 60))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("server", ["400 with a detail of 5 MB", "400 with a body without end"], indirect=True)
def test_an_error_is_read_up_to_a_limit(server: HostileServer) -> None:
    with pytest.raises(Refused) as caught:
        ask(server, Patience(60, 1, 60))
    assert len(str(caught.value)) < 1000
