"""Reading history in separate processes, where there are processors to spare. Knows no Prefect.

Each process has a session that is built from the settings, and runs units in threads. It gets units over a socket and
sends back progress and outcomes; the rate limits in the warehouse keep all of them to one pace. It ends as soon as the
socket does, so no process is left however this one ends. Nothing secret is in its arguments.
"""

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from klaviyo_pg import processors
from klaviyo_pg.environment import PROXIES, without_secrets
from klaviyo_pg.errors import KlaviyoPgError, Stopped, Unavailable
from klaviyo_pg.postgres import address
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from pipeline.backfill.reading import Outcomes, extract_here
from pipeline.outcome import Outcome
from pipeline.progress import Progress
from pipeline.runs import Run
from pipeline.session import Session
from transforms.events import Metrics

_POLL_SECONDS = 0.25  # between two looks at the stop flag
_ENDED = "A reading process ended unexpectedly. Rerun with the same arguments to resume."


def process_count(session: Session) -> int:
    """Return PROCESSES, or as many as there are processors to spare."""
    settings = session.settings
    if not session.can_be_rebuilt or not settings.spool:
        return 1
    url = settings.database_url
    has_database = url is None or address.is_local(address.parse(url.get_secret_value()))
    return settings.processes or processors.spare(processors.count(), has_database)


@contextmanager
def reading_processes(session: Session) -> Iterator[None]:
    """Let other processes read while the block runs, if PROCESSES is more than 1. They start when they are needed."""
    count = process_count(session) - 1
    if count < 1:
        yield
        return
    with closing(Readers(session, count)) as readers, session.reading_through(readers):
        yield


class Readers:
    """The reading processes of a session. Safe to share between threads."""

    def __init__(self, session: Session, count: int) -> None:
        self._session, self._count = session, count
        self._lock = threading.Lock()
        self._processes: list[_ReadingProcess] = []
        self._has_read = False

    def extract(self, run: Run, chunks: Sequence[BackfillChunk], metrics: Metrics, attempt: int) -> Outcomes:
        """Read chunks into the spool. Raises Unavailable if the process that reads them ends.

        If a process ends before any has read anything, what follows is read in threads.
        """
        with self._lock:
            process = self._least_busy()
            answers = process.begin((run, chunks, metrics, attempt))
        while True:
            with suppress(Empty):
                answer = answers.get(timeout=_POLL_SECONDS)
                if isinstance(answer, Exception):
                    raise answer
                return tuple(Outcome(chunks[at], {}, was_done, error) for at, was_done, error in answer)
            if self._session.stop.is_requested:
                process.stop()
            if not process.is_alive and answers.empty():
                self._session.stop.check()
                self._has_read |= any(each.has_answered for each in (process, *self._processes))
                if not self._has_read:
                    self._session.read_in_threads()
                raise Unavailable(_ENDED)

    def _least_busy(self) -> "_ReadingProcess":
        alive = [each for each in self._processes if each.is_alive]
        for dead in (each for each in self._processes if not each.is_alive):
            self._has_read |= dead.has_answered
            dead.close()
        self._processes = alive
        free = min(alive, key=lambda each: each.load, default=None)
        if free is not None and (free.load == 0 or len(alive) >= self._count):
            return free
        self._processes.append(_ReadingProcess(self._session))
        return self._processes[-1]

    def close(self) -> None:
        """End the processes."""
        for each in self._processes:
            each.close()


def _environment() -> dict[str, str]:
    """Return the environment of a reading process. Settings come over the socket.

    libpq reads PGPASSWORD itself, and requests the URL of the proxy.
    """
    read = {name: value for name, value in os.environ.items() if name == "PGPASSWORD" or name.upper() in PROXIES}
    path = os.pathsep.join(filter(None, sys.path))
    return {**without_secrets(os.environ), **read, "PYTHONPATH": path}


