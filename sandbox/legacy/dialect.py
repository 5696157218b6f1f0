"""Authentication, parameters and error responses of v1 and v2. Must not know any rows."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sandbox.api.endpoint import Context, Dialect
from sandbox.api.errors import ApiError
from sandbox.api.keys import scopes_of
from sandbox.encoding import dump

LEGACY_MODES = ("on", "gone", "off")  # "gone" answers 410, as Klaviyo has done since 2024-06-30
MEDIA_TYPE = "application/json"
_REPLACEMENTS = "https://developers.klaviyo.com/en/docs/apis_comparison_chart"
_NO_KEY = "You must specify an API key to make requests."
_WRONG_KEY = "The API key specified is invalid."


def invalid(detail: str) -> ApiError:
    """Return the error for an invalid request."""
    return ApiError(400, "invalid", detail)


def not_found(kind: str, row_id: str) -> ApiError:
    """Return the error for a row that does not exist."""
    return ApiError(404, "not_found", f"There is no {kind} with id {row_id}.")


class Parameters:
    """The parameters of a request: its query and, in v2, the members of its JSON body, which take precedence."""

    def __init__(self, values: dict[str, list[Any]]) -> None:
        self._values = values

    def text(self, name: str) -> str | None:
        """Return the last value, or None if it is missing or null."""
        values = self._values.get(name)
        return str(values[-1]) if values and values[-1] is not None else None

    def texts(self, name: str) -> list[str]:
        """Return all values, whether repeated, in a JSON array, or separated by commas."""
        return [text for value in self._values.get(name, []) for text in str(value).split(",") if text]

    def number(self, name: str, default: int, minimum: int, maximum: int) -> int:
        """Return an integer. Raise ApiError if it is out of bounds."""
        text = self.text(name)
        if text is None:
            return default
        if not text.isdecimal() or not minimum <= int(text) <= maximum:
            raise invalid(f"{name} must be a number from {minimum} to {maximum}.")
        return int(text)

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """Return one of the choices. Raise ApiError for anything else."""
        text = self.text(name) or default
        if text not in choices:
            raise invalid(f"{name} must be one of {', '.join(choices)}.")
        return text


def query(request: Request) -> Parameters:
    """Return the parameters of a v1 request."""
    return Parameters(_query(request))


async def query_and_body(request: Request) -> Parameters:
    """Return the parameters of a v2 request. Even a GET may have a JSON body."""
    body = await request.body()
    try:
        document = json.loads(body) if body else {}
        members = {name: value if isinstance(value, list) else [value] for name, value in document.items()}
    except (ValueError, AttributeError):
        raise invalid("The body must be a JSON object.") from None
    return Parameters(_query(request) | members)


def _query(request: Request) -> dict[str, list[Any]]:
    return {name: request.query_params.getlist(name) for name in request.query_params}


def _require_mode_on(context: Context) -> None:
    if context.legacy == "off":
        raise HTTPException(404)
    if context.legacy == "gone":
        raise ApiError(410, "gone", "The v1 and v2 APIs were retired on June 30, 2024.")


def _require_key(context: Context, key: str | None) -> None:
    """Raise ApiError unless the key exists. Keys had no scopes in these APIs."""
    if not key:
        raise ApiError(403, "not_authenticated", _NO_KEY)
    if scopes_of(key, context.keys) is None:
        raise ApiError(403, "authentication_failed", _WRONG_KEY)


async def _admit_v1(context: Context, request: Request, scopes: tuple[str, ...]) -> None:
    _require_mode_on(context)
    _require_key(context, query(request).text("api_key"))


async def _admit_v2(context: Context, request: Request, scopes: tuple[str, ...]) -> None:
    _require_mode_on(context)
    _require_key(context, request.headers.get("api-key") or (await query_and_body(request)).text("api_key"))


def _refuse_v1(error: ApiError, count: int) -> Response:
    return _refusal(error, _message(error) | ({"detail": _detail(error)} if error.status == 429 else {}))


def _refuse_v2(error: ApiError, count: int) -> Response:
    return _refusal(error, _message(error) if error.status == 403 else {"detail": _detail(error)})


def _message(error: ApiError) -> dict[str, Any]:
    return {"status": error.status, "message": _detail(error)}


def _detail(error: ApiError) -> str:
    if error.status == 429 and error.retry_after is not None:
        return f"Request was throttled. Expected available in {error.retry_after:.1f} seconds."
    return error.detail


def _refusal(error: ApiError, body: dict[str, Any]) -> Response:
    if error.status == 410:
        body = {"detail": error.detail, "link": _REPLACEMENTS}
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Response(dump(body), error.status, headers, MEDIA_TYPE)


V1 = Dialect(_admit_v1, _refuse_v1, MEDIA_TYPE, sends_limit_headers=False)
V2 = Dialect(_admit_v2, _refuse_v2, MEDIA_TYPE, sends_limit_headers=False)
