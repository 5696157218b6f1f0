"""Ids that are computed from the account, so that they need not be stored.

Event and profile ids can be converted back into the index that they were made from.
"""

from sandbox.hashing import stable_hash

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CROCKFORD_VALUE = {char: value for value, char in enumerate(_CROCKFORD)}
_PAIRS = tuple((a + b).encode() for a in _BASE62 for b in _BASE62)
_PAIR_VALUE = {pair: value for value, pair in enumerate(_PAIRS)}
_SINGLES = tuple(char.encode() for char in _BASE62)


def token(*parts: object, size: int = 6) -> str:
    """Return a short id like those of metrics, flows and lists."""
    rest, chars = stable_hash(*parts), []
    for _ in range(size):
        rest, digit = divmod(rest, 62)
        chars.append(_BASE62[digit])
    return "".join(chars)


def uuid(*parts: object) -> str:
    """Return a random-looking UUID."""
    text = f"{stable_hash(*parts):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8{text[17:20]}-{text[20:]}"


def ulid(seconds: float, randomness: int) -> str:
    """Return a ULID: 26 characters for 48 bits of milliseconds and 80 bits of randomness."""
    value = (int(seconds * 1000) << 80) | (randomness & ((1 << 80) - 1))
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


class ProfileIds:
    """ULIDs whose last six characters encode the profile's index."""

    _SPAN = 1 << 30
    _STEP = 0x2545F491  # odd, so that the multiplication can be inverted
    _INVERSE = pow(_STEP, -1, _SPAN)

    def __init__(self, *parts: object) -> None:
        self._parts = parts
        self._offset = stable_hash("profile", *parts) % self._SPAN

    def of(self, index: int, created: int) -> str:
        """Return the id of a profile created at that second."""
        encoded = (index * self._STEP + self._offset) % self._SPAN
        return ulid(created, (stable_hash("profile", *self._parts, index) << 30) | encoded)

    def index(self, profile_id: str) -> int:
        """Return the index that an id was made from, or -1 if the text is not a ULID."""
        if len(profile_id) != 26 or not all(char in _CROCKFORD_VALUE for char in profile_id):
            return -1
        encoded = 0
        for char in profile_id[-6:]:
            encoded = encoded << 5 | _CROCKFORD_VALUE[char]
        return (encoded - self._offset) * self._INVERSE % self._SPAN


class EventIds:
    """Ids of 11 characters, different for every index below 62**11."""

    _SPAN = 62**11
    _STEP = 32_135_912_862_513_847_001  # not divisible by 2 or 31, so that the multiplication can be inverted
    _INVERSE = pow(_STEP, -1, _SPAN)

    def __init__(self, *parts: object) -> None:
        self._offset = stable_hash("event", *parts) % self._SPAN

    def of(self, index: int) -> bytes:
        """Return the id of an event."""
        rest = (index * self._STEP + self._offset) % self._SPAN
        high, low = divmod(rest, 916_132_832)  # 62**5
        high, c = divmod(high, 3844)
        a, b = divmod(high, 3844)
        low, f = divmod(low, 62)
        d, e = divmod(low, 3844)
        return _PAIRS[a] + _PAIRS[b] + _PAIRS[c] + _PAIRS[d] + _PAIRS[e] + _SINGLES[f]

    def index(self, event_id: str) -> int:
        """Return the index that an id was made from, or -1 if the text cannot be an id."""
        raw = event_id.encode()
        pairs = [_PAIR_VALUE.get(raw[at : at + 2], -1) for at in range(0, 10, 2)]
        if len(raw) != 11 or -1 in pairs or raw[10:] not in _SINGLES:
            return -1
        value = 0
        for pair in pairs:
            value = value * 3844 + pair
        return (value * 62 + _SINGLES.index(raw[10:]) - self._offset) * self._INVERSE % self._SPAN


def is_event_id(text: str) -> bool:
    """Return whether the text has the form of an event id."""
    return len(text) == 11 and all(char in _BASE62 for char in text)


def event_uuid(second: int, index: int) -> str:
    """Return a time-based UUID that encodes the second of the event and its index."""
    ticks = second * 10_000_000 + 0x01B21DD213814000 + index % 10_000_000
    return (
        f"{ticks & 0xFFFFFFFF:08x}-{ticks >> 32 & 0xFFFF:04x}-1{ticks >> 48 & 0xFFF:03x}"
        f"-8001-{index * 0x9E3779B97F4A % (1 << 48):012x}"
    )


def index_of_event_uuid(text: str) -> int:
    """Return the index that `event_uuid` encoded. For any other text, return an arbitrary number or -1."""
    last = text.rpartition("-")[2]
    if len(last) != 12 or not set(last) <= set("0123456789abcdef"):
        return -1
    half = 0x9E3779B97F4A // 2  # odd, so that the multiplication can be inverted
    return int(last, 16) // 2 * pow(half, -1, 1 << 47) % (1 << 47)
