"""Numbers that look random and are the same in every process. Must not depend on an account or on HTTP."""

from hashlib import blake2b


def stable_hash(*parts: object) -> int:
    """Return a 128-bit number that depends on every part."""
    return int.from_bytes(blake2b(":".join(map(str, parts)).encode(), digest_size=16).digest(), "big")
