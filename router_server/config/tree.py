"""The one tree of everything that can be configured: names, types, ranges, defaults, meanings.

docs/configuration.md is generated from it. Refuses to know YAML, and whether names that are used are
declared: `references` checks that.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from router_server.config.alerts import AlertsConfig
from router_server.config.budgets import BudgetConfig
from router_server.config.callers import AuthConfig, LimitsConfig, RatesConfig
from router_server.config.routes import RouteConfig
from router_server.config.section import PARTIAL, Section
from router_server.config.shared import RedisUrl
from router_server.config.values import (
    Count,
    Duration,
    File,
    ListenAddress,
    Name,
    RouteName,
    Share,
    TcpAddress,
    Timeout,
)
from router_server.core.breaker import BreakerSettings
from router_server.core.deadline import Timeouts
from router_server.core.options import refused_options
from router_server.core.provider import Capability
from router_server.providers import SetupError, load_kind


class TlsConfig(Section):
    """PEM files of the main port."""

    cert: File = Field(description="the server's certificate chain, PEM")
    key: File = Field(description="its private key, PEM, not encrypted")
    client_ca: File | None = Field(
        default=None,
        description="PEM; with it every client must show a certificate that this authority signed",
    )


class DeadlineConfig(Section):
    """The deadline of a call whose caller sends none."""

    unary: Timeout = Field(default=120.0, description="of Chat and Embed")
    stream: Timeout = Field(default=600.0, description="of StreamChat")


class ServerConfig(Section):
    """Where and how the server listens, and how it stops."""

    listen: ListenAddress = Field(
        default="127.0.0.1:50051", description="the gRPC service; port 0 takes a free one"
    )
    health_listen: ListenAddress | None = Field(
        default=None,
        description="a further port for health alone, always plaintext: for probes when tls is on",
    )
    http_listen: TcpAddress | None = Field(
        default="127.0.0.1:8080", description="/metrics and /healthz over HTTP; null turns it off"
    )
    admin_listen: TcpAddress | None = Field(
        default="127.0.0.1:50052", description="reserved for administration; nothing is served there yet"
    )
    workers: Count = Field(default=1, description="server processes; each takes its share of every limit")
    reflection: bool = Field(default=True, description="tell clients without stubs what the contract is")
    allow_direct: bool = Field(
        default=False, description="let callers name provider/model instead of a route"
    )
    max_receive_bytes: Count = Field(default=16_777_216, description="the largest request")
    max_send_bytes: Count = Field(default=67_108_864, description="the largest answer")
    cache_bytes: Count = Field(
        default=67_108_864, description="answers that are kept in memory, where redis is not set"
    )
    idempotency_ttl: Duration = Field(
        default=600.0, description="how long the answer to an idempotency key is kept; 0: keys mean nothing"
    )
    drain_delay: Duration = Field(
        default=5.0,
        description="from the stop signal until new calls are refused, so that probes see it first",
    )
    drain_grace: Duration = Field(default=60.0, description="how long running calls may then take")
    watch_config: Timeout | None = Field(
        default=5.0,
        description="how often to look whether the configuration file has changed; null: SIGHUP alone",
    )
    deadline: DeadlineConfig = Field(
        default_factory=DeadlineConfig, description="of calls whose caller sends none"
    )
    tls: TlsConfig | None = Field(default=None, description="the main port's certificate; null: plaintext")


class TimeoutsConfig(Section):
    """How long an upstream may take."""

    connect: Timeout = Field(default=5.0, description="name lookup, TCP and TLS")
    first_token: Timeout = Field(default=15.0, description="until a stream's first event")
    first_token_reasoning: Timeout = Field(
        default=60.0, description="the same, where a reasoning effort is set"
    )
    idle: Timeout = Field(default=15.0, description="between two events of a stream")
    unary: Timeout = Field(default=120.0, description="until the whole answer of a unary call")


class BreakerConfig(Section):
    """When a failing target is left alone, and when it is tried again."""

    failure_threshold: Count = Field(default=5, description="consecutive failures that open it")
    failure_rate: Share = Field(default=0.5, description="or this share of the calls in the window")
    min_calls: Count = Field(default=20, description="calls in the window before the share counts")
    window: Timeout = Field(default=30.0, description="of the share")
    open: Timeout = Field(
        default=10.0, description="from opening to the first probe; doubles with each failed probe"
    )
    open_max: Timeout = Field(default=20.0, description="up to this")
    half_open_probes: Count = Field(default=1, description="probes at once")
    success_threshold: Count = Field(default=2, description="good probes that close it")


class HealthCheckConfig(Section):
    """The active check, which spends no tokens."""

    interval: Timeout = Field(default=60.0, description="from one check to the next")
    timeout: Timeout = Field(default=5.0, description="of one check")


class AdaptiveConfig(Section):
    """How far the calls at once may be lowered; docs/adaptive-concurrency.md says when they are."""

    min: Count = Field(default=4, description="calls at once that a provider is sent at least")


class ProviderConfig(Section):
    """One upstream API. Keys beyond these belong to its kind, and are validated by it."""

    kind: str = Field(description="which sort of upstream it is: an entry point of modelrouter.providers")
    required: bool = Field(default=False, description="the router is ready only when this provider is well")
    max_concurrency: Count = Field(default=64, description="calls at once")
    max_queue: int = Field(default=128, ge=0, description="calls that may wait for a place")
    queue_timeout: Duration = Field(default=5.0, description="how long they may wait")
    max_wait_boost: Duration = Field(default=2.0, description="whoever waited so long goes first")
    timeouts: TimeoutsConfig = Field(default_factory=TimeoutsConfig, description="how long it may take")
    retries: int = Field(default=1, ge=0, le=10, description="further tries of a target that was unavailable")
    retry_after_cap: Duration = Field(default=60.0, description="the longest Retry-After that is believed")
    breaker: BreakerConfig = Field(default_factory=BreakerConfig, description="when to leave a target alone")
    health_check: HealthCheckConfig | None = Field(
        default_factory=HealthCheckConfig, description="the active check; null turns it off"
    )
    adaptive: AdaptiveConfig | None = Field(
        default=None,
        description="move the calls at once between min and max_concurrency, as it bears them; null: off",
    )
    limits: RatesConfig | None = Field(
        default=None,
        description="what it is sent at most; whoever comes beyond goes elsewhere; null: any amount",
    )
    trace_context: bool = Field(default=True, description="send W3C trace headers to it")
    budget: BudgetConfig | None = Field(
        default=None, description="what all calls may spend there; null: any sum, see docs/budgets.md"
    )
    settings: Any = Field(default=None, exclude=True, description="what the kind made of its own keys")

    @model_validator(mode="before")
    @classmethod
    def _set_keys_of_the_kind_apart(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        common = {key: value for key, value in data.items() if key in COMMON_PROVIDER_KEYS}
        own = {key: value for key, value in data.items() if key not in COMMON_PROVIDER_KEYS}
        return {**common, "settings": own}

    @field_validator("kind")
    @classmethod
    def _kind_exists(cls, kind: str) -> str:
        try:
            load_kind(kind)
        except SetupError as error:
            raise ValueError(str(error)) from None
        return kind

    @field_validator("settings", mode="before")
    @classmethod
    def _validate_as_the_kind_does(cls, own: Any, info: ValidationInfo) -> Any:
        if "kind" not in info.data or (info.context or {}).get(PARTIAL):
            return None
        try:
            # A ValidationError raised in here keeps its own key paths, below this one.
            return load_kind(info.data["kind"]).settings.model_validate(own, context=info.context)
        except ValidationError:
            raise
        except Exception as error:  # noqa: BLE001 - a kind is someone else's code, and may fail in any way
            raise ValueError(
                f"the kind {info.data['kind']} fails to read its keys with {type(error).__name__}; "
                "compare them with its documentation"
            ) from None


COMMON_PROVIDER_KEYS = frozenset(ProviderConfig.model_fields) - {"settings"}


class PriceConfig(Section):
    """What a call costs, in US dollars; what is unset counts nothing."""

    input: float = Field(default=0.0, ge=0, description="of a million input tokens")
    output: float = Field(default=0.0, ge=0, description="of a million output tokens")
    request: float = Field(default=0.0, ge=0, description="of each call")


class TargetConfig(Section):
    """A provider's model: the unit of failover."""

    provider: str = Field(description="a name from providers")
    model: str = Field(description="the upstream's own model name")
    context_window: Count | None = Field(default=None, description="tokens; null: unknown")
    max_output_tokens: Count | None = Field(
        default=None, description="a cap, and the value where the caller sets none"
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="where the caller set none")
    capabilities: dict[Capability, bool] = Field(
        default_factory=dict, description="what it can do, where that differs from its kind"
    )
    timeouts: TimeoutsConfig | None = Field(default=None, description="over the provider's, key by key")
    breaker: BreakerConfig | None = Field(default=None, description="over the provider's, key by key")
    max_concurrency: Count | None = Field(default=None, description="calls at once, within the provider's")
    embedding_space: str | None = Field(
        default=None,
        min_length=1,
        description="equal where vectors are comparable; null: the model's own",
    )
    price: PriceConfig | None = Field(default=None, description="null: from the public price list")
    provider_options: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="further fields of each request to it, in the provider's own words; the caller's win",
    )

    @field_validator("provider_options")
    @classmethod
    def _leave_the_routers_fields(cls, options: dict[str, Any]) -> dict[str, Any]:
        refused = refused_options(options)
        if refused:
            raise ValueError(f"must not set {', '.join(refused)}: the router sets that itself; remove it")
        return options


