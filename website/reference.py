"""Files that follow from the code: the pages about tables and settings, and the sources of the example for dbt.

`python -m website.reference` writes them; a test fails if they are not up to date.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic_core import PydanticUndefined

from klaviyo_pg.catalogue import ADDED, BOOKKEEPING, DATA, SPECIFIED, STORED, VIEWS, Column, Table, View, events
from klaviyo_pg.settings import Settings
from website.dbt_sources import sources

ROOT = Path(__file__).resolve().parent.parent
_NAMED = re.compile(
    r"(?<!_key )joins to (?:(?P<column>\w+) of )?(?P<tables>\w+(?:\.\w+)?(?:, \w+)*(?: or \w+)?)(?=[.,;]|$)"
)
_ABOUT_TABLES = """# Tables

Every table, view and column, with its source in the current and the legacy API. This page is generated from the
catalogue, and the same descriptions are comments in the database (`\\d+ klaviyo.sends`).

The tables are in the schema `klaviyo` (`WAREHOUSE_SCHEMA`), apart from [internal tables](#internal-tables), which are
in `klaviyo_internal`. `key` identifies a row across accounts. If a warehouse has several accounts, join on
`esp_integration_id` as well, unless you join by `key`."""
_ABOUT_GROUPS = {
    "Internal tables": (
        "Only runs read and write these tables. They are in the schema `klaviyo_internal`, so that a BI tool does not"
        " list them among the others. Changing a row by hand can cost data.",
    )
}
_ABOUT_SETTINGS = """# Settings

Each setting is an environment variable, or a line of `.env` in the current directory. Parameters and flags of a run
take precedence over blocks, blocks over the environment, and the environment over `.env`. This page is generated from
the code; [.env.example](../.env.example) has the same settings as a file to start from. [Connect](postgres.md#connect)
explains `DATABASE_URL`.

- **Another file.** `KLAVIYO_PG_ENV_FILE=/etc/klaviyo-pg/shop-de.env` reads that file instead of `.env`: one for each of
  [several accounts](schedule.md#several-accounts). Prefect's own settings, such as `PREFECT_API_URL`, are still read
  from the environment or `.env`; a run warns if it ignores one in another file.
- **A prefix.** Each name can have the prefix `KLAVIYO_PG_`: `KLAVIYO_PG_METRICS` is `METRICS`, for a machine on which
  `METRICS` belongs to another program. The prefixed name wins wherever it is set; a run warns about the one it ignores.
  A file that sets both to different values is an error.
- **Names are checked.** An unknown name in the file is an error. A variable of the environment that looks like a
  misspelled setting is a warning."""
_MORE_ABOUT_SETTINGS = """## Choose what every run reads

`TABLES`, `METRICS` and `SEGMENTS` apply to all runs; `--tables` and `--metrics` replace them for one run. For example,
in `.env`:

```ini
# every table but one
TABLES=all,-images
# the events of every metric but one
METRICS=-Active on Site
# also the members of two segments
SEGMENTS=VIP,Churn risk
```

The members of all lists are read, or of none: `TABLES=default,-member_lists,-stg_member_lists`. Where they are read,
daily and reconcile runs also read exclusions and the metrics that say who has subscribed or unsubscribed, such as
`Unsubscribed from List`, whatever `METRICS` and `TABLES` leave out, so that a limit never makes people seem
contactable.

A metric that is read for the first time, such as one that was left out before, begins `FIRST_SYNC_DAYS` ago. If others
go further back, the run says so: load its earlier events with `klaviyo-pg backfill`.

Runs that `METRICS` or `TABLES` limits to some metrics do not read events of metrics that the API does not list. The
next run without such a limit reads them from where the last one stopped.

## Logs

Logs go to standard error, the summary of a run to standard output. `LOG_FORMAT=json` writes one JSON object on each
line, with `time` (UTC), `level`, `logger` and `message`, and `flow_run_name` and `task_run_name` where they apply. With
JSON logs there is no live display. A run's last line, on standard output, is its result: `account`, `flow`, `run_id`,
`state`, `exit_code`, `sentences`, `rows` by table, `requests`, `retries` and `seconds`. If a command has no result, for
example because another run is in progress or the database refused the login, it prints its error to standard error
instead, as a line with only the first four members. Invalid settings and wrong usage are reported as text.

`QUIET=true` prints only warnings and errors, for [cron](schedule.md#cron): a complete run prints nothing, not even its
result. Prefect's server gets all log records in any case.

## Proxies and certificates

Requests to Klaviyo use the proxy in `HTTPS_PROXY`, except for hosts in `NO_PROXY`. TLS certificates are always
verified, against the certificate authorities in `REQUESTS_CA_BUNDLE` if it is set: name a file that also contains the
usual ones, because it replaces them. All three can be in the environment or in `.env`; other variables of this kind,
such as `ALL_PROXY`, have an effect only in the environment. Requests to a sandbox on this machine use no proxy. The
password of a proxy is not logged, and is not passed to processes that do not call Klaviyo."""
_TYPES = {"timestamp with time zone": "timestamptz", "double precision": "float8", 'text COLLATE "C"': "text"}


class Join(NamedTuple):
    """A column whose values are those of a column of another table."""

    table: str
    column: str
    other_table: str
    other_column: str


def joins(tables: tuple[Table | View, ...]) -> list[Join]:
    """Return the joins that the descriptions of columns name. All event tables join as `events` does."""
    names = {table.name for table in tables}
    found = []
    for table in tables:
        if table in events.EVENT_TABLES and table is not events.EVENTS:
            continue
        for column in table.columns:
            for other, other_column in _targets(column):
                if other in names:
                    found.append(Join(table.name, column.name, other, other_column))
    return found


def _targets(column: Column) -> Iterator[tuple[str, str]]:
    """Yield the tables that a column joins to, with the column that is named."""
    for match in _NAMED.finditer(column.description):
        for target in re.split(", | or ", match["tables"]):
            table, _, named = target.partition(".")
            yield table, named or match["column"] or ""


def tables_page() -> str:
    """Return the page about the tables."""
    groups: tuple[tuple[str, tuple[Table | View, ...]], ...] = (
        ("Tables of the specification", SPECIFIED),
        ("Further tables", ADDED),
        ("Views", VIEWS),
        ("Stored marts", STORED),
        ("Bookkeeping", tuple(table for table in BOOKKEEPING if not table.internal)),
        ("Internal tables", tuple(table for table in BOOKKEEPING if table.internal)),
    )
    found = joins((*DATA, *VIEWS))
    parts = [
        _ABOUT_TABLES,
        "## How they join",
        _diagram(found),
    ]
    for title, tables in groups:
        parts += [f"## {title}", *_ABOUT_GROUPS.get(title, ())]
        for table in tables:
            parts += _section(table, [each for each in found if each.table == _joining(table)])
    return "\n\n".join(parts) + "\n"


def _joining(table: Table | View) -> str:
    return events.EVENTS.name if table in events.EVENT_TABLES else table.name


def _diagram(found: list[Join]) -> str:
    """Return an entity-relationship diagram in Mermaid: the seven event tables are one entity."""
    lines = sorted({f'    {each.table} }}o--o| {each.other_table} : "{each.column}"' for each in found})
    return "\n".join(["```mermaid", "erDiagram", *lines, "```"])


def _section(table: Table | View, found: list[Join]) -> Iterator[str]:
    yield f"### {table.name}"
    yield table.description
    if isinstance(table, Table):
        indexes = "".join(f", index on {_names(index)}" for index in table.indexes)
        yield f"Primary key {_names(table.primary_key)}{indexes}."
    has_sources = any(column.current or column.legacy for column in table.columns)
    names = ("column", "type", "description", *(("current API", "legacy API") if has_sources else ()))
    rows = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for column in table.columns:
        cells = [f"`{column.name}`", _type(column), _cell(column.description)]
        if has_sources:
            cells += [_cell(column.current), _cell(column.legacy)]
        rows.append(f"| {' | '.join(cells)} |")
    yield "\n".join(rows)
    if found:
        yield _example(table.name, found)


def _example(name: str, found: list[Join]) -> str:
    """Return a query that joins a table to each of its dimensions."""
    others: dict[str, Join] = {}
    for each in found:
        if each.other_table != name and each.other_table != "events":
            others.setdefault(each.other_table, each)
    if not others:
        return f"```sql\nSELECT * FROM klaviyo.{name} LIMIT 10;\n```"
    lines = [f"SELECT count(*) FROM klaviyo.{name}"]
    for other, each in others.items():
        on = f"{other}.{each.other_column} = {name}.{each.column}"
        if each.other_column != "key":
            on += f"\n    AND {other}.esp_integration_id = {name}.esp_integration_id"
        lines.append(f"LEFT JOIN klaviyo.{other} ON {on}")
    return "```sql\n" + "\n".join(lines) + ";\n```"


def _names(columns: tuple[str, ...]) -> str:
    return f"({', '.join(f'`{each}`' for each in columns)})"


def _type(column: Column) -> str:
    return _TYPES.get(column.type.sql, column.type.sql)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("$", "\\$")


def settings_page() -> str:
    """Return the page about the settings."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{name.upper()}` | {_default(field.default)} | {_cell(field.description or '')} |")
    return "\n\n".join([_ABOUT_SETTINGS, "## All settings", "\n".join(rows), _MORE_ABOUT_SETTINGS]) + "\n"


def _default(value: object) -> str:
    if value is None or value is PydanticUndefined or value in ((), {}):
        return ""
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{shown}`"


def files() -> Mapping[str, str]:
    """Return the text of each generated file, by its path."""
    return {
        "docs/tables.md": tables_page(),
        "docs/settings.md": settings_page(),
        "examples/dbt_native/models/sources.yml": sources(),
    }


if __name__ == "__main__":
    for path, content in files().items():
        (ROOT / path).write_text(content, "utf-8")
