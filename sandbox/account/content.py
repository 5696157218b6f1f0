"""The vocabulary of the account: metrics, names, subjects, and values odd enough to break a careless loader."""

from typing import Any, NamedTuple

ODD_TEXTS = (
    'it\'s "quoted"',
    "two\nlines\tand a tab",
    "nul \u0000 inside",
    "🎁 émoji 漢字",
    "<b>bold</b> & co",
    "Robert'); DROP TABLE events;--",
    "back\\slash, comma; semicolon",
    "\\N",
    "",
    " padded ",
    "x" * 5000,
)
ODD_VALUES: tuple[Any, ...] = (
    *ODD_TEXTS,
    9_007_199_254_740_993,
    123_456_789_012_345_678_901_234_567_890,
    0.1,
    1e300,
    -0.0,
    True,
    False,
    None,
    [],
    ["a", 1, None, {"b": [2.5]}],
    {},
    {"nested": {"deep": ["🎈", {"$": "."}]}, "empty": ""},
)
ODD_NAMES = (
    'Favourite "Colour"',
    "it's",
    "line\nbreak",
    "nul\u0000name",
    "🎈",
    "$dollar",
    "dotted.name.here",
    "MailChimp Rating",
    "<i>",
    "",
    "select * from profiles; --",
    "Size",
    "size",
)

FIRST_NAMES = (
    "Ada",
    "Bjørn",
    "Chloé",
    "Dmitri",
    "Eun-ji",
    "Fatima",
    "Grace",
    "Hugo",
    "Inês",
    "José",
    "Kwame",
    "Lena",
    "Mina",
    "Noah",
    "O'Neil",
    "Priya",
    "Rosa",
    "Søren",
    "Zoë",
)
LAST_NAMES = (
    "Andersen",
    "Brown",
    "Castillo",
    "D'Angelo",
    "Edwards",
    "Fischer",
    "García",
    "Haddad",
    "Ito",
    "Jensen",
    "Kim",
    "Lopez",
    "Müller",
    "Nguyen",
    "Okafor",
    "Petrov",
)
DOMAINS = ("example.com", "mail.example.net", "example.org", "shop.example.co.uk", "post.example.de")
PLACES = (
    ("Boston", "Massachusetts", "02116", "United States", 42.3504, -71.0752, "America/New_York"),
    ("Copenhagen", "Hovedstaden", "1050", "Denmark", 55.6805, 12.5872, "Europe/Copenhagen"),
    ("München", "Bayern", "80331", "Germany", 48.1374, 11.5755, "Europe/Berlin"),
    ("São Paulo", "SP", "01310-100", "Brazil", -23.5614, -46.6559, "America/Sao_Paulo"),
    ("Tōkyō", "東京都", "100-0001", "Japan", 35.6852, 139.7528, "Asia/Tokyo"),
    ("St. John's", "NL", "A1C 5M3", "Canada", 47.5649, -52.7093, "America/St_Johns"),
)
SUBJECTS = (
    "New in this week",
    "Your 20% is waiting",
    "🎁 Only until midnight",
    'The "big" sale',
    "It's back",
    "Thank you, {{ first_name }}",
    "Frühling & Sommer",
    "Last chance",
)
PRODUCTS = ("Tent", "Head lamp", "Rope, 60 m", 'Mug "Camp"', "Schlafsack", "Café filter", "雨傘", "Socks")


class MetricKind(NamedTuple):
    """A metric of the account: its name, its integration, the style of its events and its share of all events."""

    name: str
    integration: str | None
    style: str
    share: float


METRICS = (
    MetricKind("Received Email", "klaviyo", "send", 38),
    MetricKind("Opened Email", "klaviyo", "open", 19),
    MetricKind("Clicked Email", "klaviyo", "click", 5),
    MetricKind("Bounced Email", "klaviyo", "bounce", 1.5),
    MetricKind("Marked Email as Spam", "klaviyo", "spam", 0.4),
    MetricKind("Unsubscribed from Email Marketing", "klaviyo", "unsubscribe", 0.8),
    MetricKind("Subscribed to List", "klaviyo", "join", 4),
    MetricKind("Unsubscribed from List", "klaviyo", "leave", 0.6),
    MetricKind("Subscribed to Email Marketing", "klaviyo", "consent", 3),
    MetricKind("Received Text Message", "klaviyo", "text", 3),
    MetricKind("Clicked Text Message", "klaviyo", "text_click", 0.8),
    MetricKind("Active on Site", "api", "site", 9),
    MetricKind("Viewed Product", "shop", "view", 6),
    MetricKind("Placed Order", "shop", "order", 3),
    MetricKind("Ordered Product", "shop", "item", 4),
    MetricKind("Loyalty Points Earned", "api", "points", 0.5),
    MetricKind("Appointment Booked", "api", "appointment", 0.3),
    MetricKind('Quote "Requested"', "api", "odd", 0.2),
    MetricKind("It's here", "api", "odd", 0.2),
    MetricKind("Line\nBreak", "api", "odd", 0.1),
    MetricKind("🎉 Party Joined", "api", "odd", 0.2),
    MetricKind("<b>Bold</b> & Co", "api", "odd", 0.1),
    MetricKind("Robert'); DROP TABLE events;--", "api", "odd", 0.1),
    MetricKind("comma, \\backslash and  spaces ", "uncategorised", "odd", 0.1),
    MetricKind("Ünïcode 漢字", None, "odd", 0.1),
)

SUPPRESSION_REASONS = ("HARD_BOUNCE", "INVALID_EMAIL", "SPAM_COMPLAINT", "UNSUBSCRIBE", "USER_SUPPRESSED")
