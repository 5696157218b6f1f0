"""The error of the control API."""


class BadRequest(Exception):
    """A request to the control API that is refused with status 400."""
