"""Refusals of the API: the error that stands for a response with any other status than 200. Sends nothing."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import requests

from klaviyo_pg.errors import (
    BadAnswer,
    BadKey,
    KlaviyoPgError,
    MissingScope,
    NotFound,
    PageTooLarge,
    Refused,
    Throttled,
    Unavailable,
    WrongDialect,
)
from klaviyo_pg.foreign import printable
from klaviyo_pg.klaviyo.lenient import http_date

_RETRIABLE_STATUSES = frozenset({408, 425, *range(500, 1000)})  # proxies add some
_LONGEST_PAUSE = 10.0**9  # seconds that the API can ask for; more means the same
_LARGEST_REFUSAL = 64 << 10  # bytes of the body of a refusal that are read
_REASON = re.compile(rb'"(?:detail|message)"\s*:\s*"((?:[^"\\]++|\\.)*+)', re.DOTALL)
_PAGE_SIZE = re.compile(r"page[\W_]*size", re.IGNORECASE)  # page[size], /page/size or "page size"
RESUME = "Rerun with the same arguments to resume."
"""The advice for an error that may pass."""
_RESUME_LATER = f"{RESUME} To wait longer within a run, increase RETRY_BUDGET_SECONDS."


def beginning(response: requests.Response) -> bytes:
    """Return the first bytes of the body of a refusal. If there are more, the connection is closed."""
    body = bytearray()
    try:
        for piece in response.iter_content(_LARGEST_REFUSAL):
            body += piece
            if len(body) >= _LARGEST_REFUSAL:
                response.close()
                break
    except requests.exceptions.RequestException:  # the status says enough
        response.close()
    return bytes(body[:_LARGEST_REFUSAL])


def refusal(
    request: str,
    response: requests.Response,
    content: bytes,
    scopes: str,
    retired: type[KlaviyoPgError] = WrongDialect,
    refused_key: Callable[[], BadKey] = BadKey,
) -> KlaviyoPgError:
    """Return the error for a response with any other status than 200.

    `retired` is that for 410, and `refused_key` makes that for a key that is not accepted.
    """
    status, wait = response.status_code, _retry_after(response)
    if status == 429:
        left = "" if wait is None else f" for another {wait:.0f} s"
        return Throttled(
            f"{request}: the API returned 429 because its rate limit is used up{left}. {_RESUME_LATER}",
            wait,
            is_limit=True,
        )
    if status in _RETRIABLE_STATUSES:
        return Unavailable(f"{request}: the API returned {status}. {RESUME}", wait)
    detail = _detail(content)
    match status:
        case 400 if _concerns_page_size(content):
            return PageTooLarge(f"{request}: the API returned 400: {detail or 'the page size is not accepted'}")
        case 401:
            return refused_key()
        case 403 if "api key" in detail.lower() and "scope" not in detail.lower():
            return refused_key()
        case 403:
            return MissingScope(scopes)
        case 404:
            return NotFound(f"{request}: {detail or 'not found'}")
        case 410:
            return retired()
        case _ if 300 <= status < 400:
            return BadAnswer(
                f"{request}: the API returned a redirect ({status}), which is not followed. Check KLAVIYO_BASE_URL."
            )
    return Refused(f"{request}: the API returned {status}: {detail or 'no reason given'}")


def _retry_after(response: requests.Response) -> float | None:
    """Return the seconds that a response asks to wait, which can be written as a date; None if it has none."""
    text = response.headers.get("Retry-After", "")
    if text.replace(".", "", 1).isdecimal():
        return min(float(text), _LONGEST_PAUSE)
    if (until := http_date(text)) is None:
        return None
    now = http_date(response.headers.get("Date", "")) or datetime.now(UTC)
    return min(max(0.0, (until - now).total_seconds()), _LONGEST_PAUSE)


class _Source(msgspec.Struct):
    parameter: str | None = None
    pointer: str | None = None


class _Detail(msgspec.Struct):
    detail: str | None = None
    source: _Source | None = None


class _Errors(msgspec.Struct):
    errors: list[_Detail] = []
    detail: str | None = None
    message: str | None = None


def _errors(body: bytes) -> _Errors:
    """Return the errors in a response, in either dialect; none if they are unreadable."""
    try:
        return msgspec.json.decode(body, type=_Errors)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Errors()


def _concerns_page_size(body: bytes) -> bool:
    """Return whether an error names the page size as its source, or its text mentions it."""
    return any(
        text and _PAGE_SIZE.search(text)
        for error in _errors(body).errors
        for text in (error.detail, error.source and error.source.parameter, error.source and error.source.pointer)
    )


def _detail(body: bytes) -> str:
    """Return the API's reason for a refusal, in either dialect. Empty if the body has none that is readable."""
    response = _errors(body)
    details = [error.detail for error in response.errors if error.detail]
    return printable("; ".join(details) or response.detail or response.message or _first_detail(body))


def _first_detail(body: bytes) -> str:
    """Return the first reason in a body that cannot be decoded, for example because it was too long to be read."""
    match = _REASON.search(body)
    if match is None:
        return ""
    try:
        return str(json.loads(f'"{match[1].decode(errors="replace")}"', strict=False))
    except ValueError:
        return ""
