"""Settings: what is read from the environment, how it is validated, and what an invalid value is reported as."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from klaviyo_pg import env_file, names
from klaviyo_pg.environment import override, without_secrets
from klaviyo_pg.errors import BadKey, BadSettings
from klaviyo_pg.settings import Settings, ignored_variables, load_settings, name_in_use
from pipeline.backfill import processes
from sandbox import launcher

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".env.example"
KEY = "pk_0123456789abcdef"
URL = "postgresql://user:pa55word@127.0.0.1/warehouse"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"KLAVIYO_PG_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        pytest.param("KLAVIYO_BASE_URL", "http://127.0.0.1:8000", "http://127.0.0.1:8000", id="localhost"),
        pytest.param("KLAVIYO_DIALECT", "legacy", "legacy", id="dialect"),
        pytest.param("KLAVIYO_REVISION", "2026-10-15", "2026-10-15", id="revision"),
        pytest.param("KLAVIYO_INTEGRATION", "shop two", "shop two", id="integration"),
        pytest.param("KLAVIYO_ACCOUNT_ID", "ACC123", "ACC123", id="account"),
        pytest.param("KLAVIYO_ACCOUNT_ID", " ", None, id="blank account"),
        pytest.param("WAREHOUSE_SCHEMA", 'my "schema"', 'my "schema"', id="schema that needs quoting"),
        pytest.param("WAREHOUSE_SCHEMA", "é" * 27, "é" * 27, id="schema of 54 bytes"),
        pytest.param("LOOKBACK_DAYS", "0", 0.0, id="no lookback"),
        pytest.param("RECONCILE_DAYS", "0", 0, id="no counts"),
        pytest.param("FIRST_SYNC_DAYS", "0.5", 0.5, id="half a day"),
        pytest.param("METRICS", "Opened Email, -Placed Order,,", ("Opened Email", "-Placed Order"), id="commas"),
        pytest.param("METRICS", '["Clicked, twice"]', ("Clicked, twice",), id="JSON"),
        pytest.param("METRICS", "", (), id="no metrics"),
        pytest.param("TABLES", "all, -campaigns", ("all", "-campaigns"), id="tables"),
        pytest.param("DESTINATIONS", '{"Opened Push": "opens"}', {"Opened Push": "opens"}, id="destinations"),
        pytest.param("CONCURRENCY", "16", 16, id="concurrency"),
        pytest.param("PROCESSES", "4", 4, id="processes"),
        pytest.param("PROCESSES", "", None, id="as many processes as there are processors"),
        pytest.param("REQUEST_TIMEOUT_SECONDS", "1.5", 1.5, id="timeout"),
        pytest.param("REQUEST_ATTEMPTS", "1", 1, id="attempts"),
        pytest.param("RETRY_BUDGET_SECONDS", "10", 10.0, id="budget"),
        pytest.param("DATA_DIR", "/tmp/x", Path("/tmp/x"), id="folder"),
    ],
)
def test_a_setting_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    """Each setting is read from the variable of the same name in upper case."""
    monkeypatch.setenv(name, text)
    assert getattr(load_settings(), name.lower()) == value


@pytest.mark.parametrize(
    ("text", "days"), [pytest.param(None, 7, id="default"), ("3", 3), ("1", 1), ("30", 30), ("0", 0)]
)
def test_overlap_without_counts_is_a_week_unless_set(
    monkeypatch: pytest.MonkeyPatch, text: str | None, days: float
) -> None:
    """Metrics without counts are read again for a week, unless LOOKBACK_DAYS is set."""
    if text is not None:
        monkeypatch.setenv("LOOKBACK_DAYS", text)
    assert load_settings().blind_lookback_days == days


def test_secrets_can_be_read_but_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key and the database password are available to code, but appear in no repr and no dump."""
    monkeypatch.setenv("KLAVIYO_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("DATABASE_URL", URL)
    settings = load_settings()
    assert settings.api_key == KEY
    assert settings.database_url is not None and settings.database_url.get_secret_value() == URL
    for shown in (repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()):
        assert KEY not in shown and "pa55word" not in shown


def test_blank_secrets_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is set to an empty or blank text counts as unset."""
    monkeypatch.setenv("KLAVIYO_API_KEY", " ")
    monkeypatch.setenv("DATABASE_URL", "")
    settings = load_settings()
    assert settings.klaviyo_api_key is None and settings.database_url is None
    with pytest.raises(BadKey, match=r"^No API key\. Set KLAVIYO_API_KEY [^.]*\.$"):
        settings.api_key  # noqa: B018


@pytest.mark.parametrize("key", ["pk_é", "pk_€", "pk_a\nb", "pk_“a”"])
def test_malformed_key_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """A key with characters that a header cannot carry is refused, and the error does not repeat it."""
    monkeypatch.setenv("KLAVIYO_API_KEY", key)
    with pytest.raises(BadKey) as caught:
        load_settings().api_key  # noqa: B018
    assert key not in str(caught.value)


def test_overrides_take_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An override replaces the variable, unless it is None."""
    monkeypatch.setenv("KLAVIYO_INTEGRATION", "environment")
    assert load_settings(klaviyo_integration="override").klaviyo_integration == "override"
    assert load_settings(klaviyo_integration=None).klaviyo_integration == "environment"
    assert load_settings(metrics=["a, b"]).metrics == ("a, b",)


def test_env_file_is_read(tmp_path: Path) -> None:
    """A .env file in the working directory is read, and may contain variables of other programs."""
    (tmp_path / ".env").write_text("KLAVIYO_INTEGRATION=file\nPREFECT_API_URL=x\nPGUSER=x\nCOMPOSE_PROFILES=x\n")
    assert load_settings().klaviyo_integration == "file"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("DATABSE_URL=postgresql://secret", "DATABSE_URL is not a setting. Did you mean DATABASE_URL?"),
        ("export PERSONAL_DATE=hash", "PERSONAL_DATE is not a setting. Did you mean PERSONAL_DATA?"),
        ("klaviyo_key=secret", "KLAVIYO_KEY is not a setting. Did you mean KLAVIYO_API_KEY?"),
        ("XYZZY=secret", "XYZZY is not a setting. Remove it, or set it in the environment instead."),
    ],
)
def test_unknown_name_in_env_file_is_refused(tmp_path: Path, line: str, sentence: str) -> None:
    """A name in .env that is not a setting is an error, which names the nearest setting and no value."""
    (tmp_path / ".env").write_text(f"# comment\nMETRICS=\n{line}\n")
    with pytest.raises(BadSettings) as caught:
        load_settings()
    assert str(caught.value) == f".env: {sentence}"


