"""Names of settings: which ones in the environment or in .env were probably misspelled. Knows no values."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches

PREFIX = "KLAVIYO_PG_"
"""Precedes the name of a setting where another program may use the same name. The prefixed form takes precedence."""
ENV_FILE = f"{PREFIX}ENV_FILE"
"""The variable with the path of the file that is read instead of .env. It is no setting: no file can contain it."""
OF_LIBRARIES = frozenset(
    {
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR"),
    }
)
"""The variables that libraries read from the environment."""
EXPORTED = frozenset({"HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"})
"""Those that may be in the file with settings as well. Not HTTP_PROXY and ALL_PROXY: Prefect's client would reach its
server on this machine through them."""
_OTHER_PROGRAMS = (  # whose variables people keep in the same file
    *("PREFECT_", "PG", "POSTGRES_", "COMPOSE_", "DOCKER_", "BUILDKIT_", "KUBE", "AWS_", "AZURE_", "GOOGLE_"),
    *("OTEL_", "SLACK_", "PYTHON", "PIP_", "UV_", "LC_"),
)
_OTHERS = frozenset(
    {
        # read by prefect.yaml when it is deployed
        *("DAILY_CRON", "BACKFILL_START", "RECONCILE_CRON", "SCHEDULE_TIMEZONE", "ON_COLLISION", "PROJECT_DIR"),
        *("KLAVIYO_PG_IMAGE", "KLAVIYO_BLOCK", "WAREHOUSE_BLOCK"),
        *("DO_NOT_TRACK", "TZ", "LANG", "PATH", "HOME", "TMPDIR", "NO_COLOR"),
        *OF_LIBRARIES,
    }
)
_OURS = "KLAVIYO_"
_SIMILAR = 0.6  # share of equal characters from which on a name is worth suggesting
_NEARLY_EQUAL = 0.85  # from which on a variable of the environment is taken for a misspelled setting


def unknown(names: Iterable[str], settings: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each name that is neither a setting nor a variable that belongs to another program."""
    for name in dict.fromkeys(map(str.upper, names)):
        if not _is_setting(name, settings) and name not in _OTHERS and not name.startswith(_OTHER_PROGRAMS):
            advice = _suggestion(name, settings) or "Remove it, or set it in the environment instead."
            yield f"{name} is not a setting. {advice}"


def _is_setting(name: str, settings: Collection[str]) -> bool:
    return name.removeprefix(PREFIX) in settings


def set_twice(values: Mapping[str, object], settings: Collection[str]) -> Iterator[str]:
    """Yield the names of settings that have another value with the prefix than without it."""
    return (name for name in sorted(settings) if PREFIX + name in values and _differs(values, name))


def _differs(values: Mapping[str, object], name: str) -> bool:
    return name in values and values[name] != values[PREFIX + name]


def _suggestion(name: str, settings: Collection[str]) -> str:
    nearest = _nearest(name, settings, _SIMILAR)
    return f"Did you mean {nearest}?" if nearest else ""


def misspelled(environment: Iterable[str], settings: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each variable of the environment that is ignored and looks like a setting.

    The environment belongs to every program, so only names that begin with KLAVIYO_ count, and names that are nearly
    those of settings that are not set.
    """
    names = set(map(str.upper, environment))
    missing = set(settings) - names
    for name in sorted(name for name in names - _OTHERS - {ENV_FILE} if not _is_setting(name, settings)):
        if name.startswith(_OURS):
            yield f"{name} is not a setting and is ignored. {_suggestion(name, settings)}".rstrip()
        elif nearest := _nearest(name, missing, _NEARLY_EQUAL):
            yield f"{name} is not a setting and is ignored. Did you mean {nearest}?"


def _nearest(name: str, settings: Collection[str], similarity: float) -> str | None:
    prefix = PREFIX if name.startswith(PREFIX) else ""
    return next(
        (prefix + each for each in get_close_matches(name[len(prefix) :], sorted(settings), 1, similarity)), None
    )
