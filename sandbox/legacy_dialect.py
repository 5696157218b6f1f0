"""The manners of v1 and v2: where the key is, how parameters come in, and how a refusal looks. Knows no rows."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sandbox.content import dump
from sandbox.errors import ApiError
from sandbox.server import Box, Dialect

MEDIA_TYPE = "application/json"
_REPLACEMENTS = "https://developers.klaviyo.com/en/docs/apis_comparison_chart"
_NO_KEY = "You must specify an API key to make requests."
_WRONG_KEY = "The API key specified is invalid."


def invalid(detail: str) -> ApiError:
    """The request makes no sense."""
    return ApiError(400, "invalid", detail)


def not_found(what: str, row_id: str) -> ApiError:
    """There is no such row."""
    return ApiError(404, "not_found", f"There is no {what} with id {row_id}.")


class Parameters:
    """What a request asks for: its query and, in v2, the members of its JSON body, which win."""

    def __init__(self, values: dict[str, list[Any]]) -> None:
        self._values = values

    def text(self, name: str) -> str | None:
        """The last value, None without one."""
        found = self._values.get(name)
        return str(found[-1]) if found and found[-1] is not None else None

    def texts(self, name: str) -> list[str]:
        """All values, whether repeated, in a JSON array, or with commas between them."""
        return [part for value in self._values.get(name, []) for part in str(value).split(",") if part]

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number; ApiError beyond its bounds."""
        text = self.text(name)
        if text is None:
            return default
        if not text.isdecimal() or not least <= int(text) <= most:
            raise invalid(f"{name} must be a number from {least} to {most}.")
        return int(text)

    def word(self, name: str, words: tuple[str, ...], default: str) -> str:
        """One of these words; ApiError for another."""
        text = self.text(name) or default
        if text not in words:
            raise invalid(f"{name} must be one of {', '.join(words)}.")
        return text


def query(request: Request) -> Parameters:
    """The parameters of a v1 request."""
    return Parameters(_query(request))


async def query_and_body(request: Request) -> Parameters:
    """The parameters of a v2 request, whose GETs may have a JSON body too."""
    body = await request.body()
    try:
        given = json.loads(body) if body else {}
        members = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
    except (ValueError, AttributeError):
        raise invalid("The body must be a JSON object.") from None
    return Parameters(_query(request) | members)


def _query(request: Request) -> dict[str, list[Any]]:
    return {name: request.query_params.getlist(name) for name in request.query_params}


def _be_there(box: Box) -> None:
    if box.legacy == "off":
        raise HTTPException(404)
    if box.legacy == "gone":
        raise ApiError(410, "gone", "The v1 and v2 APIs were retired on June 30, 2024.")


def _know(box: Box, key: str | None) -> None:
    """Let any known key in: keys had no scopes in these APIs."""
    if not key:
        raise ApiError(403, "not_authenticated", _NO_KEY)
    if key not in box.keys:
        raise ApiError(403, "authentication_failed", _WRONG_KEY)


async def _admit_v1(box: Box, request: Request, scopes: tuple[str, ...]) -> None:
    _be_there(box)
    _know(box, query(request).text("api_key"))


async def _admit_v2(box: Box, request: Request, scopes: tuple[str, ...]) -> None:
    _be_there(box)
    _know(box, request.headers.get("api-key") or (await query_and_body(request)).text("api_key"))


def _refuse_v1(error: ApiError, count: int) -> Response:
    return _refusal(error, _message(error) | ({"detail": _words(error)} if error.status == 429 else {}))


def _refuse_v2(error: ApiError, count: int) -> Response:
    return _refusal(error, _message(error) if error.status == 403 else {"detail": _words(error)})


def _message(error: ApiError) -> dict[str, Any]:
    return {"status": error.status, "message": _words(error)}


def _words(error: ApiError) -> str:
    if error.status == 429 and error.retry_after is not None:
        return f"Request was throttled. Expected available in {error.retry_after:.1f} seconds."
    return error.detail


def _refusal(error: ApiError, body: dict[str, Any]) -> Response:
    if error.status == 410:
        body = {"detail": error.detail, "link": _REPLACEMENTS}
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Response(dump(body), error.status, headers, MEDIA_TYPE)


V1 = Dialect(_admit_v1, _refuse_v1, MEDIA_TYPE, tells_limits=False)
V2 = Dialect(_admit_v2, _refuse_v2, MEDIA_TYPE, tells_limits=False)
