"""Standard input of a terminal."""

from io import StringIO


class Terminal(StringIO):
    """A terminal at which something is typed."""

    def isatty(self) -> bool:
        return True
