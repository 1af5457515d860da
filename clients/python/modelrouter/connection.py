"""Where the router is and how to reach it: target, TLS, credentials, and the channel's settings.

Shared by the blocking and the asyncio client. Refuses to open anything: that is the clients' part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from ipaddress import ip_address
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypedDict

import grpc

DEFAULT_TARGET: Final = "127.0.0.1:50051"
TARGET_VARIABLE: Final = "MODELROUTER_TARGET"
API_KEY_HEADER: Final = "x-api-key"
VERSION: Final = version("modelrouter-grpc")

_MEBIBYTE = 1024 * 1024
_MAX_ATTEMPTS = 5  # gRPC's own limit on attempts

Pem = str | PathLike[str] | bytes
Metadata = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """TLS to the router; each of ``ca``, ``cert`` and ``key`` is a path of a PEM file, or its bytes.

    Attributes:
        ca: who signed the server's certificate; None trusts what gRPC trusts.
        cert: the client's certificate chain, for mutual TLS.
        key: its private key.
        server_name: the name in the server's certificate, where it is not the target's.
    """

    ca: Pem | None = None
    cert: Pem | None = None
    key: Pem | None = field(default=None, repr=False)
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files and return the channel's credentials.

        Raises:
            ValueError: ``cert`` without ``key``, or the other way round.
            OSError: a file cannot be read.
        """
        if (self.cert is None) != (self.key is None):
            raise ValueError("mutual TLS takes both cert and key; give the other one too")
        return grpc.ssl_channel_credentials(_pem(self.ca), _pem(self.key), _pem(self.cert))


class ConnectOptions(TypedDict, total=False):
    """How to reach the router."""

    tls: bool | TlsConfig
    """True: TLS with the certificate authorities that gRPC trusts."""
    api_key: str | None
    """Sent with every call; refused over plain text to another machine, unless ``insecure_api_key``."""
    insecure_api_key: bool
    timeout: float | None
    """Seconds for each call that names none itself; None leaves it to the server."""
    metadata: Metadata | None
    """Sent with every call."""
    max_attempts: int
    """How often gRPC tries a call that fails before its first message, 1 to 5; by default 3."""
    channel_options: Sequence[tuple[str, Any]]
    """gRPC channel arguments, which win over the client's own."""


class CallArguments(TypedDict):
    """What every stub call takes beside the request."""

    timeout: float | None
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """Everything that a channel is made from, and what goes along with each of its calls."""

    target: str
    credentials: grpc.ChannelCredentials | None
    channel_options: list[tuple[str, Any]]
    timeout: float | None
    metadata: Mapping[str, str] = field(repr=False)

    def arguments(self, timeout: float | None, metadata: Metadata | None) -> CallArguments:
        """Return the arguments of one call; what is not given comes from the connection."""
        merged = {**self.metadata, **(metadata or {})}
        return {
            "timeout": self.timeout if timeout is None else timeout,
            "metadata": tuple((key.lower(), value) for key, value in merged.items()),
        }


def connection(target: str | None, options: ConnectOptions) -> Connection:
    """Return how to reach the router at ``target``, by default $MODELROUTER_TARGET, else 127.0.0.1:50051.

    Raises:
        ValueError: the target is no address, or a key would travel over plain text.
        TypeError: there is no such option.
        OSError: a certificate cannot be read.
    """
    if unknown := options.keys() - ConnectOptions.__annotations__.keys():
        raise TypeError(f"there is no option {', '.join(map(repr, sorted(unknown)))}")
    target = _checked(target or os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET)
    tls = _tls(options.get("tls", False))
    metadata = dict(options.get("metadata") or {})
    if api_key := options.get("api_key"):
        if not (tls or is_local(target) or options.get("insecure_api_key", False)):
            raise ValueError(
                f"the API key would travel unencrypted to {target}; use TLS, or allow it with "
                "insecure_api_key where the network between is trusted"
            )
        metadata[API_KEY_HEADER] = api_key
    return Connection(
        target,
        tls.credentials() if tls else None,
        [
            *_channel_options(target, options.get("max_attempts", 3)),
            *([("grpc.ssl_target_name_override", tls.server_name)] if tls and tls.server_name else []),
            *options.get("channel_options", ()),
        ],
        options.get("timeout"),
        metadata,
    )


def _channel_options(target: str, max_attempts: int) -> list[tuple[str, Any]]:
    return [
        ("grpc.primary_user_agent", f"modelrouter-python/{VERSION}"),
        # A matrix of 2,048 vectors in 3,072 dimensions takes 24 MiB; gRPC's own limit is 4 MiB.
        ("grpc.max_receive_message_length", 64 * _MEBIBYTE),
        # A dead connection is noticed during a long prefill. The server allows a ping every 10 s, and gRPC
        # would by itself send only two of them without data.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # gRPC's own 120 s would leave a client without a server that restarted two minutes ago.
        ("grpc.max_reconnect_backoff_ms", 10_000),
        # A request larger than this buffer is not retried: the server takes 16 MiB, gRPC's own is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", 16 * _MEBIBYTE),
        ("grpc.service_config", _service_config(max_attempts)),
        # Whoever names several addresses wants all of them to be used, not the first that answers.
        *([("grpc.lb_policy_name", "round_robin")] if "," in target else []),
        # http_proxy is not about this machine.
        *([("grpc.enable_http_proxy", 0)] if is_local(target) else []),
    ]


def _service_config(max_attempts: int) -> str:
    """Return the retry policy.

    The server's pushback replaces the backoff, and forbids a retry where one is useless; gRPC itself stops
    retrying once the first message of a stream is there.
    """
    if not 1 <= max_attempts <= _MAX_ATTEMPTS:
        raise ValueError(f"max_attempts is {max_attempts}, and must be 1 to {_MAX_ATTEMPTS}")
    if max_attempts == 1:
        return json.dumps({"methodConfig": []})
    method = {
        "name": [{"service": "modelrouter.v1.ModelRouterService"}],
        "waitForReady": False,
        "retryPolicy": {
            "maxAttempts": max_attempts,
            "initialBackoff": "0.1s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            # CANCELLED is gRPC's own answer to calls that reach a server in the moment in which it stops.
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
        },
    }
    # A server that dies takes all its running calls with it: half of the tokens may be tried again at once.
    return json.dumps({"methodConfig": [method], "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1}})


def _tls(tls: bool | TlsConfig) -> TlsConfig | None:
    if isinstance(tls, TlsConfig):
        return tls
    return TlsConfig() if tls else None


def _pem(source: Pem | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    return Path(source).read_bytes()


def _checked(target: str) -> str:
    if target.startswith(("http://", "https://")):
        raise ValueError(f"the target {target!r} is a URL; write host:port, and tls=True for TLS")
    if _is_unix(target) or _port(target).isdecimal():
        return target
    # gRPC would quietly take port 443.
    raise ValueError(f"the target {target!r} names no port; write host:port, {DEFAULT_TARGET} for example")


def _is_unix(target: str) -> bool:
    return target.startswith(("unix:", "unix-abstract:"))


def _port(target: str) -> str:
    return target.rpartition(":")[2]


def is_local(target: str) -> bool:
    """Tell whether what is sent to ``target`` never leaves this machine."""
    if _is_unix(target):
        return True
    addresses = target.rpartition("/")[2].removeprefix("ipv4:").removeprefix("ipv6:")
    return all(_is_loopback(address.rpartition(":")[0].strip("[]")) for address in addresses.split(","))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
