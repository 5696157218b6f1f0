"""The command `report`: writes a report on the warehouse as one HTML file."""

import os
from argparse import Namespace
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from klaviyo_pg import extras
from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.warehouse import chosen_accounts, open_warehouse
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.plurals import counted
from pipeline.commands.html_report import charts, contents, page


def report(arguments: Namespace) -> int:
    """Write a report on one account or on all of them."""
    settings, file = check_settings(), arguments.out
    _check_file(file)
    with open_warehouse(settings) as connection:
        shown = chosen_accounts(connection, settings.warehouse_schema, arguments.integration)
        made = contents.read(connection, settings, shown, datetime.now(UTC))
    text = page.render(made)
    write(file, text)
    print(f"Wrote {file} ({page.size(len(text.encode()))}, {counted(len(shown), 'account')}).")
    for account in made.accounts:
        if account.left_out:
            print(f"Left out for {account.name}: {', '.join(account.left_out)}. The report says why.")
    if not charts.is_available():
        print(f"Charts are left out, because they need matplotlib. Install it: {extras.command('pictures')}")
    return 0


def _check_file(file: Path) -> None:
    """Raise BadSettings if the file cannot be written, before anything is read."""
    if file.is_dir():
        raise BadSettings(f"--out {file}: this is a folder. Name a file, such as {file / 'report.html'}.")
    if file.exists() and not file.is_file():
        raise BadSettings(f"--out {file}: this is not a regular file. Name a file, such as report.html.")
    if not file.parent.is_dir():
        raise BadSettings(f"--out {file}: there is no folder {file.parent}. Create it, or choose another file.")


def write(file: Path, text: str) -> None:
    """Replace a file at once: a reader gets the earlier one or the new one. A link stays, and its file is replaced."""
    written = file.resolve()
    waiting = written.with_name(f".{written.name}.{os.getpid()}")
    try:
        waiting.write_text(text, "utf-8")
        waiting.replace(written)
    except OSError as error:
        raise BadSettings(f"--out {file}: cannot write the file ({error.strerror}).") from None
    finally:
        with suppress(OSError):
            waiting.unlink()
