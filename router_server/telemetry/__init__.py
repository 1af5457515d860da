"""Traces, metrics and logs: observers of the core's calls and of the server's RPCs."""

from router_server.telemetry.redaction import register_secret
from router_server.telemetry.setup import Telemetry, TelemetrySettings, build

__all__ = ["Telemetry", "TelemetrySettings", "build", "register_secret"]
