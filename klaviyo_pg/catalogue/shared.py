"""Columns that many tables carry."""

from klaviyo_pg.catalogue.types import KEY, TEXT, TIMESTAMP, Column, Merge

KEY_OF_ID = Column("key", KEY, "md5(esp_source || ':' || esp_integration_id || ':' || id)", "computed", "computed")
ESP_SOURCE = Column("esp_source", TEXT, "Always 'Klaviyo'.", "constant", "constant")
ESP_INTEGRATION_ID = Column(
    "esp_integration_id",
    TEXT,
    "The id that this warehouse gave to the Klaviyo account; see integrations.",
    "generated once",
    "generated once",
)
SYNCED_AT = Column(
    "__synced_at",
    TIMESTAMP,
    "When the row was last written to this database.",
    "load time",
    "load time",
    Merge.STAMP,
)
ORIGIN = (ESP_SOURCE, ESP_INTEGRATION_ID, SYNCED_AT)
DELETED_AT = Column(
    "deleted_at",
    TIMESTAMP,
    "When a complete read no longer held the row; null while the source has it.",
    "computed",
    "computed",
    Merge.CLEAR,
)
