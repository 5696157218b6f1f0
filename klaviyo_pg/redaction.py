"""The one place that takes secrets out of text by others, such as messages of drivers. Knows no setting and no log."""

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

HIDDEN = "***"
_SHORTEST_SECRET = 4  # characters; hiding shorter ones would make any text unreadable
_SHORTEST_PIECE = 6  # characters; drivers cut a URL at its delimiters
_BEFORE_HOST = re.compile(r"\b([a-z][a-z0-9+.-]*://)\S*@", re.IGNORECASE)
_DELIMITERS = re.compile(r"[\s@:/?#&=\[\]]+")


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without these secrets, and without what precedes the last @ of a URL.

    Secrets are also found percent-encoded, in base64, and in the pieces in which a driver may show them.
    """
    forms = {form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return _BEFORE_HOST.sub(rf"\1{HIDDEN}@", text)


def _forms(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode(errors="surrogateescape")).decode().rstrip("=")
    pieces = {piece for piece in _DELIMITERS.split(secret) if len(piece) >= _SHORTEST_PIECE}
    return {secret, quote(secret, safe="", errors="replace"), quote_plus(secret, errors="replace"), encoded} | pieces