class _ReadingProcess:
    """A reading process, seen from outside."""

    def __init__(self, session: Session) -> None:
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
            env=_environment(),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._session, self._socket, self._connection = session, ours, Connection(os.dup(ours.fileno()))
        self._sending, self._answers = threading.Lock(), dict[int, SimpleQueue[Any]]()
        self._number, self._is_stopped, self.is_alive, self.has_answered = 0, False, True, False
        self._send(session.rebuilding_settings())
        self._receiver = threading.Thread(target=self._receive, name="reading process", daemon=True)
        self._receiver.start()

    @property
    def load(self) -> int:
        """The number of units in progress."""
        return len(self._answers)

    def begin(self, arguments: tuple[Any, ...]) -> SimpleQueue[Any]:
        """Have a unit run. What becomes of its chunks, or its error, comes in the queue."""
        self._number += 1
        answers = self._answers[self._number] = SimpleQueue[Any]()
        self._send((self._number, arguments))
        return answers

    def stop(self) -> None:
        """Ask the process to stop its units."""
        if not self._is_stopped:
            self._is_stopped = True
            self._send(None)

    def _send(self, message: object) -> None:
        with self._sending, suppress(OSError):  # the thread that receives finds out that the process has ended
            self._connection.send(message)

    def _receive(self) -> None:
        try:
            with suppress(EOFError, OSError):
                while True:
                    self._handle(*self._connection.recv())
        finally:  # whatever is wrong with a message: those who wait for an answer must not wait for ever
            self.is_alive = False
            self._connection.close()

    def _handle(self, kind: str, *values: Any) -> None:
        self.has_answered |= kind != "log"
        if kind == "progress":
            item, read, traffic = values
            self._session.progress.add(item, read=read)
            self._session.note_traffic(self._process.pid, traffic)
        elif kind == "log":
            name, level, message = values
            logging.getLogger(name).log(level, "%s", message)
        else:
            number, answer = values
            self._answers.pop(number).put(answer)

    def close(self) -> None:
        """End the process, and wait until it has."""
        with suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._receiver.join()
        self._socket.close()
        self._process.wait()


class _ForwardingHandler(logging.Handler):
    """Sends log records to the process that shows them."""

    def __init__(self, worker: "_Worker") -> None:
        super().__init__(logging.WARNING)
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        self._worker.send(("log", record.name, record.levelno, record.getMessage()))


class _Worker:
    """A reading process, seen from inside."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._messages = connection, SimpleQueue[Any]()
        self._session = Session(connection.recv(), progress=Progress(on_add=self._send_progress))

    def send(self, message: object) -> None:
        """Send a message, later: what is sent may log, wherever it is, and logging sends."""
        self._messages.put(message)

    def _send_progress(self, key: str, read: int) -> None:
        self.send(("progress", key, read, self._session.traffic))

    def _send_all(self) -> None:
        """Send the messages. End if the other process is gone, or would wait for a message that cannot be sent."""
        try:
            while True:
                self._connection.send(self._messages.get())
        finally:
            os._exit(1)

    def serve(self) -> None:
        """Run units until the socket ends."""
        threading.Thread(target=self._send_all, name="messages", daemon=True).start()
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # whatever the units are doing: what is in the spool is whole
            if message is None:
                self._session.stop.request(Stopped())
            else:
                threading.Thread(target=self._run, args=message, daemon=True).start()

    def _run(self, number: int, arguments: tuple[Any, ...]) -> None:
        try:
            run, chunks, *others = arguments
            outcomes = extract_here(self._session, run, chunks, *others)
            answer: Any = [(chunks.index(each.chunk), each.was_done, _portable(each.error)) for each in outcomes]
        except Exception as error:
            answer = _portable(error)
        self.send(("done", number, answer))


def _portable(error: Exception | None) -> Exception | None:
    """Return an error that another process can read."""
    try:
        return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]
    except Exception:
        return KlaviyoPgError(str(error) or type(error).__name__)


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket. Signals for a whole group are for that process alone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    worker = _Worker(Connection(descriptor))
    logging.getLogger().addHandler(_ForwardingHandler(worker))
    worker.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
