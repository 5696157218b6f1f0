"""DATABASE_URL as the parameters of a connection, by their libpq names, and back. Opens no connection.

Every form that psql, psycopg and SQLAlchemy accept is accepted: a driver after postgresql+, several hosts, sockets,
services, and the connection parameters of libpq in the query.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from urllib.parse import quote, unquote, unquote_plus

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from klaviyo_pg.errors import BadSettings

Parameters = Mapping[str, str]
"""The parameters of a connection, by their libpq names."""

_FORM = "DATABASE_URL is not a URL such as postgresql://user:password@host:5432/database."
_ENCODE = (
    "DATABASE_URL contains a character that must be percent-encoded in the user name, the password or the name of the "
    "database: write @ as %40, / as %2F, ? as %3F and % as %25."
)
_URL = re.compile(r"postgres(?:ql)?(?P<driver>\+\w+)?://(?P<place>[^?]*)(?:\?(?P<query>.*))?", re.DOTALL)
_BAD_ENCODING = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
_HOST_AND_PORT = re.compile(r"([\w.-]+):(\d+)")  # as SQLAlchemy writes several hosts
_OPTION = re.compile(r"[a-z_]+")
_OWN_ADDRESSES = frozenset({"", "localhost", "127.0.0.1", "::1"})
_LARGEST_PORT = 65535
_SSL = {"true": "require"}  # as JDBC and asyncpg write sslmode


def parse(url: str) -> dict[str, str]:
    """Return the parameters of a postgresql:// URL. Raises BadSettings, with a message that shows nothing secret."""
    match = _URL.fullmatch(url.strip())
    if match is None:
        raise BadSettings(_FORM)
    place, query = match["place"], match["query"] or ""
    if "@" in query or place.count("@") > 1 or "@" in place.partition("/")[2] or _BAD_ENCODING.search(place + query):
        raise BadSettings(_ENCODE)
    try:
        before_query = conninfo_to_dict(f"postgresql://{place}".replace(" ", "%20"))  # SQLAlchemy leaves blanks
        options = _joined(list(_pairs(query, is_form=match["driver"] is not None)))
        parameters = {name: str(value) for name, value in {**before_query, **options}.items() if value}
        make_conninfo("", **parameters)
    except (psycopg.ProgrammingError, ValueError):
        raise BadSettings(_FORM) from None
    _check_ports(parameters.get("port", ""))
    return parameters


def _pairs(query: str, is_form: bool) -> Iterator[tuple[str, str]]:
    """Yield the names and values in a query. In a form, as SQLAlchemy reads it, a plus sign stands for a blank."""
    decode = unquote_plus if is_form else unquote
    for pair in filter(None, query.split("&")):
        name, _, value = (decode(part, errors="strict") for part in pair.partition("="))
        if name == "ssl":
            name, value = "sslmode", _SSL.get(value, value)
        if name not in _known():
            raise _unknown(name)
        yield name, value


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return the options by name. Several hosts are joined as libpq expects them; of other options the last counts."""
    hosts = [value for name, value in pairs if name == "host"]
    matches = [_HOST_AND_PORT.fullmatch(host) for host in hosts]
    if len(hosts) > 1 or any(matches):
        places = [match.groups() if match else (host, "") for host, match in zip(hosts, matches, strict=True)]
        ports = [value for name, value in pairs if name == "port"] or [port for _, port in places]
        joined = ",".join(ports) if any(ports) else ""
        pairs = [*pairs, ("host", ",".join(host for host, _ in places)), ("port", joined)]
    return dict(pairs)


def _unknown(name: str) -> BadSettings:
    if not _OPTION.fullmatch(name):
        return BadSettings(_FORM)
    nearest = get_close_matches(name, _known(), 1)
    hint = f"Did you mean {nearest[0]}?" if nearest else "Remove it."
    return BadSettings(f"DATABASE_URL contains the unknown option {name}. {hint}")


def _check_ports(ports: str) -> None:
    for port in filter(None, ports.split(",")):
        if not (port.isdecimal() and 0 < int(port) <= _LARGEST_PORT):
            raise BadSettings(_FORM)


@cache
def _known() -> frozenset[str]:
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())


@cache
def secret_names() -> frozenset[str]:
    """Return the names of the parameters that libpq itself hides, such as password and sslpassword."""
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.dispchar == b"*")


def secrets_of(parameters: Parameters) -> list[str]:
    """Return the secrets among the parameters. A password that equals the user's name hides nothing."""
    public = {parameters.get("user"), parameters.get("dbname")}
    return [parameters[name] for name in secret_names() if name in parameters and parameters[name] not in public]


def is_local(parameters: Parameters) -> bool:
    """Return whether the database is on this machine: on a socket, which libpq takes by default, or its own address."""
    hosts = (parameters.get("hostaddr") or parameters.get("host") or "").split(",")
    return all(host in _OWN_ADDRESSES or host.startswith(("/", "@")) for host in hosts)


def as_url(parameters: Parameters) -> str:
    """Return a URL for these parameters that `parse` reads back."""
    pairs = (f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    return f"postgresql://?{'&'.join(pairs)}"
