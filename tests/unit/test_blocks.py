"""The block of an account contains everything that the settings say about it."""

import logging
from typing import Any

import pytest

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.settings import Settings, load_settings
from tasks import blocks, save_blocks
from tasks.blocks import KlaviyoCredentials

OF_ACCOUNT = {
    "METRICS": ["-Active on Site"],
    "TABLES": ["default", "catalog_items"],
    "DESTINATIONS": {"Opened Push": "opens"},
    "PERSONAL_DATA": "hash",
    "EVENTS_SINCE": "2024-01-01",
    "FIRST_SYNC_DAYS": 365.0,
    "WAREHOUSE_SCHEMA": "shop_fr",
}
SALT = "a-salt-of-many-characters"


def test_a_block_stands_for_every_setting_of_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that the block lacks would be that of the worker, which serves several accounts."""
    values = {
        "klaviyo_api_key": "pk_1",
        "klaviyo_integration": "shop",
        "klaviyo_dialect": "current",
        "klaviyo_revision": "2026-10-15",
        "klaviyo_base_url": "http://127.0.0.1:8900",
        "klaviyo_account_id": "ABC123",
    }
    assert {name for name in Settings.model_fields if name.startswith("klaviyo_")} == set(values)
    for name, value in values.items():
        monkeypatch.setenv(name.upper(), value)
    [(_, block)] = save_blocks.make(load_settings(), "shop", None)
    assert isinstance(block, KlaviyoCredentials)
    assert {**block.changes(), "klaviyo_api_key": block.api_key.get_secret_value()} == {
        **values,
        "personal_data_salt": None,
    }


def _load(monkeypatch: pytest.MonkeyPatch, **content: Any) -> Settings:
    """Return the settings of a run whose parameter names a block with this content."""
    block = KlaviyoCredentials(api_key="pk_1", **content)
    monkeypatch.setattr(blocks, "load_block", lambda kind, name: block)
    monkeypatch.setattr(blocks, "get_run_logger", lambda: logging.getLogger("test"))
    return blocks.settings_from("shop-fr", None)


def test_a_block_contains_the_settings_of_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run anywhere has the settings with which the block was saved, but those of its machine are its worker's."""
    for name, value in {**OF_ACCOUNT, "PERSONAL_DATA_SALT": SALT, "CONCURRENCY": 3, "SPOOL_HOURS": 2}.items():
        monkeypatch.setenv(name, value if isinstance(value, str) else repr(value).replace("'", '"'))
    monkeypatch.setenv("KLAVIYO_API_KEY", "pk_1")
    saved = load_settings()
    block = KlaviyoCredentials.of(saved)
    assert block.settings == OF_ACCOUNT
    for name in (*OF_ACCOUNT, "PERSONAL_DATA_SALT", "SPOOL_HOURS"):
        monkeypatch.delenv(name)
    loaded = _load(monkeypatch, settings=block.settings, personal_data_salt=block.personal_data_salt)
    assert loaded == saved.model_copy(update={"spool_hours": 72}).with_key_of("shop-fr")
    assert SALT not in block.model_dump_json()


def test_settings_of_a_block_take_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAVIYO_PG_TABLES", "sends")
    assert _load(monkeypatch, settings={"TABLES": "opens,clicks"}).tables == ("opens", "clicks")


@pytest.mark.parametrize("name", ["TABELS", "DATABASE_URL", "PERSONAL_DATA_SALT", "KLAVIYO_API_KEY"])
def test_a_block_with_other_names_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are misspelled, or belong where Prefect keeps them secret."""
    with pytest.raises(BadSettings, match=f"^{name} cannot be among the settings of a Klaviyo Credentials block"):
        _load(monkeypatch, settings={name: "x"})


def test_an_invalid_setting_of_a_block_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSettings, match=r"^FIRST_SYNC_DAYS in the block shop-fr: Input should be a valid number"):
        _load(monkeypatch, settings={"FIRST_SYNC_DAYS": "many"})


def test_a_key_that_klaviyo_refuses_is_named_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the API key in the block shop-fr. Save it again" in str(_load(monkeypatch).refused_key())
