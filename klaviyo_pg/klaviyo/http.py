"""Requests to one host: authorised, counted, retried, and their failures translated. Knows no dialect.

What goes wrong is told without the query of the URL and without headers: keys can stand in both.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
import stamina
from stamina.instrumentation import set_on_retry_hooks
from urllib3.exceptions import ReadTimeoutError

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
from klaviyo_pg.klaviyo.limits import Limit, Pace

_RETRIABLE_STATUSES = frozenset({500, 502, 503, 504, 524})
_TRIES_OF_GARBLED = 3  # an address that is not the API's answers so every time
_TRIES_OF_TOO_MUCH = 2  # where less can be asked for
_FIRST_WAIT = 0.5  # seconds, doubled from try to try
_LONGEST_WAIT = 60.0  # seconds, unless the API asks for more
_PIECE = 16 << 20  # bytes
_LARGEST_ANSWER = 128 << 20  # bytes, decompressed: a page of events has been seen with 2 MB
_KEY = re.compile(r"(api_key=)[^&\s]*")
_CONNECT_TIMEOUT = 10.0  # seconds
_TO_BE_CONTINUED = "The same command goes on where it stopped; RETRY_BUDGET_SECONDS is how long a run waits."

Answer = TypeVar("Answer")

set_on_retry_hooks(())  # stamina would log what it retries; `Traffic` counts it instead


class _WithoutKey(logging.Filter):
    """Takes keys out of what urllib3 logs: the legacy API wants them in the URL."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_KEY.sub(r"\1...", part) if isinstance(part, str) else part for part in record.args)
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_WithoutKey())


class Traffic(NamedTuple):
    """Requests sent, how many of them were sent again, and the seconds that answers took."""

    requests: int = 0
    retries: int = 0
    seconds: float = 0.0

    def since(self, earlier: "Traffic") -> "Traffic":
        return Traffic(*(now - then for now, then in zip(self, earlier, strict=True)))  # type: ignore[arg-type]

    @staticmethod
    def total(parts: "Iterable[Traffic]") -> "Traffic":
        return Traffic(*(sum(each) for each in zip(Traffic(), *parts, strict=True)))


@dataclass(frozen=True)
class Patience:
    """How long to wait for an answer and how often to try: seconds, tries, and seconds over all tries."""

    timeout: float = 120.0
    attempts: int = 8
    budget: float = 900.0


class Endpoint(NamedTuple):
    """A path of the API: what its limit is called by, the scopes that it takes, the rows that a page may hold.

    A page size of 0: there is no such parameter. Without a limit it is asked as fast as it answers.
    """

    path: str
    scopes: str = ""
    limit: Limit | None = None
    page_size: int = 0
    name: str = ""


def _as_read(body: bytes) -> Any:
    return body


