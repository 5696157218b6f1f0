"""The block of an account contains everything that the settings say about it."""

import pytest

from klaviyo_pg.settings import Settings
from tasks import save_blocks
from tasks.blocks import KlaviyoCredentials


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
    [(_, block)] = save_blocks.make("shop", None)
    assert isinstance(block, KlaviyoCredentials)
    assert {**block.changes(), "klaviyo_api_key": block.api_key.get_secret_value()} == values
