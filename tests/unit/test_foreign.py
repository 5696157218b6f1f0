"""Foreign text that is shown to people."""

import pytest

from klaviyo_pg.errors import Refused
from klaviyo_pg.foreign import LONGEST, LONGEST_MESSAGE, printable
from pipeline.chunk_reading import label
from pipeline.chunks import Chunk
from pipeline.outcome import Tally, describe

ODD = "a\x1b[2Jb\r\nERROR c\x00\u2028d\u202e\x9b\ud800"
SHOWN = "a�[2Jb ERROR c� d���"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Opened Email", "Opened Email"),
        ("Öffnete 😀 שלום", "Öffnete 😀 שלום"),
        ("👩\u200d👧", "👩\u200d👧"),
        ("", ""),
        (ODD, SHOWN),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * (LONGEST + 1), "x" * (LONGEST - 1) + "…"),
        ("\x00" * 5_000_000, "�" * (LONGEST - 1) + "…"),
        ("a" + " " * 5_000_000 + "b", "a…"),
    ],
)
def test_foreign_text_is_printable_and_short(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(text).isprintable() or "\u200d" in text


def test_errors_sentences_and_labels_are_printable() -> None:
    """Whatever an error, a note or an id of the API contains, it stays on one line."""
    assert str(Refused(ODD)) == SHOWN
    assert len(str(Refused("x" * 5_000_000))) == LONGEST_MESSAGE
    assert describe(ValueError(f"{ODD[:7]}\nmore")).isprintable()
    tally = Tally()
    tally.add_notes(ODD)
    assert tally.sentences == [SHOWN]
    assert label([Chunk("events", subject=ODD)], {}) == f"events of {SHOWN}"
