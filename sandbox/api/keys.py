"""The API keys that every sandbox accepts, and the account that each of them belongs to."""

from collections.abc import Mapping

API_KEY = "pk_sandbox"
ALL_SCOPES = "*"
_OF_ANOTHER_ACCOUNT = f"{API_KEY}_"


def key_of(account: str) -> str:
    """Return the key of another account, which has this id and the same data."""
    return _OF_ANOTHER_ACCOUNT + account


def account_of(key: str, default: str) -> str:
    """Return the id of the account that a key belongs to."""
    return key.removeprefix(_OF_ANOTHER_ACCOUNT) if key.startswith(_OF_ANOTHER_ACCOUNT) else default


def scopes_of(key: str, keys: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    """Return the scopes of a key; None if it is neither among these keys nor that of another account."""
    return keys.get(key, frozenset({ALL_SCOPES}) if key.startswith(_OF_ANOTHER_ACCOUNT) else None)
