"""Every mistake of a file, at once, each with its key and its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from router_server.config import ConfigError, load
from tests.config.reading import VALID, mistakes, only_mistake

TEN_MISTAKES = """\
server:
  workers: zero
  drain_delay: soon
  tls: {cert: nowhere.pem, key: router.yaml}
providers:
  openai:
    kind: openai
    api_key: ${NOT_SET}
  mock:
    kind: mock
    max_queeu: 5
    latency: later
  gone: {kind: mook}
targets:
  a: {provider: mokc, model: x}
  b: {provider: mock, model: y, temperature: 9}
routes:
  chat:
    targets: [a, b, c]
    strategy: weightd
"""


def test_ten_mistakes_are_named_at_once_each_with_key_and_line(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_text(TEN_MISTAKES)
    with pytest.raises(ConfigError) as raised:
        load(file, {})
    assert [(problem.line, problem.key) for problem in raised.value.problems] == [
        (2, "server.workers"),
        (3, "server.drain_delay"),
        (4, "server.tls.cert"),
        (8, "providers.openai.api_key"),
        (11, "providers.mock.max_queeu"),
        (12, "providers.mock.latency"),
        (13, "providers.gone.kind"),
        (15, "targets.a.provider"),
        (16, "targets.b.temperature"),
        (19, "routes.chat.targets[2]"),
        (20, "routes.chat.strategy"),
    ]
    first, *_ = str(raised.value).splitlines()
    assert first == f"{file}:2: server.workers: must be a whole number"


@pytest.mark.parametrize(
    ("added", "key", "words"),
    [
        ("servr: {}", "servr", "unknown key; did you mean server?"),
        (
            "queue: null",
            "queue",
            "known here: alerts, auth, limits, providers, redis, routes, server, targets, telemetry",
        ),
        ("server: {lisen: 1}", "server.lisen", "did you mean listen?"),
        ("server: {admin: 1}", "server.admin", "did you mean admin_listen?"),
        ("server: {deadline: {unray: 5s}}", "server.deadline.unray", "did you mean unary?"),
        ("server: {tls: {cert: a}}", "server.tls.key", "is required; add it"),
        ("server: {workers: 0}", "server.workers", "must be at least 1"),
        ("server: {workers: 1.5}", "server.workers", "must be a whole number"),
        ("server: {workers: true}", "server.workers", "must be a number, not true or false"),
        ("server: {reflection: maybe}", "server.reflection", "must be true or false"),
        ("server: {listen: 50051}", "server.listen", "write host:port"),
        ("server: {listen: 'localhost:70000'}", "server.listen", "write host:port"),
        ("server: {listen: '::1:50051'}", "server.listen", "write host:port"),
        ("server: {http_listen: 'unix:/run/x'}", "server.http_listen", "write host:port"),
        ("server: {drain_grace: -5}", "server.drain_grace", "is not a duration"),
        ("server: {drain_grace: [5s]}", "server.drain_grace", "is not a duration"),
        ("server: {drain_grace: .inf}", "server.drain_grace", "is not a duration"),
        ("server: {deadline: {unary: 0s}}", "server.deadline.unary", "must be more than 0"),
        ("server: 5", "server", "must be a mapping of keys; write {key: value}"),
        ("server:", "server", "must be a mapping of keys"),
        ("telemetry: {sample_ratio: 2}", "telemetry.sample_ratio", "must be at most 1"),
        ("telemetry: {sample_ratio: .nan}", "telemetry.sample_ratio", "must be a finite number"),
        ("telemetry: {sample_ratio: half}", "telemetry.sample_ratio", "must be a number"),
        ("telemetry: {service_name: ''}", "telemetry.service_name", "must not be empty"),
        ("telemetry: {service_name: 5}", "telemetry.service_name", "must be text; put it in quotes"),
        ("telemetry: {otlp_endpoint: 'localhost:4318'}", "telemetry.otlp_endpoint", "must match ^https?://"),
        ("redis: localhost:6379", "redis", "is not the URL of a Redis; write redis://"),
        ("redis: http://localhost:6379", "redis", "is not the URL of a Redis"),
        ("redis: 'redis://[::1:6379'", "redis", "is not the URL of a Redis"),
        ("redis: redis://localhost:99999", "redis", "is not the URL of a Redis"),
        ("redis: redis:///0", "redis", "names no host"),
        ("redis: unix:///", "redis", "names no socket"),
        ("redis: 6379", "redis", "must be text"),
        ("telemetry: {log: {level: loud}}", "telemetry.log.level", "must be 'debug', 'info', 'warning' or"),
    ],
)
def test_each_kind_of_mistake_says_what_to_do(added: str, key: str, words: str) -> None:
    problem = only_mistake(VALID + added)
    assert (problem.line, problem.key) == (7, key)
    assert words in problem.message


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("kind: mock", "knid: mock", "providers.m.kind", "is required"),
        ("kind: mock", "kind: mook", "providers.m.kind", "known kinds: embedded, gemini, litellm, mock"),
        ("kind: mock", "kind: mock, base_url: x", "providers.m.base_url", "unknown key"),
        ("kind: mock", "kind: mock, settings: x", "providers.m.settings", "unknown key"),
        ("kind: mock", "kind: mock, retrise: 1", "providers.m.retrise", "did you mean retries?"),
        ("kind: mock", "kind: mock, lateny: 1s", "providers.m.lateny", "did you mean latency?"),
        ("kind: mock", "kind: mock, retries: -1", "providers.m.retries", "must be at least 0"),
        ("kind: mock", "kind: mock, latency: [1]", "providers.m.latency", "is not a duration"),
        (
            "kind: mock",
            "kind: mock, breaker: {open: 9s, open_max: 8s}",
            "providers.m.breaker.open_max",
            "shorter",
        ),
        (
            "kind: mock",
            "kind: mock, timeouts: {idle: 5 years}",
            "providers.m.timeouts.idle",
            "not a duration",
        ),
        ("kind: mock", "kind: vllm, base_url: 'ftp://x'", "providers.m.base_url", "http://"),
        (
            "kind: mock",
            "kind: static, content: x, answers: [{match: y}]",
            "providers.m.answers[0].content",
            "required",
        ),
        ("m: {", "m/n: {", "providers.m/n", "is not a name"),
        ("model: x", "model: 5", "targets.t.model", "must be text"),
        ("model: x", "model: ''", "targets.t.model", "is empty"),
        ("model: x", "model: x, api_key: y", "targets.t.api_key", "unknown key; known here: breaker"),
        (
            "model: x",
            "model: x, capabilities: {tool: true}",
            "targets.t.capabilities.tool",
            "did you mean tools?",
        ),
        ("model: x", "model: x, capabilities: {tools: 7}", "targets.t.capabilities.tools", "true or false"),
        ("model: x", "model: x, price: {input: -1}", "targets.t.price.input", "at least 0"),
        ("model: x", "model: x, breaker: {open: 30s}", "targets.t.breaker.open_max", "shorter than open"),
        ("targets: [t]", "targets: t", "routes.r.targets", "must be a list; write [a, b]"),
        ("targets: [t]", "targets: []", "routes.r.targets", "is empty; name at least one target"),
        (
            "targets: [t]",
            "targets: [t], strategy: best",
            "routes.r.strategy",
            "must be 'ordered', 'weighted'",
        ),
        (
            "model: x",
            "model: x, provider_options: {stream: false, top_p: 1, n: 2}",
            "targets.t.provider_options",
            "must not set n, stream: the router sets that itself",
        ),
        (
            "routes:",
            "alerts: {webhook: hooks.slack.com}\nroutes:",
            "alerts.webhook",
            "is not the URL of a webhook",
        ),
        ("routes:", "alerts: {}\nroutes:", "alerts.webhook", "is required; add it"),
        ("targets: [t]", "targets: [t], aliases: [a b]", "routes.r.aliases[0]", "is not a route's name"),
        ("targets: [t]", "targets: [t], fallback: t", "routes.r.fallback", "must be a list; write [a, b]"),
        ("targets: [t]", "targets: [t], caching: null", "routes.r.caching", "unknown key"),
        ("targets: [t]", "targets: [t], hedge: {after: p42}", "routes.r.hedge.after", "write p50, p90, p95"),
        ("targets: [t]", "targets: [t], hedge: {after: 0s}", "routes.r.hedge.after", "nor a duration"),
        ("targets: [t]", "targets: [t], hedge: {max_extra: 0}", "routes.r.hedge.max_extra", "more than 0"),
        ("targets: [t]", "targets: [t], hedge: {max_extra: 5}", "routes.r.hedge.max_extra", "at most 1"),
        ("targets: [t]", "targets: [t], hedge: {}", "routes.r.hedge", "needs a second target"),
        ("kind: mock", "kind: mock, adaptive: {min: 0}", "providers.m.adaptive.min", "at least 1"),
        (
            "kind: mock",
            "kind: mock, adaptive: {min: 65}",
            "providers.m.adaptive.min",
            "max_concurrency; lower",
        ),
        (
            "targets: [t]",
            "targets: [t], stream_recovery: no",
            "routes.r.stream_recovery",
            "'none', 'restart' or",
        ),
        (
            "targets: [t]",
            "targets: [{target: t, weight: 0}]",
            "routes.r.targets[0].weight",
            "must be at least 1",
        ),
        (
            "targets: [t]",
            "targets: [{target: t, wait: 1}]",
            "routes.r.targets[0].wait",
            "did you mean weight?",
        ),
        ("targets: [t]", "targets: [{weight: 1}]", "routes.r.targets[0].target", "is required; add it"),
        ("targets: [t]", "targets: [[t]]", "routes.r.targets[0]", "must be a mapping of keys"),
        ("r: {", "'r s': {", "routes.r s", "is not a route's name"),
    ],
)
def test_mistakes_in_named_entries_have_the_key_of_the_entry(
    old: str, new: str, key: str, words: str
) -> None:
    text = VALID.replace(old, new)
    line = next(
        n for n, (a, b) in enumerate(zip(VALID.splitlines(), text.splitlines(), strict=True), 1) if a != b
    )
    found = [problem for problem in mistakes(text) if problem.key == key]
    assert [problem.line for problem in found] == [line]
    assert words in found[0].message


@pytest.mark.parametrize("section", ["providers", "targets", "routes"])
@pytest.mark.parametrize("empty", ["", ": {}"])
def test_a_section_without_entries_is_a_mistake(section: str, empty: str) -> None:
    lines = VALID.splitlines()
    at = lines.index(f"{section}:")
    lines[at : at + 2] = [section + empty] if empty else []
    assert section in {p.key for p in mistakes("\n".join(lines)) if p.message.startswith("declares none")}


def test_a_section_of_the_wrong_shape_is_reported_once() -> None:
    assert [p.key for p in mistakes("providers: [a]\n" + VALID[VALID.index("targets") :])] == ["providers"]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [(b"a: 1\nb: \xff\xfe", 2, "not UTF-8"), (None, 0, "No such file"), (b"", 1, "is empty")],
)
def test_a_file_that_cannot_be_read_is_one_mistake(
    tmp_path: Path, content: bytes | None, line: int, words: str
) -> None:
    file = tmp_path / "router.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(file, {})
    (problem,) = raised.value.problems
    assert problem.line == line
    assert words in problem.message
    assert str(raised.value).startswith(f"{file}:")


def test_a_folder_in_place_of_a_file_is_one_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        load(tmp_path, {})


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + VALID.encode())
    assert set(load(file, {}).routes) == {"r"}
