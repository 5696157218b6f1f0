"""The secrets of the settings and of proxies, for taking them out of texts by others. Knows no log and no Prefect."""

from contextlib import suppress
from traceback import format_exception

from klaviyo_pg.environment import proxy_passwords
from klaviyo_pg.errors import BadSettings, KlaviyoPgError
from klaviyo_pg.postgres import address
from klaviyo_pg.redaction import redacted
from klaviyo_pg.settings import Settings
from pipeline.outcome import describe


def secrets_of(settings: Settings) -> list[str]:
    """Return the API key, the salt, the secrets in DATABASE_URL, and the passwords of proxies."""
    secrets = [each.get_secret_value() for each in (settings.klaviyo_api_key, settings.personal_data_salt) if each]
    if settings.database_url:
        with suppress(BadSettings):  # no driver ever gets a malformed URL
            secrets += address.secrets_of(address.parse(settings.database_url.get_secret_value()))
    return [*secrets, *proxy_passwords()]


def presentable(error: Exception, settings: Settings) -> Exception:
    """Return an error by others as it is or, if it shows a secret, an error of this project in its place."""
    text, secrets = "".join(format_exception(error)), secrets_of(settings)
    if redacted(text, secrets) == text:
        return error
    return KlaviyoPgError(redacted(describe(error), secrets))
