"""The one error that a request can end in, in Klaviyo's words."""

from typing import Any, ClassVar


class ApiError(Exception):
    """A request is answered with an error: HTTP status, Klaviyo's code and title, and where the fault lies."""

    _TITLES: ClassVar = {
        "invalid": "Invalid input.",
        "authentication_failed": "Incorrect authentication credentials.",
        "not_authenticated": "Authentication credentials were not provided.",
        "permission_denied": "You do not have permission to perform this action.",
        "not_found": "Not found.",
        "method_not_allowed": "Method not allowed.",
        "throttled": "Request was throttled.",
        "error": "A server error occurred.",
    }

    def __init__(self, status: int, code: str, detail: str, source: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.title = self._TITLES.get(code, "Error.")
        self.source = source or {"pointer": "/data/"}
        self.retry_after: int | None = None

    def body(self, error_id: str) -> dict[str, Any]:
        """The JSON:API error document."""
        return {
            "errors": [
                {
                    "id": error_id,
                    "status": self.status,
                    "code": self.code,
                    "title": self.title,
                    "detail": self.detail,
                    "source": self.source,
                    "links": {},
                    "meta": {},
                }
            ]
        }


def invalid(detail: str, parameter: str) -> ApiError:
    """A query parameter is wrong."""
    return ApiError(400, "invalid", detail, {"parameter": parameter})


def not_found(what: str, row_id: str) -> ApiError:
    """There is no such row."""
    article = "An" if what[0] in "aeiou" else "A"
    return ApiError(404, "not_found", f"{article} {what} with id {row_id} does not exist.")


def throttled(seconds: int) -> ApiError:
    """A rate limit is used up; retry_after tells for how long."""
    unit = "second" if seconds == 1 else "seconds"
    detail = f"Request was throttled. Expected available in {seconds} {unit}."
    error = ApiError(429, "throttled", detail, {"pointer": "/data"})
    error.retry_after = seconds
    return error
