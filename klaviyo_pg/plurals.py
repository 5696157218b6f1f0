"""Numbers with their nouns, for messages. Knows no messages."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number and its noun, such as "1 event" and "2,400 events". A plural without -s has to be passed."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
