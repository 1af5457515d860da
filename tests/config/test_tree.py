"""The tree against its other statements: the core's defaults, the example, the page, overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from router_server.config import (
    BreakerConfig,
    Config,
    ConfigError,
    DeadlineConfig,
    HealthCheckConfig,
    HedgeConfig,
    ProviderConfig,
    TimeoutsConfig,
    listening,
    load,
    warnings_of,
)
from router_server.config.key_table import render, updated
from router_server.core.breaker import BreakerSettings
from router_server.core.deadline import Timeouts
from router_server.core.hedge import Percentile
from router_server.core.limiter import Limits
from router_server.core.router import RouterSettings
from router_server.core.target import HealthCheck
from router_server.rpc.settings import ServerSettings
from tests.config.reading import VALID, config_of

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"OPENAI_API_KEY": "a", "GEMINI_API_KEY": "b"}


def test_the_defaults_are_those_of_the_parts_that_they_configure() -> None:
    config = config_of(VALID)
    provider, server = config.providers["m"], config.server
    deadlines, check, parts = DeadlineConfig(), HealthCheckConfig(), ServerSettings()
    assert BreakerSettings(**BreakerConfig().model_dump()) == BreakerSettings() == config.breaker("t")
    assert Timeouts(**TimeoutsConfig().model_dump()) == Timeouts() == config.timeouts("t")
    assert HealthCheck(check.interval, check.timeout) == HealthCheck()
    assert (
        Limits(provider.max_concurrency, provider.max_queue, provider.queue_timeout, provider.max_wait_boost)
        == Limits()
    )
    assert (deadlines.unary, deadlines.stream) == (
        RouterSettings().unary_deadline,
        RouterSettings().stream_deadline,
    )
    assert (server.listen, server.max_receive_bytes, server.max_send_bytes, server.reflection) == (
        parts.listen,
        parts.max_receive_bytes,
        parts.max_send_bytes,
        parts.reflection,
    )


def test_the_example_is_valid_and_shows_the_defaults() -> None:
    config = load(ROOT / "router.example.yaml", KEYS)
    assert config.server == Config().server
    assert config.telemetry == Config().telemetry
    assert config.redis == Config().redis
    assert config.auth == Config().auth
    assert config.limits == Config().limits
    plain = ProviderConfig.model_validate({"kind": "openai", "api_key": "a"})
    assert config.providers["openai"].model_dump() == plain.model_dump()
    assert list(config.routes) == ["chat-default", "chat-balanced", "embed-default"]


def test_the_example_without_its_variables_names_both() -> None:
    with pytest.raises(ConfigError) as raised:
        load(ROOT / "router.example.yaml", {})
    assert [p.key for p in raised.value.problems] == ["providers.openai.api_key", "providers.gemini.api_key"]


def test_the_page_lists_every_key_as_the_tree_has_it() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert page == updated(page), "run: python -m router_server.config.key_table docs/configuration.md"
    for key in ("`server.tls.client_ca`", "`providers.NAME.breaker.open_max`", "`targets.NAME.price.input`"):
        assert key in render()


def test_a_page_without_the_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="generated below this line"):
        updated("# Configuration\n")


def test_a_target_overrides_its_provider_key_by_key() -> None:
    text = VALID.replace(
        "kind: mock", "kind: mock, timeouts: {idle: 7s, connect: 1s}, breaker: {min_calls: 3}"
    ).replace(
        "model: x",
        "model: x, timeouts: {idle: 9s}, breaker: {open: 2s}, capabilities: {tools: true, embed: false}",
    )
    config = config_of(text)
    assert config.timeouts("t") == Timeouts(connect=1.0, idle=9.0)
    assert config.breaker("t") == BreakerSettings(min_calls=3, open=2.0)
    assert "tools" in config.capabilities("t")
    assert "embed" not in config.capabilities("t")


@pytest.mark.parametrize(
    ("written", "after"), [("p50", Percentile.P50), ("p99", Percentile.P99), ("300ms", 0.3), ("2", 2.0)]
)
def test_a_hedge_is_after_a_percentile_or_a_duration(written: str, after: Percentile | float) -> None:
    two = VALID.replace("routes:", "  u: {provider: m, model: y}\nroutes:")
    hedge = config_of(two.replace("[t]", f"[t, u], hedge: {{after: {written}}}")).routes["r"].hedge
    assert hedge is not None
    assert (hedge.after, hedge.max_extra) == (after, 0.05)
    assert type(hedge.after) is type(after)
    assert HedgeConfig().after is Percentile.P95


def test_durations_are_seconds() -> None:
    server = config_of(
        f"{VALID}server: {{drain_delay: 500ms, drain_grace: 1h30m, deadline: {{unary: 7}}}}"
    ).server
    assert (server.drain_delay, server.drain_grace, server.deadline.unary) == (0.5, 5400.0, 7.0)


def test_a_cache_that_mixes_the_arms_of_an_experiment_is_a_warning() -> None:
    two = VALID.replace("routes:", "  u: {provider: m, model: y}\nroutes:")
    tried = two.replace("[t]", "[t], experiment: {target: u, share: 0.1}")
    assert warnings_of(config_of(tried)) == ()
    (warning,) = warnings_of(config_of(tried.replace("share: 0.1}", "share: 0.1}, cache: {ttl: 1h}")))
    assert "routes.r has an experiment and a cache" in warning


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:50051", "localhost:50051", "'[::1]:50051'", "'unix:/run/router.sock'"]
)
def test_nothing_to_warn_of_on_this_machine_alone(listen: str) -> None:
    assert warnings_of(config_of(f"{VALID}server: {{listen: {listen}}}")) == ()


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:50051", "'[::]:50051'", "10.0.0.7:50051", "router.internal:50051"]
)
def test_a_reachable_port_without_client_certificates_is_an_open_relay(listen: str) -> None:
    text = VALID.replace("kind: mock", "kind: openai, api_key: sk-secret")
    (warning,) = warnings_of(config_of(f"{text}server: {{listen: {listen}}}"))
    assert "spends the key of m: an open relay" in warning
    assert "in plaintext" in warning
    assert "sk-secret" not in warning
    (without_keys,) = warnings_of(config_of(f"{VALID}server: {{listen: {listen}}}"))
    assert "relay" not in without_keys


def test_tls_alone_keeps_nobody_out(tmp_path: Path) -> None:
    for name in ("c", "k", "ca"):
        (tmp_path / name).touch()
    files = f"cert: {tmp_path}/c, key: {tmp_path}/k"
    (warning,) = warnings_of(config_of(f"{VALID}server: {{listen: '0.0.0.0:1', tls: {{{files}}}}}"))
    assert "with TLS but no client_ca" in warning
    mutual = f"{VALID}server: {{listen: '0.0.0.0:1', tls: {{{files}, client_ca: {tmp_path}/ca}}}}"
    assert warnings_of(config_of(mutual)) == ()


def test_other_addresses_take_the_place_of_the_configured_ones() -> None:
    config = listening(config_of(f"{VALID}server: {{workers: 2}}"), listen="0.0.0.0:1", http_listen="[::1]:2")
    assert (config.server.listen, config.server.http_listen, config.server.workers) == (
        "0.0.0.0:1",
        "[::1]:2",
        2,
    )
    assert listening(config) == config


@pytest.mark.parametrize(
    ("listen", "http_listen", "message"),
    [
        ("50051", None, "command line: --listen: is not an address"),
        (None, "x", "command line: --http-listen: is not an address"),
        ("127.0.0.1:8080", None, "command line: --http-listen: takes the port of server.listen"),
    ],
)
def test_other_addresses_may_be_wrong_too(listen: str | None, http_listen: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        listening(config_of(VALID), listen=listen, http_listen=http_listen)
    assert str(raised.value).startswith(message)
