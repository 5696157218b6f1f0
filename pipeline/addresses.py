"""Addresses of people in memory, for warehouses that have none in plain text. Knows no API and no database."""

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

Ask = Callable[[Sequence[str]], Mapping[str, str]]
"""Takes profile IDs, and returns the addresses of those who have one."""

MOST_PEOPLE = 200_000
"""People whose addresses are kept, which takes about 40 MB."""


class AddressCache:
    """The addresses that the source returned to the readers of a process, by profile ID. They are never stored.

    At most `most` people are kept. Once it is full, the others are asked for each time: the lists of a run ask for the
    same people in the same order, so that forgetting some would forget the next ones needed.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = MOST_PEOPLE if most is None else most
        self._addresses: dict[str, str | None] = {}  # None: the source has no address of that person
        self._asking = threading.Lock()

    def requests(self, people: int, lists: int) -> int:
        """Return the requests for the addresses of this number of people, each looked up in this number of lists."""
        kept = min(people, self._most)
        return (kept if lists else 0) + (people - kept) * lists

    def look_up(self, ids: Sequence[str], ask: Ask) -> list[tuple[str, str]]:
        """Return the IDs and addresses of those who have one. Asks for people who have not been asked for yet.

        One reader asks at a time, since others often need the same people. Raises the errors of `ask`.
        """
        asked: Mapping[str, str | None] = {}
        if not self._addresses.keys() >= set(ids):  # what is kept stays, so that it can be read at any time
            with self._asking:
                asked = self._ask(ids, ask)
        found = {each: asked[each] if each in asked else self._addresses[each] for each in ids}
        return [(each, address) for each, address in found.items() if address]

    def _ask(self, ids: Sequence[str], ask: Ask) -> Mapping[str, str | None]:
        """Ask for those who are not kept, keep as many of them as possible, and return their addresses."""
        unknown = [each for each in ids if each not in self._addresses]
        asked = {**dict.fromkeys(unknown), **(ask(unknown) if unknown else {})}
        self._addresses.update(islice(asked.items(), self._most - len(self._addresses)))
        return asked
