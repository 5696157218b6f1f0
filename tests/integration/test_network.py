"""Requests to Klaviyo through a proxy, and over TLS with a certificate authority that only a setting names."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from klaviyo_pg.errors import BadAnswer, Unavailable
from klaviyo_pg.klaviyo.client import Client
from klaviyo_pg.klaviyo.retries import Patience

PATH = "api/x"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
VARIABLES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections on this machine, have them answered one after the other, and return the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):  # closed at the end
                while True:
                    accepted, _ = listening.accept()
                    with accepted, suppress(OSError):
                        answer(accepted)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def get(url: str) -> object:
    """Send one request to an API at this URL."""
    with Client(url, patience=Patience(timeout=20, attempts=1, budget=20)) as client:
        return client.get(PATH)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a certificate for this machine that signs itself, and with its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(made.public_bytes(encoding) + secret)
    return file


def test_requests_use_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is asked for a tunnel, so that it reads nothing; NO_PROXY names the hosts that need none."""
    asked: list[bytes] = []

    def refuse(connection: socket.socket) -> None:
        asked.append(connection.recv(4096).split(b"\r\n")[0])
        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    with serving(refuse) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(Unavailable):
            get("https://klaviyo.invalid")
        assert asked == [b"CONNECT klaviyo.invalid:443 HTTP/1.0"] or asked == [b"CONNECT klaviyo.invalid:443 HTTP/1.1"]
        monkeypatch.setenv("NO_PROXY", "klaviyo.invalid")
        with pytest.raises(Unavailable):
            get("https://klaviyo.invalid")
        assert len(asked) == 1


def test_certificates_are_verified_against_the_bundle_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(OK)

    with serving(answer) as port:
        with pytest.raises(BadAnswer, match=r"the TLS certificate of 127\.0\.0\.1:\d+ is not valid"):
            get(f"https://127.0.0.1:{port}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert get(f"https://127.0.0.1:{port}") == b"{}"
