"""How the gRPC servers are set up, and what that means in channel options.

Refuses to know where the values come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAX_METADATA_BYTES: Final = 16_384
"""Of a request. gRPC's own 8 kB are little for a long token beside baggage and trace state."""
_AHEAD_BYTES: Final = 1024 * 1024
"""Of one request, that a caller may send before it is read."""

ChannelOptions = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. With ``client_ca`` every client must show a certificate that it signed."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How calls come in; sizes in bytes, times in seconds.

    Attributes:
        listen: ``host:port``, ``[::1]:port`` or ``unix:path``; port 0 takes a free one.
        health_listen: a further address, always plaintext, for health alone; stops last.
        tls: None means plaintext.
        reflection: tell clients without stubs what the contract is.
        reuse_port: let several processes share the port; otherwise a second server on it fails.
        max_receive_bytes: the largest request.
        max_send_bytes: the largest answer.
        max_concurrent_streams: RPCs at once on one connection.
        max_connection_age: after this a connection takes no new RPCs, so that load spreads again.
        longest_stream: what a running RPC may take beyond that.
        write_timeout: a caller that accepts no message for so long is given up.
    """

    listen: str = "127.0.0.1:50051"
    health_listen: str | None = None
    tls: Tls | None = None
    reflection: bool = True
    reuse_port: bool = False
    max_receive_bytes: int = 16 * 1024 * 1024
    max_send_bytes: int = 64 * 1024 * 1024
    max_concurrent_streams: int = 1_024
    max_connection_age: float = 1_800.0
    longest_stream: float = 600.0
    write_timeout: float = 60.0


def channel_options(settings: ServerSettings) -> ChannelOptions:
    """Return the options of the main server."""
    return (
        ("grpc.so_reuseport", int(settings.reuse_port)),
        # gRPC's default of 300 s answers a client's pings during a long prefill with GOAWAY.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A large prompt arrives without a pause for each 64 KiB. Else gRPC learns by pings what a connection
        # takes, which is a hundredth of a small call's CPU.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _AHEAD_BYTES),
        ("grpc.max_receive_message_length", settings.max_receive_bytes),
        ("grpc.max_send_message_length", settings.max_send_bytes),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(settings.longest_stream)),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    )


def health_options(settings: ServerSettings) -> ChannelOptions:
    """Return the options of the health port's server, which needs no large message."""
    return (("grpc.so_reuseport", int(settings.reuse_port)),)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1_000)
