"""Errors in the words and format of the current dialect."""

from typing import Any

from sandbox.api.errors import ApiError


def invalid(detail: str, parameter: str) -> ApiError:
    """Return the error for an invalid query parameter."""
    return ApiError(400, "invalid", detail, {"parameter": parameter})


def not_found(kind: str, row_id: str) -> ApiError:
    """Return the error for a row that does not exist."""
    article = "An" if kind[0] in "aeiou" else "A"
    return ApiError(404, "not_found", f"{article} {kind} with id {row_id} does not exist.")


def error_document(error: ApiError, error_id: str) -> dict[str, Any]:
    """Return the JSON:API document of an error."""
    return {
        "errors": [
            {
                "id": error_id,
                "status": error.status,
                "code": error.code,
                "title": error.title,
                "detail": error.detail,
                "source": error.source,
                "links": {},
                "meta": {},
            }
        ]
    }
