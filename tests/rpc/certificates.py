"""Certificates for one test: an authority, and what it signed."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """PEM files of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _named(name)
        self.cert = self._write(self._certificate(self._subject, self._key, ca=True), name)

    def issue(self, name: str, *names: x509.GeneralName) -> Pair:
        """Sign a certificate for 127.0.0.1, and for further names."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self._write(self._certificate(_named(name), key, *names, ca=False), name)
        path = self._folder / f"{self._name}-{name}.key"
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(pem)
        return Pair(cert, path)

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *names: x509.GeneralName, ca: bool
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([here, *names]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, certificate: x509.Certificate, name: str) -> Path:
        path = self._folder / f"{self._name}-{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
