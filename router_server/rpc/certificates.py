"""The server's certificate, as its files say at each handshake: who renews it need not restart anything.

What cannot be used is refused at the start, and later said once and passed over: the last good one stays in
use. Refuses to know addresses.
"""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

import grpc

from router_server.rpc.settings import Tls

_log = logging.getLogger(__name__)

_State = tuple[tuple[int, ...], ...]


class TlsError(Exception):
    """A certificate or key cannot be used; the message names the file and says what to do."""


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return what the files hold, now and at each later handshake.

    Raises:
        TlsError: a file is missing or is not what it should be, or certificate and key do not match.
    """
    files = _Files(tls)
    return grpc.dynamic_ssl_server_credentials(
        files.read(),
        files.changed,  # type: ignore[arg-type]  # None means no change, as grpc's documentation has it
        require_client_authentication=tls.client_ca is not None,
    )


class _Files:
    """Certificate, key and authority; asked on whatever thread gRPC makes a handshake."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._state: _State | None = None

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Return what they hold.

        Raises:
            TlsError: see `server_credentials`.
        """
        self._state = self._look()
        return _configuration(self._tls)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what they hold if that is something new, and of use."""
        before, self._state = self._state, self._look()
        if self._state == before:
            return None
        try:
            found = _configuration(self._tls)
        except TlsError as error:
            # Both are not written in one moment: the next handshake may find them whole.
            _log.warning("The former certificate stays in use: %s", error)
            return None
        _log.info("The certificate was read again and is in use.")
        return found

    def _look(self) -> _State:
        files = (self._tls.cert, self._tls.key, self._tls.client_ca)
        return tuple(_stamp(path) for path in files if path is not None)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _configuration(tls: Tls) -> grpc.ServerCertificateConfiguration:
    _check_pair(tls)
    client_ca = None if tls.client_ca is None else _read_ca(tls.client_ca)
    return grpc.ssl_server_certificate_configuration(
        [(_read(tls.key), _read(tls.cert))], root_certificates=client_ca
    )


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
