"""JSON in the form that Klaviyo sends it. Must not depend on an account or on HTTP."""

import json
from typing import Any


def dump(value: Any) -> bytes:
    """Return compact JSON as UTF-8, with control characters and lone surrogates escaped."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def dump_members(value: dict[str, Any]) -> bytes:
    """Return the members of a JSON object, each preceded by a comma, ready to append to other members."""
    return b"," + dump(value)[1:-1] if value else b""
