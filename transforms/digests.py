"""Digests of the details that are stored of a person, so that details that have not changed cost nothing.

Knows no frames and no database.
"""

from collections.abc import Callable
from hashlib import blake2b, sha256

import msgspec

from klaviyo_pg.rows import Profile
from transforms.personal import Protection

_FORMAT = 2  # of what is stored of a record; another one makes all digests worthless
_NUL = b"\\u0000"
_encode = msgspec.json.encode

NO_DIGEST = 0
"""Stands for a digest where there may not be one. It equals no stored digest."""
Digest = Callable[[Profile], int]
"""Returns the digest of a person's custom properties, consents and list suppressions, or NO_DIGEST."""


def digest_of(integration_id: str, protection: Protection | None) -> Digest:
    """Return how people of an account are digested.

    The digest depends on everything that decides what is stored: the account, and how personal data is protected. With
    protection it is keyed with the salt, so that it does not reveal a guessed value. A person with a NUL character has
    none, because the character is removed, and reported, whenever the person is read.
    """
    kept = protection and (protection.drops, protection.salt, sorted(protection.readable))
    key = sha256(_encode((_FORMAT, integration_id, kept))).digest()

    def digest(person: Profile) -> int:
        record = _encode(([*person.properties.items()], person.consents, person.list_suppressions))
        if _NUL in record:
            return NO_DIGEST
        return int.from_bytes(blake2b(record, digest_size=8, key=key).digest(), signed=True)

    return digest