class LogConfig(Section):
    """The process's log."""

    format: Literal["auto", "text", "json"] = Field(
        default="auto", description="auto: text on a terminal, else JSON"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least that is said: debug, info, warning or error"
    )


class TelemetryConfig(Section):
    """Traces, metrics and logs."""

    service_name: str = Field(
        default="modelrouter", min_length=1, description="service.name in traces and metrics"
    )
    otlp_endpoint: str | None = Field(
        default=None, pattern="^https?://[^/]", description="where OTLP over HTTP is accepted; null: nowhere"
    )
    sample_ratio: float = Field(default=1.0, ge=0, le=1, description="share of traces that are recorded")
    record_content: bool = Field(default=False, description="record what callers and models say")
    log: LogConfig = Field(default_factory=LogConfig, description="the log on standard error")


class Config(Section):
    """A whole configuration. Made by `load` or `default_config`, which also check what the types cannot."""

    server: ServerConfig = Field(default_factory=ServerConfig, description="where it listens, how it stops")
    redis: RedisUrl | None = Field(
        default=None, description="what replicas share is kept there; null: each process is on its own"
    )
    auth: AuthConfig | None = Field(
        default=None, description="who may call; null: whoever reaches the port, see docs/auth.md"
    )
    limits: LimitsConfig | None = Field(
        default=None, description="how much callers may use, see docs/limits.md; null: any amount"
    )
    providers: dict[Name, ProviderConfig] = Field(default_factory=dict, description="upstream APIs by name")
    targets: dict[RouteName, TargetConfig] = Field(default_factory=dict, description="models by name")
    routes: dict[RouteName, RouteConfig] = Field(default_factory=dict, description="what callers name")
    alerts: AlertsConfig | None = Field(
        default=None, description="tell people of outages; null: nobody is told"
    )
    telemetry: TelemetryConfig = Field(default_factory=TelemetryConfig, description="traces, metrics, logs")

    def capabilities(self, target: str) -> frozenset[Capability]:
        """Return what the target called ``target`` can do: its kind's word, then its own."""
        settings = self.targets[target]
        provider = self.providers[settings.provider]
        kind = load_kind(provider.kind)
        # Without its own settings, which are wrong then, a kind speaks of all its models.
        known = provider.settings is not None
        able = kind.capabilities_of(provider.settings, settings.model) if known else kind.capabilities
        changes = settings.capabilities
        return able.union(c for c in changes if changes[c]).difference(c for c in changes if not changes[c])

    def timeouts(self, target: str) -> Timeouts:
        """Return the timeouts of the target called ``target``: its own over its provider's."""
        settings = self.targets[target]
        return Timeouts(**_overlaid(self.providers[settings.provider].timeouts, settings.timeouts))

    def breaker(self, target: str) -> BreakerSettings:
        """Return the breaker of the target called ``target``: its own keys over its provider's."""
        settings = self.targets[target]
        return BreakerSettings(**_overlaid(self.providers[settings.provider].breaker, settings.breaker))


def _overlaid(base: Section, over: Section | None) -> dict[str, Any]:
    return base.model_dump() | (over.model_dump(exclude_unset=True) if over else {})
