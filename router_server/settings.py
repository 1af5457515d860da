"""From the configuration to what the edges want to know of it. Refuses to know what they do with it."""

from __future__ import annotations

from router_server.config.tree import Config, ServerConfig
from router_server.rpc.settings import ServerSettings, Tls
from router_server.telemetry import TelemetrySettings


def server_settings(server: ServerConfig, *, reuse_port: bool) -> ServerSettings:
    """Return what the gRPC server goes by; ``reuse_port``: other workers have the same port."""
    tls = server.tls
    return ServerSettings(
        listen=server.listen,
        health_listen=server.health_listen,
        tls=None if tls is None else Tls(tls.cert, tls.key, tls.client_ca),
        reflection=server.reflection,
        reuse_port=reuse_port,
        max_receive_bytes=server.max_receive_bytes,
        max_send_bytes=server.max_send_bytes,
        longest_stream=server.deadline.stream,
    )


def telemetry_settings(config: Config) -> TelemetrySettings:
    """Return what telemetry goes by."""
    telemetry = config.telemetry
    return TelemetrySettings(
        service_name=telemetry.service_name,
        otlp_endpoint=telemetry.otlp_endpoint,
        sample_ratio=telemetry.sample_ratio,
        record_content=telemetry.record_content,
        log_format=telemetry.log.format,
        log_level=telemetry.log.level,
    )
