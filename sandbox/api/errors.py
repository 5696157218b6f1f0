"""The error that answers a request. Each dialect has its own way to word and format it."""

from typing import ClassVar


class ApiError(Exception):
    """An error response: HTTP status, Klaviyo's code and title, a detail, and the location of the error."""

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


def throttled(seconds: int) -> ApiError:
    """Return the error for an exhausted rate limit. `retry_after` is the number of seconds to wait."""
    unit = "second" if seconds == 1 else "seconds"
    detail = f"Request was throttled. Expected available in {seconds} {unit}."
    error = ApiError(429, "throttled", detail, {"pointer": "/data"})
    error.retry_after = seconds
    return error
