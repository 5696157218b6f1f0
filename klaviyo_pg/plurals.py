"""Numbers with their nouns, and lists of names, for messages. Knows no messages."""

from collections.abc import Sequence

_NAMED = 5


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number and its noun, such as "1 event" and "2,400 events". A plural without -s has to be passed."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def named(names: Sequence[str]) -> str:
    """Return names as a list for a sentence: "a, b and c". A long one is cut short: "a, b, c, d, e and 3 others"."""
    shown, others = list(names[:_NAMED]), len(names) - _NAMED
    if others > 0:
        shown.append(counted(others, "other"))
    *first, last = shown
    return f"{', '.join(first)} and {last}" if first else last
