"""Foreign text: what the API or another program wrote, made fit to be shown to people. Knows nothing about its origin.

Text that is stored as data stays as it is. This is for terminals, logs, messages of runs and errors, and artifacts.
"""

import re

LONGEST = 500
"""Characters of a foreign text that are shown."""
LONGEST_MESSAGE = 4000
"""Characters of a message, which can contain several foreign texts."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BLANKS = re.compile(r"\s+")
_JOINER = "\N{ZERO WIDTH JOINER}"  # within an emoji of several signs


def printable(text: str, longest: int = LONGEST) -> str:
    """Return a text on one line, shortened, and without control characters, marks of direction and lone surrogates."""
    if text.isascii() and text.isprintable() and len(text) <= longest:  # as nearly all texts are
        return text
    head = _BLANKS.sub(" ", text[: 2 * longest]).strip()
    shown = "".join(each if each.isprintable() or each == _JOINER else _REPLACEMENT for each in head)
    is_short = len(text) <= 2 * longest and len(shown) <= longest
    return shown if is_short else f"{shown[: longest - 1].rstrip()}…"
