"""Starts a sandbox as a child process for as long as a `with` block lasts, and talks to its control API."""

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from sandbox.server import API_KEY

_ROOT = Path(__file__).resolve().parent.parent
_TIMEOUT = 60.0


class SandboxError(Exception):
    """The sandbox did not start, or refused what was asked of it."""


@dataclass(frozen=True)
class Sandbox:
    """A running sandbox: where it is, its key, and its control API."""

    url: str
    pid: int
    api_key: str = API_KEY

    def control(self, method: str, path: str, body: Any = None) -> bytes:
        """Any request to the control API, the path without its prefix; the raw answer."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/sandbox/{path}", data, method=method)
        try:
            with urlopen(request, timeout=_TIMEOUT) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            with error:
                raise SandboxError(f"{method} {path}: {error.read().decode()}") from None

    def state(self) -> dict[str, Any]:
        """Account, counts of events per metric, requests per endpoint."""
        return json.loads(self.control("GET", "state"))  # type: ignore[no-any-return]

    def events(self) -> list[dict[str, Any]]:
        """Every event: id, metric_id, profile_id, timestamp, message, flow."""
        return _read_lines(self.control("GET", "events"))

    def profiles(self) -> list[dict[str, Any]]:
        """Every profile: id, email."""
        return _read_lines(self.control("GET", "profiles"))

    def add_events(self, *events: dict[str, Any]) -> list[Any]:
        """Add events; gives their ids.

        An event has a metric (id, name or None) and a timestamp or datetime, and may have profile_id, properties and
        id. `raw` puts any JSON, and `omit` nothing, in place of its members (id, timestamp, datetime, uuid,
        event_properties, attributes, metric, profile, relationships, links, type); `json` puts a text or bytes, be it
        JSON or not, in place of its properties.
        """
        body = [_writable(event) for event in events]
        return json.loads(self.control("POST", "events", body))["ids"]  # type: ignore[no-any-return]

    def remove_event(self, event_id: str) -> None:
        """The event is gone from all answers and counts."""
        self.control("DELETE", f"events/{event_id}")

    def lie(self, metric: str, day: str, add: int) -> None:
        """Counts of a metric (id or name) are wrong by so much more on that day; 0 takes it back."""
        self.control("POST", "aggregates", {"metric": metric, "day": day, "add": add})

    def add_profile(self, **attributes: Any) -> str:
        """Add a profile; gives its id."""
        return json.loads(self.control("POST", "profiles", attributes))["id"]  # type: ignore[no-any-return]

    def change(self, kind: str, row_id: str, **attributes: Any) -> None:
        """Change a row of metrics, campaigns, flows, lists, segments or profiles."""
        self.control("POST", f"{kind}/{row_id}", attributes)

    def delete(self, kind: str, row_id: str) -> None:
        """Delete a campaign, flow, list, segment or metric."""
        self.control("DELETE", f"{kind}/{row_id}")

    def restore(self, kind: str, row_id: str) -> None:
        """Put a deleted campaign, flow, list, segment or metric back as it was."""
        self.control("POST", f"{kind}/{row_id}/restore")

    def erase_profile(self, profile_id: str) -> None:
        """Nobody finds this person any more; events keep the id."""
        self.control("DELETE", f"profiles/{profile_id}")

    def join(self, list_id: str, profile_id: str, joined_group_at: str | None = None) -> None:
        """Put a profile on a list."""
        body = {} if joined_group_at is None else {"joined_group_at": joined_group_at}
        self.control("POST", f"lists/{list_id}/profiles/{profile_id}", body)

    def leave(self, list_id: str, profile_id: str) -> None:
        """Take a profile off a list."""
        self.control("DELETE", f"lists/{list_id}/profiles/{profile_id}")

    def add_key(self, key: str, *scopes: str) -> None:
        """Let another key in, with these scopes."""
        self.control("POST", "keys", {"key": key, "scopes": scopes})

    def set_faults(self, *faults: dict[str, Any]) -> None:
        """Let the next requests to endpoints fail, as `sandbox.chaos.Fault` says; without arguments, none."""
        self.control("POST", "faults", faults)

    def set_chaos(self, **chaos: Any) -> None:
        """Let a share of all requests fail: rate, seed, kinds (default: all after which asking again helps), paths
        (a regular expression on names as "GET /api/events"), seconds, retry_after; without arguments, none.

        `state()["chaos"]` counts the faults met since the start by kind.
        """
        self.control("POST", "chaos", chaos)

    def set_server(self, **settings: Any) -> None:
        """Change latency_ms, most_events on a page however many are asked for, or limits ("real" or "off").

        `others` gives endpoints limits of their own: {"GET /api/events": [35, 350]} a second and a minute.
        """
        self.control("POST", "server", settings)

    def traffic(self) -> dict[str, Any]:
        """For each endpoint its requests by second of the clock ("seconds"), and its answers 429 ("throttled")."""
        return json.loads(self.control("GET", "traffic"))  # type: ignore[no-any-return]

    def set_legacy(self, mode: str) -> None:
        """Serve the legacy dialect ("on"), answer that it is gone, or know nothing of it ("off")."""
        self.control("POST", "legacy", {"mode": mode})


def _writable(event: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(event.get("json"), bytes):
        return event
    rest = {name: value for name, value in event.items() if name != "json"}
    return {**rest, "json_base64": b64encode(event["json"]).decode()}


def _read_lines(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def running(**options: Any) -> Iterator[Sandbox]:
    """A sandbox with the options of `python -m sandbox` (latency_ms=5 for --latency-ms 5); limits are off by default.

    Raises SandboxError, with what the child printed, if it does not come up.
    """
    command = [sys.executable, "-m", "sandbox"]
    for name, value in {"port": 0, "limits": "off", **options}.items():
        text = value.isoformat() if isinstance(value, datetime) else str(value)
        command += [f"--{name.replace('_', '-')}={text}"]
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        process_group=0,  # Ctrl-C at a terminal is for whoever uses it, and that one ends it
    )
    with child:
        drain = Thread(target=_drain, args=(child,), daemon=True)
        try:
            url = _ready_url(child)
            drain.start()
            yield Sandbox(url, child.pid)
        finally:
            child.terminate()
            if drain.is_alive():
                drain.join()


def _drain(child: "subprocess.Popen[str]") -> None:
    assert child.stdout is not None
    for _ in child.stdout:  # a full pipe would stop the sandbox
        pass


def _ready_url(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    printed = ""
    for line in child.stdout:
        if " is ready at " in line:
            return line.split(" is ready at ")[1].split()[0]
        printed += line
    raise SandboxError(f"The sandbox ended before it was ready (exit code {child.wait()}): {printed.strip()}")
