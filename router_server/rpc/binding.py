"""Taking an address, and saying plainly why it cannot be had.

gRPC reports no reason: a port above 65535 quietly becomes another one, a socket file in use is quietly
replaced. So addresses are read here first, and a refused one is tried once more by hand to learn why.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import grpc
from grpc import aio

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
