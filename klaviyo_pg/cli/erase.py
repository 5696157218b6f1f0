"""The command that erases people from the warehouse. Prints numbers only: no address and no ID."""

import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from klaviyo_pg.cli.deleting import answer, check_terminal, print_rows
from klaviyo_pg.cli.output import print_warning
from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.progress_lines import ProgressLines
from klaviyo_pg.cli.warehouse import no_account, open_warehouse, warehouse_url
from klaviyo_pg.errors import BadSettings, Busy
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres import accounts, claims, schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.accounts import RegisteredAccount
from klaviyo_pg.postgres.connect import connect
from klaviyo_pg.postgres.erasing.erase import pending, stored_profiles
from klaviyo_pg.postgres.load import INDEXABLE
from klaviyo_pg.settings import Settings
from pipeline import checks, spool
from pipeline.erasing import ErasedCounts, claim_over, erase_people, in_transactions

_ADDRESS = re.compile(r"[^\s@\0\ud800-\udfff]+@[^\s@\0\ud800-\udfff]+")  # surrogates: not UTF-8
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class _People(NamedTuple):
    """The people to erase: their addresses, and IDs of profiles."""

    addresses: set[str]
    ids: set[str]

    def __len__(self) -> int:
        return len(self.addresses) + len(self.ids)


def erase(arguments: Namespace) -> int:
    """Erase people from the warehouse, and what waits in the spool of the account on this machine."""
    settings = check_settings(klaviyo_integration=arguments.integration)
    name, schema_name = settings.klaviyo_integration, settings.warehouse_schema
    people = _named(arguments)
    with open_warehouse(settings) as connection:
        registered = accounts.find(connection, schema_name, name)
        if registered is None:
            raise no_account(connection, schema_name, name)
        _check_addresses(name, registered, people)
        connection.commit()
        account = Account(connection, schema_name, registered.integration_id)
        if not arguments.yes and not _is_confirmed(name, people, partial(_stored_profiles, account, people)):
            return 1
        schema.upgrade_patiently(connection, schema_name, schema.storage_of(settings), print_warning)
        checks.check_stays(account, name)
        _check_not_empty(account, people)
        erased = _erase(account, warehouse_url(settings), people)
        _empty_spool(account, settings)
    if erased is None:
        raise Busy(_left_to_another(name, people))
    _report(name, erased, people)
    return 0


def _erase(account: Account, url: str, people: _People) -> ErasedCounts | None:
    with closing(connect(url, account.schema)) as other:
        claim = claim_over(account, Account(other, account.schema, account.integration_id))
        return erase_people(in_transactions(account), claim, people.addresses, people.ids, ProgressLines().report)


def _left_to_another(name: str, people: _People) -> str:
    if not people:
        return f"Another process is erasing people of {name} already. It finishes what is left."
    number = "This person is" if len(people) == 1 else f"These {len(people):,} people are"
    return (
        f"{number} recorded. Another process that is erasing people of {name} erases them, too: klaviyo-pg status says "
        "whether that is finished."
    )


def _named(arguments: Namespace) -> _People:
    """Return the people that the arguments and the file name. Raises BadSettings if a line names no one."""
    people = _People({each.strip() for each in arguments.email}, {each.strip() for each in arguments.id})
    if not all((*people.addresses, *people.ids)):
        raise BadSettings("Name the people: pass --email or --id, or a --file.")
    if not all(map(_is_address, people.addresses)):
        raise BadSettings("--email: an argument is not an email address. Nothing was erased.")
    if not all(map(_ID.fullmatch, people.ids)):
        raise BadSettings("--id: an argument is not the ID of a profile. Nothing was erased.")
    if arguments.file is not None:
        for line in _names(arguments.file):
            (people.addresses if "@" in line else people.ids).add(line)
        if not people:
            raise BadSettings(f"--file {arguments.file}: the file names no one.")
    return people


def _names(file: str) -> Iterator[str]:
    for number, line in enumerate(_lines(file), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not (_is_address(text) or _ID.fullmatch(text)):
            raise BadSettings(
                f"--file {file}: line {number} is neither an email address nor the ID of a profile. Nothing was erased."
            )
        yield text


def _is_address(text: str) -> bool:
    return _ADDRESS.fullmatch(text) is not None and len(text.encode()) <= INDEXABLE


def _lines(file: str) -> Iterable[str]:
    try:
        if file == "-":
            return sys.stdin.buffer.read().decode("utf-8-sig").splitlines()
        return Path(file).read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadSettings(f"--file {file}: the file is not UTF-8 text.") from None
    except OSError as error:
        raise BadSettings(f"--file {file}: cannot read the file ({error.strerror}).") from None


def _check_addresses(name: str, registered: RegisteredAccount, people: _People) -> None:
    if people.addresses and registered.personal_data != "keep":
        raise BadSettings(
            f"{name} is stored with PERSONAL_DATA={registered.personal_data}, without addresses. Pass --id instead, or "
            "IDs in the file."
        )


def _stored_profiles(account: Account, people: _People) -> int:
    with account.connection.transaction():
        return stored_profiles(account, people.addresses, people.ids)


def _is_confirmed(name: str, people: _People, stored_profiles: Callable[[], int]) -> bool:
    if not people:
        return True  # what was confirmed before
    check_terminal("erased")
    number = "this person" if len(people) == 1 else f"{len(people):,} people"
    profiles = stored_profiles()
    stored = counted(profiles, "stored profile") if profiles else "no stored profiles"
    question = f"Erase {number} from all tables of {name} ({stored})? This cannot be undone. [y/N] "
    return answer(question).lower() in ("y", "yes")


def _check_not_empty(account: Account, people: _People) -> None:
    with account.connection.transaction():
        if not people and not pending(account):
            raise BadSettings("Name the people: pass --email or --id, or a --file. No erasing is left to finish.")


def _empty_spool(account: Account, settings: Settings) -> None:
    """Delete the spool of the account, unless a backfill needs it: what is loaded from it is filtered then."""
    with account.connection.transaction():
        if claims.try_claim(account, "backfill", for_transaction=True):
            spool.delete(settings.spool_dir / account.integration_id)
        else:
            print("A backfill is in progress. Its spool is kept: it leaves these people out when it loads it.")


def _report(name: str, erased: ErasedCounts, people: _People) -> None:
    """Print what was erased. Raises BadSettings if the people were named, and not found, by their addresses only."""
    found, ids, addresses = erased.people
    deleted = {table_name: rows for table_name, rows in erased.rows.items() if rows}
    if not people:
        print(f"Finished erasing people of {name}.")
    if deleted:
        print_rows(f"{name}: erased" if people else f"{name}: erased now", deleted)
    if found or deleted:
        print(f"{counted(found, 'profile')} erased.")
    elif people and addresses and not ids:
        missing = "no person with this address" if addresses == 1 else f"none of these {addresses:,} people"
        raise BadSettings(f"Nothing was erased: {name} has {missing}.")
    if ids:
        print(_unknown_ids(name, ids))
    if addresses:
        print(f"{counted(addresses, 'address', 'addresses')} not found.")


def _unknown_ids(name: str, number: int) -> str:
    if number == 1:
        return f"{name} has no such profile. Future runs will ignore this ID."
    return f"{name} has no profiles with {number:,} of these IDs. Future runs will ignore them."
