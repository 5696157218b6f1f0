"""A proxy on 127.0.0.1 that answers as a.klaviyo.com, with a self-signed certificate, from a plain HTTP server.

For programs that cannot be pointed at another address. Any other host is refused.
"""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

_HOST = "a.klaviyo.com"
_PIECE = 1 << 18  # bytes


@contextmanager
def proxying(target: str, folder: Path) -> Iterator[dict[str, str]]:
    """Run the proxy while the block runs; yields the environment of a program that is to use it."""
    certificate, key = _certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, context, target), daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield {"HTTPS_PROXY": address, "https_proxy": address, "SSL_CERT_FILE": str(certificate)}


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "proxy.crt", folder / "proxy.key"
    names = ["-subj", f"/CN={_HOST}", "-addext", f"subjectAltName=DNS:{_HOST}"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def _accept(server: socket.socket, context: ssl.SSLContext, target: str) -> None:
    with suppress(OSError):  # the block has ended
        while True:
            client, _ = server.accept()
            threading.Thread(target=_serve, args=(client, context, target), daemon=True).start()


def _serve(client: socket.socket, context: ssl.SSLContext, target: str) -> None:
    with client, suppress(OSError):
        asked = b""
        while not asked.endswith(b"\r\n\r\n"):
            asked += client.recv(1)
        if asked.split(b" ")[1] != f"{_HOST}:443".encode():
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        url = urlsplit(target)
        with (
            context.wrap_socket(client, server_side=True) as tls,
            socket.create_connection((url.hostname, url.port)) as plain,
        ):
            back = threading.Thread(target=_copy, args=(plain, tls), daemon=True)
            back.start()
            _copy(tls, plain)
            plain.shutdown(socket.SHUT_RDWR)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
