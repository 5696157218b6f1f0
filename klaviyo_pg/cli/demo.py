"""The accounts of the sandbox that commands offer for a try. Imports nothing that takes time."""

from typing import NamedTuple


class DemoAccount(NamedTuple):
    """An account of the sandbox: its name in the warehouse and, of a large one, its ID and its size."""

    name: str = "sandbox"
    account_id: str | None = None
    events: int | None = None


def large(events: int) -> DemoAccount:
    """Return the large account with so many events. Each size is another account, with other people and times."""
    return DemoAccount(f"large-{events}", f"LARGE{events}", events)
