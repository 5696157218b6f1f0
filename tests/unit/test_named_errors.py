"""Errors of a command that reads an account: they name the account, and where its key can be corrected."""

import json
from pathlib import Path

import pytest

from klaviyo_pg import cli
from klaviyo_pg.cli.summary import Invocation, Times, show
from klaviyo_pg.errors import BadKey
from klaviyo_pg.settings import Settings

NO_KEY = "No API key. Set KLAVIYO_API_KEY to a private API key of the account."


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("KLAVIYO_API_KEY", "KLAVIYO_INTEGRATION", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def error_of(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    """Run a command that fails, and return what it printed to standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main(command, arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.strip()


def test_an_error_names_the_account_of_the_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a loop over files with settings. The default name says nothing."""
    assert error_of(capsys, "daily") == NO_KEY
    Path("shop-uk.env").write_text("KLAVIYO_INTEGRATION=shop-uk")
    monkeypatch.setenv("KLAVIYO_PG_ENV_FILE", "shop-uk.env")
    assert error_of(capsys, "daily") == f"shop-uk: {NO_KEY}"
    assert error_of(capsys, "daily", "--integration", "shop-de") == f"shop-de: {NO_KEY}"


def test_an_invalid_setting_is_named_with_the_account(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLAVIYO_INTEGRATION", "shop-uk")
    monkeypatch.setenv("CONCURRENCY", "none")
    assert error_of(capsys, "daily").startswith("shop-uk: CONCURRENCY: ")


def test_a_command_that_reads_no_account_names_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLAVIYO_INTEGRATION", "shop-uk")
    assert error_of(capsys, "status").startswith("There is no warehouse")


@pytest.mark.parametrize("name", ["shop-uk", "default"])
def test_an_error_as_json_has_the_account(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("KLAVIYO_INTEGRATION", name)
    monkeypatch.setenv("LOG_FORMAT", "json")
    line = json.loads(error_of(capsys, "daily"))
    assert (line["level"], line["account"], line["message"]) == ("error", name, NO_KEY)


def test_an_error_that_ended_a_flow_names_the_account(capsys: pytest.CaptureFixture[str]) -> None:
    invocation = Invocation("", "daily", is_demo=False, prefix="")
    assert show(Settings(klaviyo_integration="shop-uk"), BadKey(), Times(0, 0), invocation) == 2
    assert capsys.readouterr().err == f"shop-uk: {BadKey()}\n"


def test_a_key_in_a_block_is_corrected_there() -> None:
    """Wherever the error occurs, and in copies of the settings too."""
    settings = Settings(klaviyo_api_key="pk_é").with_key_of("shop-uk").model_copy(update={"request_attempts": 1})
    remedy = "Save it again: klaviyo-pg save-blocks --klaviyo shop-uk."
    assert str(settings.refused_key()) == f"Klaviyo does not accept the API key in the block shop-uk. {remedy}"
    with pytest.raises(BadKey, match=r"^The API key in the block shop-uk contains an invalid character\. "):
        settings.api_key  # noqa: B018
    with pytest.raises(BadKey, match=r"^The block shop-uk has no API key\. "):
        Settings().with_key_of("shop-uk").api_key  # noqa: B018
    assert str(Settings().refused_key()) == str(BadKey())
