"""Profile ids like those of an ordinary account, several times as fast."""

from sandbox.account.ids import ProfileIds
from sandbox.hashing import stable_hash

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _CROCKFORD for b in _CROCKFORD)


class DerivedProfileIds(ProfileIds):
    """ULIDs whose last six characters encode the profile's index."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)
        self._salt = stable_hash("profile", *parts) | 1

    def of(self, index: int, created: int) -> str:
        encoded = (index * self._STEP + self._offset) % self._SPAN
        rest = (index + 1) * self._salt >> 7 << 30 & (1 << 80) - 1 | encoded
        time = created * 1000
        return "".join(
            [
                _PAIRS[time >> 40],
                _PAIRS[time >> 30 & 1023],
                _PAIRS[time >> 20 & 1023],
                _PAIRS[time >> 10 & 1023],
                _PAIRS[time & 1023],
                _PAIRS[rest >> 70],
                _PAIRS[rest >> 60 & 1023],
                _PAIRS[rest >> 50 & 1023],
                _PAIRS[rest >> 40 & 1023],
                _PAIRS[rest >> 30 & 1023],
                _PAIRS[rest >> 20 & 1023],
                _PAIRS[rest >> 10 & 1023],
                _PAIRS[rest & 1023],
            ]
        )
