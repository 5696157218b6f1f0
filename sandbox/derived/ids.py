"""Profile ids like those of an ordinary account, several times as fast."""

from random import Random

from sandbox.account.ids import ProfileIds
from sandbox.hashing import stable_hash

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _CROCKFORD for b in _CROCKFORD)


class DerivedProfileIds(ProfileIds):
    """ULIDs whose last six characters encode the profile's index."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)
        rng = Random(stable_hash("profile", *parts))
        self._middles = ["".join(rng.choices(_CROCKFORD, k=10)) for _ in range(1024)]

    def of(self, index: int, created: int) -> str:
        encoded = (index * self._STEP + self._offset) % self._SPAN
        time = created * 1000
        return "".join(
            [
                _PAIRS[time >> 40],
                _PAIRS[time >> 30 & 1023],
                _PAIRS[time >> 20 & 1023],
                _PAIRS[time >> 10 & 1023],
                _PAIRS[time & 1023],
                self._middles[encoded >> 11 & 1023],
                _PAIRS[encoded >> 20],
                _PAIRS[encoded >> 10 & 1023],
                _PAIRS[encoded & 1023],
            ]
        )
