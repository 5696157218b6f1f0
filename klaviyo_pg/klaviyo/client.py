"""Requests to one host: authorised, paced, counted and retried, with failures translated. Knows no dialect.

Errors and log records contain neither the query of a URL nor headers, because both can contain the API key.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import msgspec
import requests
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from klaviyo_pg.errors import (
    BadAnswer,
    BadKey,
    KlaviyoPgError,
    Throttled,
    TooMuch,
    Unavailable,
    Unreachable,
    WrongDialect,
)
from klaviyo_pg.foreign import printable
from klaviyo_pg.klaviyo.deadline import SLICE, BoundedAdapter, Deadline
from klaviyo_pg.klaviyo.lenient import http_date
from klaviyo_pg.klaviyo.pace import Limit, Pace
from klaviyo_pg.klaviyo.refusals import RESUME, beginning, refusal
from klaviyo_pg.klaviyo.retries import Patience, Retries
from klaviyo_pg.uptime import uptime
from klaviyo_pg.waiting import pause

_PIECE = 16 << 20  # bytes; each piece makes the interpreter switch threads, so few large ones are faster
_COMPRESSED_PIECE = 256 << 10  # bytes; between two pieces a hostile one can be decompressed for half a second at most
_LARGEST_RESPONSE = 64 << 20  # bytes, decompressed; the largest page of events seen had 2 MB
_LONGEST_LINK = 32 << 10  # characters; cursors have some hundreds
_KEY_IN_QUERY = re.compile(r"(api_key=)[^&\s]*")

Answer = TypeVar("Answer")


class _RedactKey(logging.Filter):
    """Removes keys from urllib3's log records: the legacy API expects the key in the URL."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _KEY_IN_QUERY.sub(r"\1...", value) if isinstance(value, str) else value for value in record.args
            )
        return True


_REDACT_KEY = _RedactKey()


class Traffic(NamedTuple):
    """The number of requests, how many of them were retries, and the seconds until their responses were read."""

    requests: int = 0
    retries: int = 0
    seconds: float = 0.0

    @property
    def seconds_per_request(self) -> float:
        """The average time until a response was read; 0 without any requests."""
        return self.seconds / max(1, self.requests)

    def since(self, earlier: "Traffic") -> "Traffic":
        return Traffic(*(now - then for now, then in zip(self, earlier, strict=True)))  # type: ignore[arg-type]

    @staticmethod
    def total(several: "Iterable[Traffic]") -> "Traffic":
        return Traffic(*(sum(each) for each in zip(Traffic(), *several, strict=True)))


class Endpoint(NamedTuple):
    """A path of the API, the scopes it requires, its rate limit, its largest page and the name of its limit.

    A page size of 0 means that the endpoint has no such parameter. Without a limit, requests are not paced. `also` is
    the name of another limit that its requests count against, and that limit.
    """

    path: str
    scopes: str = ""
    limit: Limit | None = None
    page_size: int = 0
    name: str = ""
    also: tuple[str, Limit] | None = None

    def of(self, resource_id: str) -> Self:
        """Return the endpoint of one resource, whose ID has its place in the path."""
        return self._replace(path=self.path.format(quote(resource_id, safe="")))


@dataclass(frozen=True)
class _Request:
    """A request. Its query and its URL can contain the key, so no repr shows them."""

    method: str
    url: str = field(repr=False)
    query: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    endpoint: Endpoint

    def __str__(self) -> str:
        return f"{self.method} {printable(urlsplit(self.url).path)}"


def _unchanged(body: bytes) -> Any:
    return body


