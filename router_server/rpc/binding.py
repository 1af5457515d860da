"""Taking an address, and saying plainly why it cannot be had.

gRPC reports no reason: a port above 65535 quietly becomes another one, a socket file in use is quietly
replaced. So addresses are read here first, and a refused one is tried once more by hand to learn why.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from pathlib import Path

import grpc
from grpc import aio

from router_server.rpc.settings import Tls

_UNIX = "unix:"
_HIGHEST_PORT = 65_535
_NOT_PERMITTED = "not permitted; ports below 1024 need privileges, and a socket needs a writable folder"
_ADVICE = {
    errno.EADDRINUSE: "the port is taken; stop whoever listens there, or choose another port",
    errno.EACCES: _NOT_PERMITTED,
    errno.EPERM: _NOT_PERMITTED,
    errno.EADDRNOTAVAIL: "this machine has no such address; use 127.0.0.1, or 0.0.0.0 for all it has",
    errno.ENOENT: "its folder does not exist; make it first",
}


class BindError(Exception):
    """An address cannot be served; the message names it and says what to do."""


class TlsError(Exception):
    """A certificate or key cannot be used; the message names the file and says what to do."""


def bind(server: aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    """Add ``address`` to a server that is not started yet, and return its port, 0 for a socket file.

    Raises:
        BindError: the address is malformed, taken, or not ours to take.
    """
    path = _socket_path(address)
    if path is None:
        _check_port(address)
    else:
        _check_socket_file(address, path)
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        raise BindError(f"cannot listen on {address}: {_why(address, path)}") from None
    return port if path is None else 0


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return what the files hold.

    Raises:
        TlsError: a file is missing or is not what it should be, or certificate and key do not match.
    """
    _check_pair(tls)
    client_ca = None if tls.client_ca is None else _read_ca(tls.client_ca)
    return grpc.ssl_server_credentials(
        [(_read(tls.key), _read(tls.cert))],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


def _socket_path(address: str) -> Path | None:
    return Path(address.removeprefix(_UNIX)) if address.startswith(_UNIX) else None


def _check_port(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if colon and host and port.isascii() and port.isdigit() and int(port) <= _HIGHEST_PORT:
        return
    raise BindError(
        f"{address!r} is not an address to listen on: write host:port, [::1]:port or unix:/path, "
        f"with a port from 0 to {_HIGHEST_PORT}"
    )


def _check_socket_file(address: str, path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(
            f"cannot listen on {address}: a file that is no socket is there; move it or choose another"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise BindError(
                f"cannot listen on {address}: another server answers there; stop it or choose another path"
            )


def _why(address: str, path: Path | None) -> str:
    """Bind by hand, for the error number."""
    try:
        if path is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.bind(str(path))
            path.unlink()
        else:
            host, _, port = address.rpartition(":")
            family, *_, found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
            socket.create_server(found[:2], family=family).close()
    except OSError as error:
        return _advice(error)
    return "the address was refused, and is free a moment later; try again"


def _advice(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host's name cannot be resolved; use an address of this machine"
    if error.errno is None:
        return "the path is too long for a socket; choose a shorter one"
    return _ADVICE.get(error.errno, os.strerror(error.errno))


def _check_pair(tls: Tls) -> None:
    for path in (tls.cert, tls.key):
        _read(path)
    try:
        # An encrypted key would ask on the terminal; gRPC could not use it either.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, password=_no_password)
    except (ssl.SSLError, ValueError):
        raise TlsError(
            f"{tls.cert} and {tls.key} are not a PEM certificate chain and its unencrypted PEM key"
        ) from None


def _no_password() -> str:
    raise ValueError("encrypted keys are not supported")


def _read_ca(path: Path) -> bytes:
    pem = _read(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise TlsError(f"{path} holds no PEM certificates of an authority") from None
    return pem


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from None
