"""The command `tables`: the tables that TABLES can name, and what a selection means for each."""

from argparse import Namespace
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg.catalogue import DATA
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.klaviyo.dialects import dialect_of
from klaviyo_pg.settings import Settings
from pipeline.streams import STREAMS
from pipeline.streams.segments import SEGMENT_MEMBERS
from pipeline.streams.selection import selection_of
from pipeline.streams.stream import Stream

_EVENTS = frozenset(table.name for table in EVENT_TABLES)


def tables(arguments: Namespace) -> int:
    """List the tables by group, with what the selection means for each."""
    settings = check_settings(tables=arguments.tables)
    states = selected(settings)
    contents = {table.name: table.description.partition(". ")[0].rstrip(".") for table in DATA}
    for title, names in groups().items():
        shown = Table(
            "table", "selected", "contents", title=title, title_justify="left", box=None, padding=(0, 2, 0, 0)
        )
        for name in names:
            shown.add_row(name, states[name], escape(contents[name]))
        Console().print(shown)
        print()
    print("In part: other tables bring some of its rows. klaviyo-pg check --tables NAMES estimates the requests.")
    return 0


def groups() -> Mapping[str, Sequence[str]]:
    """Return the names of the tables by group, in the order of the catalogue."""
    others = [table.name for table in DATA if table.name not in _EVENTS]
    on_request = {name for name in others if any(stream.on_request for stream in _sources(name))}
    return {
        "Tables of events": [table.name for table in EVENT_TABLES],
        "Other tables that TABLES=default fills": [name for name in others if name not in on_request],
        "Opt-in tables and reports, which cost extra requests": [name for name in others if name in on_request],
    }


def selected(settings: Settings) -> Mapping[str, str]:
    """Return for each table if the settings select it: yes, no, in part, or what it needs besides."""
    wanted = selection_of(settings)
    events = wanted.event_tables(dialect_of(settings))
    read = wanted.streams

    def state(name: str) -> str:
        if name in _EVENTS:
            return "yes" if events is None or name in events else "no"
        sources = _sources(name)
        if not sources or any(stream.name in read for stream in sources):
            return "yes" if name != SEGMENT_MEMBERS.table.name or settings.segments else "needs SEGMENTS"
        return "in part" if any(name in STREAMS[each].tables for each in read) else "no"

    return {table.name: state(table.name) for table in DATA}


def _sources(name: str) -> list[Stream]:
    """Return the streams that are read for a table; if none is, those that fill it besides others."""
    filling = [stream for stream in STREAMS.values() if name in stream.tables]
    return [stream for stream in filling if name in stream.leading] or filling
