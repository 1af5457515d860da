"""What an operator can say: the tree of settings, the file they stand in, and every mistake in it.

Refuses to know what the settings are used for.
"""

from router_server.config.defaults import default_config
from router_server.config.exposure import warnings_of
from router_server.config.loading import listening, load, read
from router_server.config.problems import ConfigError, Problem
from router_server.config.routes import HedgeConfig, RouteConfig, RouteTarget
from router_server.config.tree import (
    AdaptiveConfig,
    BreakerConfig,
    Config,
    DeadlineConfig,
    HealthCheckConfig,
    LogConfig,
    PriceConfig,
    ProviderConfig,
    ServerConfig,
    TargetConfig,
    TelemetryConfig,
    TimeoutsConfig,
    TlsConfig,
)
from router_server.config.values import host_and_port

__all__ = [
    "AdaptiveConfig",
    "BreakerConfig",
    "Config",
    "ConfigError",
    "DeadlineConfig",
    "HealthCheckConfig",
    "HedgeConfig",
    "LogConfig",
    "PriceConfig",
    "Problem",
    "ProviderConfig",
    "RouteConfig",
    "RouteTarget",
    "ServerConfig",
    "TargetConfig",
    "TelemetryConfig",
    "TimeoutsConfig",
    "TlsConfig",
    "default_config",
    "host_and_port",
    "listening",
    "load",
    "read",
    "warnings_of",
]