@pytest.mark.parametrize("name", ["DAILY_CRON", "KLAVIYO_PG_IMAGE", "HTTPS_PROXY", "POSTGRES_PASSWORD", "TZ"])
def test_name_of_another_program_is_accepted_in_env_file(tmp_path: Path, name: str) -> None:
    (tmp_path / ".env").write_text(f"{name}=x\n")
    assert load_settings() == Settings()


def test_variables_of_deployments_are_accepted() -> None:
    """In .env, which compose reads as well, and in the environment."""
    steps = yaml.safe_load((ROOT / "prefect.yaml").read_text())["build"]
    variables, blocks = (next(iter(step.values())) for step in steps)
    read = {*variables, *blocks.values()} - {variables["id"], blocks["id"], "id"}
    assert {"DAILY_CRON", "KLAVIYO_BLOCK", "WAREHOUSE_BLOCK"} <= read
    settings = list(map(str.upper, Settings.model_fields))
    assert [*names.unknown(read, settings), *names.misspelled(read, settings)] == []


@pytest.mark.parametrize(("content", "reason"), [(b"METRICS=\xff", "it is not UTF-8 text")])
def test_unreadable_env_file_is_reported(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(BadSettings, match=rf"^Cannot read \.env: {reason}\.$"):
        load_settings()


def test_misspelled_variables_of_the_environment_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that begin with KLAVIYO_ or are nearly those of unset settings are reported; other names are not."""
    assert ignored_variables() == []
    monkeypatch.setenv("METRICS", "Opened Email")
    for name in ("KLAVIYO_INTEGRATON", "PERSONAL_DATE", "METRIC", "DATABASE", "KLAVIYO_PG_IMAGE", "CONCURRENT_JOBS"):
        monkeypatch.setenv(name, "secret")
    assert ignored_variables() == [
        "KLAVIYO_INTEGRATON is not a setting and is ignored. Did you mean KLAVIYO_INTEGRATION?",
        "PERSONAL_DATE is not a setting and is ignored. Did you mean PERSONAL_DATA?",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("KLAVIYO_BASE_URL", "http://a.klaviyo.com", id="plain http elsewhere"),
        pytest.param("KLAVIYO_BASE_URL", "a.klaviyo.com", id="no scheme"),
        pytest.param("KLAVIYO_BASE_URL", "https://user:secret@a.klaviyo.com", id="user name"),
        pytest.param("KLAVIYO_BASE_URL", "https://:secret@a.klaviyo.com", id="password"),
        pytest.param("KLAVIYO_BASE_URL", "https://a.klaviyo.com?api_key=secret", id="query string"),
        pytest.param("KLAVIYO_BASE_URL", "https://[", id="unclosed bracket"),
        pytest.param("KLAVIYO_DIALECT", "v3", id="dialect"),
        pytest.param("KLAVIYO_REVISION", "2025-10-15", id="unknown revision"),
        pytest.param("KLAVIYO_REVISION", "", id="empty revision"),
        pytest.param("KLAVIYO_INTEGRATION", "", id="empty name"),
        pytest.param("DATABASE_URL", "mysql://user:secret@127.0.0.1/x", id="another database"),
        pytest.param("WAREHOUSE_SCHEMA", "", id="empty schema"),
        pytest.param("WAREHOUSE_SCHEMA", "é" * 28, id="schema longer than 54 bytes"),
        pytest.param("WAREHOUSE_SCHEMA", "klaviyo_internal", id="schema of internal tables"),
        pytest.param("WAREHOUSE_SCHEMA", "pg_mine", id="reserved schema"),
        pytest.param("WAREHOUSE_SCHEMA", "my%schema", id="percent sign in a schema"),
        pytest.param("LOOKBACK_DAYS", "-1", id="negative"),
        pytest.param("LOOKBACK_DAYS", "nan", id="not a number"),
        pytest.param("RECONCILE_DAYS", "1827", id="more than the API counts"),
        pytest.param("FIRST_SYNC_DAYS", "0", id="zero"),
        pytest.param("FIRST_SYNC_DAYS", "99999", id="too far back"),
        pytest.param("METRICS", '["secret"', id="malformed JSON list"),
        pytest.param("METRICS", "[1]", id="list of numbers"),
        pytest.param("DESTINATIONS", "opens", id="not JSON"),
        pytest.param("DESTINATIONS", '{"a": 1}', id="not text"),
        pytest.param("CONCURRENCY", "0", id="no readers"),
        pytest.param("PROCESSES", "0", id="no process"),
        pytest.param("CONCURRENCY", "four", id="a word"),
        pytest.param("REQUEST_TIMEOUT_SECONDS", "0", id="no time"),
        pytest.param("REQUEST_TIMEOUT_SECONDS", "inf", id="infinite"),
        pytest.param("REQUEST_ATTEMPTS", "0", id="no attempt"),
        pytest.param("RETRY_BUDGET_SECONDS", "0", id="no budget"),
        pytest.param("RETRY_BUDGET_SECONDS", "inf", id="infinite budget"),
        pytest.param("SPOOL_HOURS", "inf", id="infinite hours"),
        pytest.param("EVENTS_SINCE", "2206-01-01", id="future day"),
    ],
)
def test_invalid_value_is_reported_by_setting(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """The error is one line that names the setting and does not repeat a value that may be secret."""
    monkeypatch.setenv(name, text)
    with pytest.raises(BadSettings) as caught:
        load_settings()
    message = str(caught.value)
    assert name in message
    assert "\n" not in message and message.endswith(".") and "secret" not in message
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("mode", ["hash", "drop"])
@pytest.mark.parametrize("salt", ["", "  ", "fifteen letters"])
def test_protection_requires_a_salt(monkeypatch: pytest.MonkeyPatch, mode: str, salt: str) -> None:
    """Hash and drop require a long salt, which the error does not repeat; keep requires none."""
    monkeypatch.setenv("PERSONAL_DATA_SALT", salt)
    assert load_settings(personal_data="keep").salt_digest is None
    with pytest.raises(BadSettings, match=rf"^PERSONAL_DATA={mode} requires PERSONAL_DATA_SALT\. [^.]*\.$") as raised:
        load_settings(personal_data=mode)
    assert not salt.strip() or salt not in str(raised.value)


def test_digest_identifies_a_salt_without_revealing_it() -> None:
    """Equal salts have equal digests, different salts different ones, and no salt is shown."""
    one, again, other = (
        load_settings(personal_data="hash", personal_data_salt=text * 8) for text in ("one", "one", "other")
    )
    assert one.salt_digest == again.salt_digest != other.salt_digest
    assert "oneone" not in f"{one!r} {one.salt_digest}"


def test_every_setting_is_described() -> None:
    """Every setting has a description that ends with a period, and a default."""
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name
        assert not field.is_required(), name


def test_env_example_lists_and_describes_every_setting() -> None:
    """The example file lists each setting once, in order, below its description."""
    lines = EXAMPLE.read_text().splitlines()
    named = {match[1]: at for at, line in enumerate(lines) if (match := re.fullmatch(r"#? ?([A-Z_]+)=(.*)", line))}
    assert list(named) == [name.upper() for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        assert lines[named[name.upper()] - 1] == f"# {field.description}"


@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_blank_integration_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A blank name is refused: it would create an account that is invisible in every list."""
    monkeypatch.setenv("KLAVIYO_INTEGRATION", name)
    with pytest.raises(BadSettings, match="KLAVIYO_INTEGRATION"):
        load_settings()


@pytest.mark.parametrize("url", ["http://127.0.0.1:abc", "https://", "https://:99999/", "https://a.klaviyo.com:0"])
def test_base_url_without_a_host_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A URL without a valid host is reported as an invalid setting, not as a failed connection."""
    monkeypatch.setenv("KLAVIYO_BASE_URL", url)
    with pytest.raises(BadSettings, match="KLAVIYO_BASE_URL has no valid host"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "METRICS",
            "[",
            'METRICS: must be a JSON list such as ["Opened Email", "Placed Order"], or names with commas.',
        ),
        (
            "DESTINATIONS",
            "x",
            'DESTINATIONS: must be a JSON object of metrics and their event tables, such as {"Opened Push": "opens"}.',
        ),
        (
            "DESTINATIONS",
            '{"a": 1}',
            'DESTINATIONS: must be a JSON object of metrics and their event tables, such as {"Opened Push": "opens"}.',
        ),
        ("DISPLAY_TIMEZONE", "Mars/Base", "DISPLAY_TIMEZONE: must be the name of a time zone, such as Europe/Berlin."),
        ("LOG_FORMAT", "xml", "LOG_FORMAT: Input should be 'text' or 'json'."),
        ("EVENT_INDEXES", "x", "EVENT_INDEXES: Input should be 'campaign' or 'member'."),
        (
            "STORED_MARTS",
            "x",
            "STORED_MARTS: Input should be 'campaign_performance', 'flow_performance', 'member_engagement', "
            "'list_growth', 'deliverability' or 'all'.",
        ),
    ],
)
def test_an_invalid_value_is_explained(monkeypatch: pytest.MonkeyPatch, name: str, text: str, sentence: str) -> None:
    """With an example of a valid one, not with a parser's position in a text that is not JSON."""
    monkeypatch.setenv(name, text)
    with pytest.raises(BadSettings) as caught:
        load_settings()
    assert str(caught.value) == sentence


def test_a_real_account_is_not_loaded_into_the_embedded_postgres_by_accident() -> None:
    """Without DATABASE_URL, a real account is refused until EMBEDDED_POSTGRES says that it is meant."""
    with pytest.raises(BadSettings, match=r"^DATABASE_URL is not set\. .* EMBEDDED_POSTGRES=true .*\.$"):
        load_settings().check_warehouse()
    load_settings(embedded_postgres=True).check_warehouse()
    load_settings(database_url=URL).check_warehouse()
    load_settings(klaviyo_base_url="http://127.0.0.1:8900").check_warehouse()


def test_a_name_with_the_prefix_takes_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It does wherever it is set, because the name without it may belong to another program."""
    monkeypatch.setenv("METRICS", "of another program")
    (tmp_path / ".env").write_text("KLAVIYO_PG_METRICS=Opened Email\n")
    assert load_settings().metrics == ("Opened Email",)
    monkeypatch.setenv("KLAVIYO_PG_METRICS", "Placed Order")
    assert load_settings().metrics == ("Placed Order",)
    assert load_settings(metrics=["Clicked Email"]).metrics == ("Clicked Email",)
    assert ignored_variables() == ["METRICS is ignored, because KLAVIYO_PG_METRICS is set."]


def test_a_file_that_sets_both_names_differently_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SPOOL=true\nKLAVIYO_PG_SPOOL=false\nTABLES=all\nKLAVIYO_PG_TABLES=all\n")
    with pytest.raises(BadSettings) as caught:
        load_settings()
    assert str(caught.value) == ".env: SPOOL and KLAVIYO_PG_SPOOL have different values. Remove one of them."


def test_names_with_the_prefix_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KLAVIYO_PG_METRIC", "Opened Email")
    monkeypatch.setenv("KLAVIYO_PG_TABLES", "all")
    assert ignored_variables() == [
        "KLAVIYO_PG_METRIC is not a setting and is ignored. Did you mean KLAVIYO_PG_METRICS?"
    ]
    (tmp_path / ".env").write_text("KLAVIYO_PG_DATABSE_URL=postgresql://secret\n")
    with pytest.raises(
        BadSettings, match=r"^\.env: KLAVIYO_PG_DATABSE_URL is not a setting\. Did you mean KLAVIYO_PG_DA"
    ):
        load_settings()


def test_another_file_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """KLAVIYO_PG_ENV_FILE replaces .env. A missing file is an error; no file can name another one."""
    (tmp_path / ".env").write_text("KLAVIYO_INTEGRATION=default-file\n")
    (tmp_path / "shop.env").write_text("KLAVIYO_INTEGRATION=shop\n")
    monkeypatch.setenv("KLAVIYO_PG_ENV_FILE", str(tmp_path / "shop.env"))
    assert load_settings().klaviyo_integration == "shop" and ignored_variables() == []
    monkeypatch.setenv("KLAVIYO_PG_ENV_FILE", "missing.env")
    with pytest.raises(BadSettings, match=r"^There is no file missing\.env\. Correct KLAVIYO_PG_ENV_FILE\.$"):
        load_settings()
    (tmp_path / ".env").write_text("KLAVIYO_PG_ENV_FILE=shop.env\n")
    monkeypatch.delenv("KLAVIYO_PG_ENV_FILE")
    with pytest.raises(BadSettings, match="KLAVIYO_PG_ENV_FILE is not a setting"):
        load_settings()


@pytest.mark.parametrize("name", ["DATABASE_URL", "KLAVIYO_PG_DATABASE_URL", "klaviyo_pg_klaviyo_api_key"])
def test_processes_that_need_no_secrets_get_none(name: str) -> None:
    assert without_secrets({name: "secret", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize("read", [without_secrets, launcher._without_secrets], ids=["a program", "the sandbox"])
def test_processes_that_send_nothing_to_klaviyo_get_no_password_of_a_proxy(
    read: Callable[[dict[str, str]], dict[str, str]],
) -> None:
    kept = {"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "a@b"}
    assert read({"https_proxy": "http://ann:secret@proxy:1", "ALL_PROXY": "ann:secret@proxy", **kept}) == kept


def test_a_reading_process_gets_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://ann:secret@proxy:1")
    assert processes._environment()["https_proxy"] == "http://ann:secret@proxy:1"


def test_a_command_overrides_the_file_and_the_prefix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The sandbox must never be loaded into a warehouse that a name with the prefix leads to."""
    (tmp_path / ".env").write_text(f"KLAVIYO_PG_DATABASE_URL={URL}\n")
    assert load_settings().database_url is not None and name_in_use("DATABASE_URL") == "KLAVIYO_PG_DATABASE_URL"
    for name in ("DATABASE_URL", "KLAVIYO_PG_DATABASE_URL"):
        monkeypatch.setenv(name, "to be restored")
    override({"DATABASE_URL": ""})
    assert load_settings().database_url is None


def test_the_first_variable_that_sets_a_setting_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is that which the settings are read from, also in lower case. The prefix comes before the environment."""
    name = "KLAVIYO_INTEGRATION"
    assert env_file.first(name) is None
    (tmp_path / ".env").write_text(f"{name}=file\n")
    assert env_file.first(name) == (name, load_settings().klaviyo_integration) == (name, "file")
    monkeypatch.setenv(name.lower(), "environment")
    assert env_file.first(name) == (name, load_settings().klaviyo_integration) == (name, "environment")
    (tmp_path / ".env").write_text(f"KLAVIYO_PG_{name}=prefixed\n")
    assert env_file.first(name) == (f"KLAVIYO_PG_{name}", load_settings().klaviyo_integration)


def test_prefect_reads_no_other_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server that only such a file names would be ignored silently."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    for name in (".env", "shop.env"):
        (tmp_path / name).write_text("PREFECT_API_URL=http://127.0.0.1:4200/api\n")
    assert ignored_variables() == []
    monkeypatch.setenv("KLAVIYO_PG_ENV_FILE", "shop.env")
    assert ignored_variables() == [
        "PREFECT_API_URL in shop.env is ignored, because Prefect reads only .env. Set it in the environment."
    ]
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert ignored_variables() == []


def test_libraries_get_their_variables_from_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment takes precedence. Other variables stay in the file, also proxies for Prefect's own server."""
    (tmp_path / ".env").write_text(
        "HTTPS_PROXY=http://file:1\nNO_PROXY=file\nSLACK_URL=secret\nHTTP_PROXY=http://file:2\nALL_PROXY=http://file:3\n"
    )
    for name in ("https_proxy", "no_proxy", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "environment")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    env_file.export_to_libraries()
    assert (os.environ["HTTPS_PROXY"], os.environ["NO_PROXY"]) == ("http://file:1", "environment")
    assert not {"SLACK_URL", "HTTP_PROXY", "ALL_PROXY"} & os.environ.keys()