class Client:
    """A connection to the API that is kept open. Not to be shared between threads.

    `parameters` go into every query, `headers` into every request; neither ever leaves for another host.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._base = base_url.rstrip("/") + "/"
        self._parameters = dict(parameters or {})
        self._patience = patience or Patience()
        self._pace = pace or Pace(1.0, self._patience.budget)
        self._session = requests.Session()
        self._session.trust_env = self._base.startswith("https:")  # a proxy would see all of a plain http request
        self._session.auth = _as_it_is
        self._session.headers.update({"User-Agent": "klaviyo-pg", **(headers or {})})
        self.traffic = Traffic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._session.close()

    def get(
        self,
        path: str,
        parameters: Mapping[str, str] | None = None,
        endpoint: Endpoint | None = None,
        body: object = None,
        read: Callable[[bytes], Answer] = _as_read,
        can_be_less: bool = False,
    ) -> Answer:
        """What `read` makes of the answer to a GET; one that it cannot read is asked for again.

        `path` is relative to the base URL, or a link of an earlier answer. `endpoint` says how often it may be asked
        for, and which scopes to name where the key turns out to lack them. A GET may have a JSON body: the legacy API's
        way to be asked for addresses. With `can_be_less` an answer that takes too long raises TooMuch soon. Raises the
        errors of klaviyo_pg.errors.
        """
        asked = None if body is None else msgspec.json.encode(body)
        return self._request("GET", path, parameters, asked, endpoint or Endpoint(path), read, can_be_less)

    def post(self, endpoint: Endpoint, body: object, read: Callable[[bytes], Answer] = _as_read) -> Answer:
        """What `read` makes of the answer to a POST of JSON."""
        return self._request("POST", endpoint.path, None, msgspec.json.encode(body), endpoint, read, False)

    def _request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None,
        body: bytes | None,
        endpoint: Endpoint,
        read: Callable[[bytes], Answer],
        can_be_less: bool,
    ) -> Answer:
        url = self._own(path)
        query = {**(parameters or {}), **self._parameters}
        tries = stamina.retry_context(
            on=_Tries(self._patience, can_be_less).wait_for,
            attempts=None,
            timeout=self._patience.budget,
            wait_initial=_FIRST_WAIT,
            wait_max=_LONGEST_WAIT,
        )
        for attempt in tries:
            with attempt:
                self._pace.wait(endpoint.name, endpoint.limit)
                return read(self._timed(attempt.num > 1, method, url, query, body, endpoint))
        raise AssertionError("a retry context either answers or raises")

    def _timed(
        self, is_retry: bool, method: str, url: str, query: Mapping[str, str], body: bytes | None, endpoint: Endpoint
    ) -> bytes:
        requests, retries, seconds = self.traffic
        self.traffic = Traffic(requests + 1, retries + is_retry, seconds)
        asked = monotonic()
        try:
            return self._once(method, url, query, body, endpoint)
        finally:
            self.traffic = self.traffic._replace(seconds=seconds + monotonic() - asked)

    def _own(self, path: str) -> str:
        """The URL of a path, or a link as it is; refused where it leads to another host."""
        url = urljoin(self._base, path)
        here, there = urlsplit(self._base), urlsplit(url)
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise BadAnswer(f"The API answered with a link to another host ({there.hostname}), which is not followed.")
        return url

    def _once(self, method: str, url: str, query: Mapping[str, str], body: bytes | None, endpoint: Endpoint) -> bytes:
        what = f"{method} {urlsplit(url).path}"
        try:
            answer = self._session.request(
                method,
                url,
                params=query,
                data=body,
                headers={} if body is None else {"Content-Type": "application/json"},
                timeout=(_CONNECT_TIMEOUT, self._patience.timeout),
                allow_redirects=False,
                stream=True,
            )
            content = _content(answer)
        except requests.exceptions.SSLError:
            raise BadAnswer(f"{what}: the host's TLS certificate is not valid: check KLAVIYO_BASE_URL.") from None
        except requests.exceptions.Timeout:
            raise TooMuch(f"{what}: no answer within {self._patience.timeout:g} seconds.") from None
        except requests.exceptions.ContentDecodingError:
            raise Unavailable(f"{what}: the answer could not be decompressed.") from None
        except requests.exceptions.ChunkedEncodingError:
            raise Unavailable(f"{what}: the connection broke in the middle of the answer.") from None
        except requests.exceptions.ConnectionError as error:
            if error.args and isinstance(error.args[0], ReadTimeoutError):
                raise TooMuch(f"{what}: no answer within {self._patience.timeout:g} seconds.") from None
            host = urlsplit(self._base).netloc
            raise Unavailable(f"{what}: no connection to {host}: check KLAVIYO_BASE_URL and the network.") from None
        except requests.exceptions.RequestException as error:
            raise BadAnswer(f"{what}: {type(error).__name__}.") from None
        if answer.status_code == requests.codes.ok:
            self._pace.learn(endpoint.name, answer.headers.get("ratelimit-limit"))
            return content
        refusal = _error(what, answer, content, endpoint.scopes)
        if isinstance(refusal, Throttled) and refusal.retry_after is not None:
            self._pace.close(endpoint.name, refusal.retry_after)
        raise refusal


class _Tries:
    """What is worth trying again, and when. Waiting for the API's limit counts as no failure."""

    def __init__(self, patience: Patience, can_be_less: bool) -> None:
        self._patience, self._can_be_less = patience, can_be_less
        self._failed = self._garbled = self._too_much = 0

    def wait_for(self, error: Exception) -> bool | float:
        """Whether to try again: after how many seconds, or (True) after a while."""
        if isinstance(error, Throttled):
            if error.retry_after is None:
                return True
            return 0.0 if error.retry_after <= self._patience.budget else False  # the pace waits, and can be stopped
        self._failed += 1
        if self._failed >= self._patience.attempts:
            return False
        match error:
            case Garbled():
                self._garbled += 1
                return self._garbled < _TRIES_OF_GARBLED
            case TooMuch() if self._can_be_less:
                self._too_much += 1
                return self._too_much < _TRIES_OF_TOO_MUCH
            case Unavailable():
                return True if error.retry_after is None else min(error.retry_after, _LONGEST_WAIT)
        return False


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from putting a password of ~/.netrc in the place of our key."""
    return request


def _content(answer: requests.Response) -> bytes:
    """The whole body. Read in large pieces: each piece gives the interpreter to other threads and wants it back."""
    pieces, size = [], 0
    for piece in answer.iter_content(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > _LARGEST_ANSWER:
            answer.close()
            raise TooMuch(f"The API answered with more than {_LARGEST_ANSWER >> 20} MB.")
    return b"".join(pieces) if len(pieces) > 1 else pieces[0] if pieces else b""


def _error(what: str, answer: requests.Response, content: bytes, scopes: str) -> KlaviyoPgError:
    status = answer.status_code
    if status == 429:
        wait = _retry_after(answer)
        again = "" if wait is None else f"; it wants to be asked again in {wait:g} s"
        return Throttled(f"{what}: the API answered 429, its rate limit is used up{again}. {_TO_BE_CONTINUED}", wait)
    if status in _RETRIABLE_STATUSES:
        return Unavailable(f"{what}: the API answered {status}.", _retry_after(answer))
    detail = _detail(content)
    match status:
        case 401:
            return BadKey()
        case 403 if "api key" in detail.lower() and "scope" not in detail.lower():
            return BadKey()
        case 403:
            return MissingScope(scopes)
        case 404:
            return NotFound(f"{what}: {detail or 'not found'}")
        case 410:
            return WrongDialect()
        case _ if 300 <= status < 400:
            return BadAnswer(f"{what}: the API answered with a redirect ({status}), which is not followed.")
    return Refused(f"{what}: the API answered {status}: {detail or 'no reason given'}")


def _retry_after(answer: requests.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.replace(".", "", 1).isdecimal() else None


class _Detail(msgspec.Struct):
    detail: str | None = None


class _Errors(msgspec.Struct):
    errors: list[_Detail] = []
    detail: str | None = None
    message: str | None = None


def _detail(body: bytes) -> str:
    """What the API says of its refusal, in either dialect; empty where it says nothing readable."""
    try:
        answer = msgspec.json.decode(body, type=_Errors)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    details = [error.detail for error in answer.errors if error.detail]
    return "; ".join(details) or answer.detail or answer.message or ""
