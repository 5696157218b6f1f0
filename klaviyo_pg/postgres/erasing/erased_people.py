"""People who were erased: the questions that each batch asks. The caller owns the transaction."""

from collections.abc import Collection, Sequence

from psycopg import Connection
from psycopg.sql import SQL

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import qualified

_OWNED = """
SELECT DISTINCT lower(email) FROM {members} WHERE esp_integration_id = %(account)s AND lower(email) = ANY(%(addresses)s)
"""
_AMONG = """
SELECT 'member', member_key FROM {erased} WHERE esp_integration_id = %(account)s AND member_key = ANY(%(members)s)
UNION ALL
SELECT 'address', address_key FROM {erased_addresses}
WHERE esp_integration_id = %(account)s AND address_key = ANY(%(addresses)s)
"""
_ANY = """
SELECT EXISTS (SELECT FROM {erased} WHERE esp_integration_id = %(account)s)
OR EXISTS (SELECT FROM {erased_addresses} WHERE esp_integration_id = %(account)s)
"""


def block_erasing(connection: Connection, schema: str) -> None:
    """Wait for a transaction that records people as erased, and block others until this transaction ends."""
    query = SQL("SELECT FROM {} LIMIT 0")  # takes the weakest lock that such a transaction waits for
    connection.execute(query.format(qualified(schema, bookkeeping.ERASED)))


def exist(account: Account) -> bool:
    """Return whether anyone of the account was ever erased. No one is until the transaction ends."""
    return account.is_true(_ANY)


def among(account: Account, member_keys: Collection[str], address_keys: Collection[str]) -> tuple[set[str], set[str]]:
    """Return those of the member keys, and of the keys of addresses, that belong to people who were erased."""
    values = {"members": list(member_keys), "addresses": list(address_keys)}
    rows = account.execute(_AMONG, **values).fetchall()
    members, addresses = ({key for kind, key in rows if kind == wanted} for wanted in ("member", "address"))
    return members, addresses


def owned(account: Account, addresses: Sequence[str]) -> set[str]:
    """Return those of the addresses, in lower case, that stored people have."""
    return set(account.column(_OWNED, addresses=list(addresses))) if addresses else set()