class Client:
    """A connection to the API that is kept open. Not safe to share between threads.

    `parameters` are added to every query and `headers` to every request. Neither is ever sent to another host.
    `retired` is the error for a response that says that the endpoint is gone, and `refused_key` makes the error for one
    that says that the key is not accepted.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        pace: Pace | None = None,
        retired: type[KlaviyoPgError] = WrongDialect,
        refused_key: Callable[[], BadKey] = BadKey,
    ) -> None:
        logging.getLogger("urllib3.connectionpool").addFilter(_REDACT_KEY)
        self._base = base_url.rstrip("/") + "/"
        self._parameters = dict(parameters or {})
        self._patience = patience or Patience()
        self._pace = pace or Pace(1.0, self._patience.budget)
        self._deadline = Deadline(self._pace.check)
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, BoundedAdapter(self._deadline))
        self._session.trust_env = self._base.startswith("https:")  # a proxy could read all of a plain HTTP request
        self._session.auth = _keep_authorization
        self._session.headers.update({"User-Agent": "klaviyo-pg", **(headers or {})})
        self._retired, self._refused_key = retired, refused_key
        self.traffic = Traffic()
        self._dated: tuple[datetime, float] | None = None  # the time of a response, and the uptime when it came

    @property
    def api_time(self) -> datetime | None:
        """The present according to the last response that had a date; None if none had."""
        if self._dated is None:
            return None
        date, came = self._dated
        return date + timedelta(seconds=uptime() - came)

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
        read: Callable[[bytes], Answer] = _unchanged,
        can_ask_for_less: bool = False,
    ) -> Answer:
        """Send a GET and return its response as parsed by `read`. Retries a response that `read` cannot parse.

        `path` is relative to the base URL, or a link from an earlier response. `endpoint` provides the rate limit, and
        the scopes to name if the key lacks them. A GET can have a JSON body: the legacy API expects addresses there.
        With `can_ask_for_less`, a response that takes too long raises TooMuch after few tries. Raises the errors of
        klaviyo_pg.errors.
        """
        encoded = None if body is None else msgspec.json.encode(body)
        return self._answer("GET", path, parameters, encoded, endpoint or Endpoint(path), read, can_ask_for_less)

    def post(
        self, endpoint: Endpoint, body: object, read: Callable[[bytes], Answer] = _unchanged, link: str | None = None
    ) -> Answer:
        """Send a POST that only reads, so that it may be repeated, and return its response as parsed by `read`.

        `body` is sent as JSON. `link` is one from an earlier response, which replaces the path of the endpoint.
        """
        encoded = msgspec.json.encode(body)
        return self._answer("POST", link or endpoint.path, None, encoded, endpoint, read, False)

    def _answer(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None,
        body: bytes | None,
        endpoint: Endpoint,
        read: Callable[[bytes], Answer],
        can_ask_for_less: bool,
    ) -> Answer:
        request = _Request(method, self._own(path), {**(parameters or {}), **self._parameters}, body, endpoint)
        retries = Retries(str(request), self._patience, can_ask_for_less)
        while True:
            self._pace.wait(endpoint.name, endpoint.limit, retries.seconds_left, endpoint.also)
            try:
                return read(self._timed(request, retries.has_begun))
            except KlaviyoPgError as error:
                seconds = retries.pause_after(error)
            pause(seconds, self._pace.check)

    def _own(self, path: str) -> str:
        """Return the URL of a path, or a link unchanged. Raises BadAnswer for one to another host or of any length."""
        if len(path) > _LONGEST_LINK:
            raise BadAnswer(f"The API returned a link of {len(path):,} characters. Check KLAVIYO_BASE_URL.")
        url = urljoin(self._base, path)
        own, other = urlsplit(self._base), urlsplit(url)
        if (own.scheme, own.netloc) != (other.scheme, other.netloc):
            host = printable(str(other.hostname))
            raise BadAnswer(
                f"The API returned a link to another host ({host}), which is not followed because requests carry the "
                "API key. Check KLAVIYO_BASE_URL."
            )
        return url

    def _timed(self, request: _Request, is_retry: bool) -> bytes:
        sent, retries, seconds = self.traffic
        self.traffic = Traffic(sent + 1, retries + is_retry, seconds)
        began = monotonic()
        self._deadline.start(self._patience.timeout)
        try:
            return self._once(request)
        finally:
            self.traffic = self.traffic._replace(seconds=seconds + monotonic() - began)

    def _once(self, request: _Request) -> bytes:
        response, content = self._send(request)
        endpoint = request.endpoint
        if response.status_code == requests.codes.ok:
            self._pace.learn(endpoint.name, response.headers.get("ratelimit-limit"))
            return content
        refused = refusal(str(request), response, content, endpoint.scopes, self._retired, self._refused_key)
        if isinstance(refused, Throttled) and refused.retry_after is not None:
            for name in (endpoint.name, *([endpoint.also[0]] if endpoint.also else [])):
                self._pace.close(name, refused.retry_after)
        raise refused

    def _send(self, request: _Request) -> tuple[requests.Response, bytes]:
        try:
            response = self._session.request(
                request.method,
                request.url,
                params=request.query,
                data=request.body,
                headers={} if request.body is None else {"Content-Type": "application/json"},
                timeout=SLICE,
                allow_redirects=False,
                stream=True,
            )
            self._note_date(response)
            if response.status_code == requests.codes.ok:
                return response, _content(response, self._deadline)
            return response, beginning(response)
        except TimeoutError:  # between two pieces of the body
            raise self._too_slow(str(request)) from None
        except requests.exceptions.RequestException as error:
            self._translate(str(request), error)

    def _note_date(self, response: requests.Response) -> None:
        """Note the API's time. That of an error, or of a cached response, may be another server's or an old one."""
        if response.status_code != requests.codes.ok or "Age" in response.headers:
            return
        if date := http_date(response.headers.get("Date", "")):
            self._dated = date, uptime()

    def _translate(self, request: str, error: requests.exceptions.RequestException) -> NoReturn:
        """Raise one of this project's errors for one of requests, whose text can contain the key."""
        host = urlsplit(self._base).netloc
        match error:
            case requests.exceptions.SSLError() if "certificate" in str(error).lower():
                raise BadAnswer(
                    f"{request}: the TLS certificate of {host} is not valid. Check KLAVIYO_BASE_URL. If a proxy "
                    "signs certificates, set REQUESTS_CA_BUNDLE to its authority."
                ) from None
            case requests.exceptions.SSLError():
                raise Unavailable(f"{request}: no TLS connection to {host}. Check KLAVIYO_BASE_URL.") from None
            case requests.exceptions.Timeout():
                raise self._too_slow(request) from None
            case requests.exceptions.ContentDecodingError():
                raise Unavailable(f"{request}: the response could not be decompressed. {RESUME}") from None
            case requests.exceptions.ChunkedEncodingError():
                raise Unavailable(f"{request}: the connection was lost during the response. {RESUME}") from None
            case requests.exceptions.ConnectionError(args=[ReadTimeoutError(), *_]):
                raise self._too_slow(request) from None
            case requests.exceptions.ConnectionError(args=[ProtocolError(), *_]):
                raise Unavailable(
                    f"{request}: {host} closed the connection or sent no valid response. {RESUME}"
                ) from None
            case requests.exceptions.ConnectionError():
                raise Unreachable(
                    f"{request}: no connection to {host}. Check KLAVIYO_BASE_URL and the network."
                ) from None
        raise BadAnswer(f"{request}: the request failed ({type(error).__name__}). Check KLAVIYO_BASE_URL.") from None

    def _too_slow(self, request: str) -> TooMuch:
        seconds = f"{self._patience.timeout:g} seconds (REQUEST_TIMEOUT_SECONDS)"
        return TooMuch(f"{request}: no complete response within {seconds}. {RESUME}")


def _keep_authorization(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return a request unchanged. Without an auth hook, a password from ~/.netrc would replace the key."""
    return request


def _content(response: requests.Response, deadline: Deadline) -> bytes:
    """Return the body of a response, decompressed. Nearly all are one piece, which is not copied."""
    is_compressed = "Content-Encoding" in response.headers
    pieces = response.iter_content(_COMPRESSED_PIECE if is_compressed else _PIECE)
    body: bytes | bytearray = next(pieces, b"")
    for piece in pieces:
        deadline.check()
        if not isinstance(body, bytearray):
            body = bytearray(body)
        body += piece
        if len(body) > _LARGEST_RESPONSE:
            response.close()
            raise TooMuch(
                f"The response is larger than {_LARGEST_RESPONSE >> 20} MB, more than any page of Klaviyo's API. "
                "Check KLAVIYO_BASE_URL."
            )
    return bytes(body)
