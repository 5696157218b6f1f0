"""Conventions of the command line: error messages, exit codes. Knows no command."""

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from traceback import format_exception
from typing import NoReturn

from klaviyo_pg.cli.output import discard_output, print_error
from klaviyo_pg.errors import KlaviyoPgError, Stopped
from klaviyo_pg.redaction import redacted

_NO_READER = 141  # the exit code of a program that SIGPIPE ends


def run(command: Callable[[], int], account: Callable[[], str | None] = lambda: None) -> NoReturn:
    """Run a command, and exit with the code that it returns. Its errors become one sentence each.

    `account` returns the name of the account that the command concerns; None if it concerns no particular one. A
    command whose output has no reader any more ends without a sentence.
    """
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of errors while another one is being handled
    try:
        code = command()
        sys.stdout.flush()
    except KlaviyoPgError as error:
        print_error(str(error), account())
        code = error.exit_code
    except KeyboardInterrupt:
        print_error("Stopped.", account())
        code = Stopped.exit_code
    except BrokenPipeError:
        discard_output()
        code = _NO_READER
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):  # for which Rich raises it
            raise
        code = _NO_READER
    except Exception as error:
        print_error(_traceback(error), account())
        code = 1
    sys.exit(code)


def _traceback(error: Exception) -> str:
    """Return the traceback of an unexpected error, without the secrets of the settings."""
    from klaviyo_pg.settings import load_settings  # imported late, because importing it takes time
    from pipeline.known_secrets import secrets_of

    secrets: list[str] = []
    with suppress(KlaviyoPgError):
        secrets = secrets_of(load_settings())
    return redacted("".join(format_exception(error)).rstrip(), secrets)
