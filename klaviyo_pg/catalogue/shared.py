"""Columns and constants that many tables share."""

from klaviyo_pg.catalogue.personal import Harmless
from klaviyo_pg.catalogue.types import BOOLEAN, KEY, TEXT, TIMESTAMP, Column, Merge

ESP_SOURCE = "Klaviyo"
"""The value of esp_source in every row, and the first component of every row key."""

KEY_OF_ID = Column(
    "key",
    KEY,
    "md5(esp_source || ':' || esp_integration_id || ':' || id)",
    "computed",
    "computed",
    personal=Harmless.KEY,
)
ESP_INTEGRATION_ID = Column(
    "esp_integration_id",
    TEXT,
    "ID of the Klaviyo account in this warehouse; see integrations.",
    "generated once",
    "generated once",
    personal=Harmless.OWN,
)
SYNCED_AT = Column(
    "__synced_at",
    TIMESTAMP,
    "When the row was last written to this database.",
    "load time",
    "load time",
    Merge.STAMP,
)
MEMBER_KEY = Column(
    "member_key", KEY, "md5(profile id); joins to members.member_key.", "computed", "computed", personal=Harmless.KEY
)
ORIGIN = (
    Column("esp_source", TEXT, f"Always '{ESP_SOURCE}'.", "constant", "constant", personal=Harmless.OWN),
    ESP_INTEGRATION_ID,
    SYNCED_AT,
)
IS_PLACEHOLDER = Column(
    "is_placeholder",
    BOOLEAN,
    "True if only events mention it, because Klaviyo does not list it, for example because it was deleted. Then all "
    "columns but the ID, the keys and the type are null, and deleted_at is when its first event was loaded. If the ID "
    "is that of a message, the name is that of its campaign (of a flow: the message), and deleted_at the message's.",
    "computed",
    "computed",
)
DELETED_AT = Column(
    "deleted_at",
    TIMESTAMP,
    "When a complete read of the source no longer contained the row; null while the source has it.",
    "computed",
    "computed",
    Merge.CLEAR,
)
