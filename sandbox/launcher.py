"""Running a sandbox as a child process, and a client for its control API. Must not import the server."""

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from sandbox.api.keys import API_KEY

_ROOT = Path(__file__).resolve().parent.parent
_SECRETS = frozenset({"KLAVIYO_API_KEY", "DATABASE_URL", "PERSONAL_DATA_SALT", "PGPASSWORD"})  # settings of the loader
_PREFIX = "KLAVIYO_PG_"  # of settings, if they have one
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
_TIMEOUT = 60.0


class SandboxError(Exception):
    """The sandbox did not start, or it refused a request to its control API."""


@dataclass(frozen=True)
class Sandbox:
    """A running sandbox: its URL, its key, and its control API."""

    url: str
    pid: int
    api_key: str = API_KEY

    def control(self, method: str, path: str, body: Any = None) -> bytes:
        """Send a request to the control API and return the raw answer. The path has no prefix."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/sandbox/{path}", data, method=method)
        try:
            with urlopen(request, timeout=_TIMEOUT) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            with error:
                raise SandboxError(f"{method} {path}: {error.read().decode()}") from None

    def state(self) -> dict[str, Any]:
        """Return the account, the number of events per metric, and the number of requests per endpoint."""
        return json.loads(self.control("GET", "state"))  # type: ignore[no-any-return]

    def events(self) -> list[dict[str, Any]]:
        """Return the id, metric_id, profile_id, timestamp, message and flow of every event."""
        return _read_lines(self.control("GET", "events"))

    def profiles(self) -> list[dict[str, Any]]:
        """Return the id and email of every profile."""
        return _read_lines(self.control("GET", "profiles"))

    def add_events(self, *events: dict[str, Any]) -> list[Any]:
        """Add events and return their ids.

        An event has a metric (id, name or None), a timestamp or datetime, and optionally profile_id, properties and id.
        `raw` replaces members of the event with any JSON and `omit` leaves members out. The members are id, timestamp,
        datetime, uuid, event_properties, attributes, metric, profile, attributions, relationships, links and type.
        `json` replaces the properties with a text or bytes, which need not be JSON.
        """
        body = [_writable(event) for event in events]
        return json.loads(self.control("POST", "events", body))["ids"]  # type: ignore[no-any-return]

    def remove_event(self, event_id: str) -> None:
        """Remove an event from all answers and counts."""
        self.control("DELETE", f"events/{event_id}")

    def attribute(self, event_id: str, *to: str) -> None:
        """Attribute an event to the messages of other events, instead of what it was attributed to."""
        self.control("POST", f"events/{event_id}/attributions", {"to": to})

    def add_days(self, days: int = 1) -> None:
        """Add days to a large account, on each of which a share of everything is new or changes."""
        self.control("POST", "days", {"days": days})

    def lie(self, metric: str, day: str, add: int) -> None:
        """Add to the reported count of a metric (id or name) on a day. 0 restores the true count."""
        self.control("POST", "aggregates", {"metric": metric, "day": day, "add": add})

    def add_profile(self, **attributes: Any) -> str:
        """Add a profile and return its id."""
        return json.loads(self.control("POST", "profiles", attributes))["id"]  # type: ignore[no-any-return]

    def change(self, kind: str, row_id: str, **attributes: Any) -> None:
        """Change a metric, campaign, flow, list, segment or profile."""
        self.control("POST", f"{kind}/{row_id}", attributes)

    def delete(self, kind: str, row_id: str) -> None:
        """Delete a campaign, flow, list, segment or metric."""
        self.control("DELETE", f"{kind}/{row_id}")

    def restore(self, kind: str, row_id: str) -> None:
        """Restore a deleted campaign, flow, list, segment or metric."""
        self.control("POST", f"{kind}/{row_id}/restore")

    def erase_profile(self, profile_id: str) -> None:
        """Erase a profile from all answers. Its events keep the profile id."""
        self.control("DELETE", f"profiles/{profile_id}")

    def merge_profiles(self, old_id: str, new_id: str, **when: Any) -> None:
        """Merge a profile into another one, which gets its events and its places on lists.

        `timestamp` is the time of the merge, at which the other profile changes; by default, the end of the account.
        """
        self.control("POST", f"profiles/{old_id}/merge", {"into": new_id, **when})

    def suppress(self, profile_id: str, reason: str, list_id: str | None = None, **when: Any) -> None:
        """Suppress a profile for one list, or for all email marketing. `timestamp` is the time, as in a merge."""
        self.control("POST", f"profiles/{profile_id}/suppressions", {"reason": reason, "list_id": list_id, **when})

    def lift(self, profile_id: str, list_id: str | None = None, reason: str | None = None, **when: Any) -> None:
        """End suppressions for one list, or those for all email marketing. None means every reason."""
        self.control("DELETE", f"profiles/{profile_id}/suppressions", {"reason": reason, "list_id": list_id, **when})

    def join(self, list_id: str, profile_id: str, joined_group_at: str | None = None) -> None:
        """Add a profile to a list."""
        body = {} if joined_group_at is None else {"joined_group_at": joined_group_at}
        self.control("POST", f"lists/{list_id}/profiles/{profile_id}", body)

    def leave(self, list_id: str, profile_id: str) -> None:
        """Remove a profile from a list."""
        self.control("DELETE", f"lists/{list_id}/profiles/{profile_id}")

    def add_key(self, key: str, *scopes: str) -> None:
        """Accept another key, with these scopes."""
        self.control("POST", "keys", {"key": key, "scopes": scopes})

    def set_faults(self, *faults: dict[str, Any]) -> None:
        """Set the faults that the next requests meet (see `sandbox.faults.kinds.Fault`), replacing earlier ones."""
        self.control("POST", "faults", faults)

    def set_chaos(self, **chaos: Any) -> None:
        """Set the share of all requests that meet random faults (see `sandbox.faults.chaos.Chaos`), by default none.

        The default kinds are those after which a retry succeeds. `paths` is a regular expression for names of endpoints
        such as "GET /api/events". `state()["chaos"]` counts the faults since the start by kind.
        """
        self.control("POST", "chaos", chaos)

    def set_server(self, **settings: Any) -> None:
        """Change latency_ms, most_events (the maximum number on a page) or limits ("real" or "off").

        Larger pages than `largest_page` rows are refused with 400, in the current dialect. Revisions before
        `oldest_revision` are retired: answered in that one, or with 410 if a request asks for it.
        `others` replaces the limits per second, minute and day of some endpoints: {"GET /api/events": [35, 350]}.
        """
        self.control("POST", "server", settings)

    def traffic(self) -> dict[str, Any]:
        """Return the number of requests in each second ("seconds") and of 429s ("throttled") for each endpoint."""
        return json.loads(self.control("GET", "traffic"))  # type: ignore[no-any-return]

    def set_legacy(self, mode: str) -> None:
        """Serve the legacy dialect ("on"), answer 410 ("gone"), or answer 404 ("off")."""
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
    """Run a sandbox with the options of `python -m sandbox`: latency_ms=5 for --latency-ms 5, large=True for --large.
    Limits default to off.

    The sandbox exits when this process does, even if this process is killed. Raise SandboxError with the output of the
    sandbox if it does not start.
    """
    command = [sys.executable, "-m", "sandbox", "--exit-on-eof"]
    for name, value in {"port": 0, "limits": "off", **options}.items():
        command.append(_option(name, value))
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # closed by the system when this process dies
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**_without_secrets(os.environ), "PYTHONPATH": path},
        process_group=0,  # Ctrl-C in a terminal must reach only this process, which then stops the sandbox
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


def _option(name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    if value is True:
        return option
    return f"{option}={value.isoformat() if isinstance(value, datetime) else value}"


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the secrets of the account, the warehouse and proxies: the sandbox needs none."""
    return {name: value for name, value in environment.items() if not _is_secret(name.upper(), value)}


def _is_secret(name: str, value: str) -> bool:
    return name.removeprefix(_PREFIX) in _SECRETS or (name in _PROXIES and "@" in value)


def _drain(child: "subprocess.Popen[str]") -> None:
    assert child.stdout is not None
    for _ in child.stdout:  # a full pipe would block the sandbox
        pass


def _ready_url(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    printed = ""
    for line in child.stdout:
        if " is ready at " in line:
            return line.split(" is ready at ")[1].split()[0]
        printed += line
    raise SandboxError(f"The sandbox exited with code {child.wait()} before it was ready: {printed.strip()}")
