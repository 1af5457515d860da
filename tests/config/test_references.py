"""Mistakes between keys that are right in themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from router_server.config import load
from tests.config.reading import VALID, config_of, mistakes, only_mistake

EMBEDDING = """\
providers:
  o: {kind: openai, api_key: k, base_url: 'http://localhost:1/v1'}
  s: {kind: static, content: x}
  m: {kind: mock}
targets:
  small: {provider: o, model: text-embedding-3-small}
  large: {provider: o, model: text-embedding-3-large}
  spaced: {provider: o, model: a, embedding_space: one}
  same: {provider: o, model: b, embedding_space: one}
  other: {provider: o, model: c, embedding_space: two}
  vectors: {provider: o, model: v, capabilities: {chat: false}}
  chat: {provider: o, model: d}
  plain: {provider: o, model: e}
  chats: {provider: o, model: f, capabilities: {embed: false}}
  canned: {provider: s, model: g}
  named: {provider: m, model: Nomic-Embed-v1}
  any: {provider: m, model: h}
routes:
"""


@pytest.mark.parametrize(
    "targets",
    [
        "small, large",
        "spaced, other",
        "spaced, chat",
        "chat, small",
        "vectors, chat",
        "same, small, chats",
        "named, any",
        "small], fallback: [large",
        "small], experiment: {target: large, share: 1}, aliases: [",
    ],
)
def test_a_route_may_not_mix_embedding_spaces(targets: str) -> None:
    problem = only_mistake(f"{EMBEDDING}  mixed: {{targets: [{targets}]}}")
    assert (problem.line, problem.key) == (19, "routes.mixed.targets")
    assert "mixes embedding spaces" in problem.message
    assert "set one embedding_space" in problem.message


@pytest.mark.parametrize(
    "targets",
    [
        "spaced, same",
        "small, chats",
        "chat, plain",
        "chat, canned",
        "small, canned",
        "small",
        "chats, vectors",
    ],
)
def test_a_route_of_one_space_or_of_chats_alone_is_fine(targets: str) -> None:
    assert config_of(f"{EMBEDDING}  fine: {{targets: [{targets}]}}").routes


def test_unknown_names_are_compared_with_those_that_exist() -> None:
    text = VALID.replace("provider: m", "provider: n").replace("[t]", "[target_one, t]")
    text = text.replace("  t: {", "  target_on: {provider: m, model: x}\n  t: {")
    found = {problem.key: problem.message for problem in mistakes(text)}
    assert found == {
        "targets.t.provider": "no provider is called 'n'; known here: m",
        "routes.r.targets[0]": "no target is called 'target_one'; did you mean target_on?",
    }


def test_a_target_named_twice_in_a_route_is_a_mistake() -> None:
    problem = only_mistake(VALID.replace("[t]", "[t, t]"))
    assert (problem.key, problem.message) == ("routes.r.targets[1]", "names 't' a second time; remove it")


@pytest.mark.parametrize(
    ("route", "key", "words"),
    [
        ("[t], fallback: [t]", "routes.r.fallback[0]", "names 't' a second time; remove it"),
        ("[t], fallback: [tt]", "routes.r.fallback[0]", "no target is called 'tt'; did you mean t?"),
        ("[{target: tt}]", "routes.r.targets[0]", "no target is called 'tt'"),
        (
            "[{target: t, weight: 1}]",
            "routes.r.targets[0].weight",
            "means nothing to strategy ordered; use one of weighted, least_inflight, least_connections,",
        ),
        (
            "[{target: t, weight: 1}], strategy: round_robin",
            "routes.r.targets[0].weight",
            "strategy round_robin",
        ),
    ],
)
def test_targets_weights_and_fallback_fit_each_other(route: str, key: str, words: str) -> None:
    problem = only_mistake(VALID.replace("[t]", route))
    assert (problem.line, problem.key) == (6, key)
    assert words in problem.message


@pytest.mark.parametrize(
    ("route", "key", "words"),
    [
        ("sticky: {}, affinity: {by: user_id}", "affinity", "excludes sticky"),
        ("sticky: {shares: {tt: 1}}", "sticky.shares.tt", "is not among the targets of this route; did you"),
        ("strategy: random, sticky: {shares: {t: 1}}", "sticky.shares", "contradict strategy random"),
        ("sticky: {shares: {t: 0}}", "sticky.shares", "must be numbers above 0"),
        ("sticky: {shares: {}}", "sticky.shares", "must be numbers above 0"),
        ("sticky: {by: user}", "sticky.by", "must be user_id, or label:NAME"),
        ("sticky: {ttl: 0s}", "sticky.ttl", "must be more than 0"),
        ("affinity: {by: 'label:'}", "affinity.by", "must be user_id, or label:NAME"),
        ("affinity: {}", "affinity.by", "is required; add it"),
    ],
)
def test_who_belongs_where_is_said_once_and_makes_sense(route: str, key: str, words: str) -> None:
    problem = only_mistake(VALID.replace("[t]", f"[t], {route}"))
    assert problem.key == f"routes.r.{key}"
    assert words in problem.message


@pytest.mark.parametrize(
    ("route", "key", "words"),
    [
        ("experiment: {target: t, share: 0.1}", "experiment.target", "answers all other calls too"),
        (
            "experiment: {target: tt, share: 0.1}",
            "experiment.target",
            "no target is called 'tt'; did you mean",
        ),
        ("experiment: {target: t}", "experiment.share", "is required; add it"),
        ("shadow: {target: tt}", "shadow.target", "no target is called 'tt'; did you mean t?"),
        ("shadow: {target: t, share: 0}", "shadow.share", "must be more than 0"),
        ("shadow: {target: t, share: 1.5}", "shadow.share", "must be at most 1"),
    ],
)
def test_trials_name_targets_and_shares(route: str, key: str, words: str) -> None:
    problem = only_mistake(VALID.replace("[t]", f"[t], {route}"))
    assert problem.key == f"routes.r.{key}"
    assert words in problem.message


def test_an_alias_is_nobody_elses_name() -> None:
    text = VALID.replace(
        "r: {targets: [t]}", "r: {targets: [t], aliases: [s, x, x]}\n  s: {targets: [t], aliases: [x]}"
    )
    found = {problem.key: problem.message for problem in mistakes(text)}
    assert found == {
        "routes.r.aliases[0]": "is a route's own name; choose another",
        "routes.r.aliases[2]": "is an alias of r already; choose another",
        "routes.s.aliases[0]": "is an alias of r already; choose another",
    }


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("kind: mock", "kind: mock, max_concurrency: 3", "providers.m.max_concurrency"),
        ("kind: mock", "kind: mock, max_queue: 3", "providers.m.max_queue"),
        ("model: x", "model: x, max_concurrency: 3", "targets.t.max_concurrency"),
    ],
)
def test_a_limit_that_the_workers_cannot_share_is_a_mistake(old: str, new: str, key: str) -> None:
    problem = only_mistake(f"{VALID.replace(old, new)}server: {{workers: 4}}")
    assert problem.key == key
    assert "less than server.workers," in problem.message
    assert config_of(f"{VALID.replace(old, new)}server: {{workers: 3}}").server.workers == 3


def test_no_queue_at_all_is_no_limit_that_workers_share() -> None:
    text = VALID.replace("kind: mock", "kind: mock, max_queue: 0")
    assert config_of(f"{text}server: {{workers: 4}}").providers["m"].max_queue == 0


@pytest.mark.parametrize(
    ("server", "key"),
    [
        ("{listen: '127.0.0.1:8080'}", "server.http_listen"),
        ("{listen: '0.0.0.0:8080'}", "server.http_listen"),
        ("{listen: '[::1]:7', health_listen: '[::]:7'}", "server.health_listen"),
        ("{listen: 'unix:/x', health_listen: 'unix:/x'}", "server.health_listen"),
        ("{admin_listen: '127.0.0.1:8080'}", "server.admin_listen"),
    ],
)
def test_two_addresses_on_one_port_are_a_mistake(server: str, key: str) -> None:
    problem = only_mistake(f"{VALID}server: {server}")
    assert (problem.line, problem.key) == (7, key)
    assert "choose another" in problem.message


@pytest.mark.parametrize(
    "server",
    [
        "{listen: '127.0.0.1:0', http_listen: '127.0.0.1:0'}",
        "{listen: '127.0.0.1:50052'}",
        "{listen: '127.0.0.1:8080', http_listen: null}",
        "{listen: '127.0.0.2:8080'}",
        "{listen: 'unix:/x', health_listen: 'unix:/y'}",
    ],
)
def test_addresses_that_do_not_exclude_each_other_are_fine(server: str) -> None:
    assert config_of(f"{VALID}server: {server}").server


def test_tls_files_count_from_the_folder_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("c")
    (tmp_path / "key.pem").write_text("k")
    file = tmp_path / "router.yaml"
    file.write_text(f"{VALID}server: {{tls: {{cert: cert.pem, key: {tmp_path}/key.pem}}}}")
    tls = load(file, {}).server.tls
    assert tls is not None
    assert (tls.cert, tls.key) == (tmp_path / "cert.pem", tmp_path / "key.pem")


def test_a_mistake_elsewhere_hides_no_reference() -> None:
    text = VALID.replace("[t]", "[t, u], strategy: x").replace("kind: mock", "kind: mock, latency: x")
    keys = {problem.key for problem in mistakes(text)}
    assert keys == {"providers.m.latency", "routes.r.targets[1]", "routes.r.strategy"}
