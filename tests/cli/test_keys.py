"""The command that keeps the keys, with a file and with a real server of shared state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from router_server.auth.api_keys import hash_of
from router_server.cli import main
from router_server.commands.exits import Exit
from tests.state.servers import shared_server

CONFIG = """
providers: {m: {kind: mock}}
targets: {t: {provider: m, model: x}}
routes: {chat: {targets: [t]}}
"""


@pytest.fixture(params=["file", "config", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The options that say where keys are kept."""
    config = tmp_path / "router.yaml"
    if request.param == "file":
        yield ["--file", str(tmp_path / "keys.yaml")]
    elif request.param == "config":
        (tmp_path / "keys.yaml").touch()
        config.write_text(f"{CONFIG}auth: {{api_keys: keys.yaml}}\n")
        yield ["--config", str(config)]
    else:
        with TemporaryDirectory(prefix="mr") as folder, shared_server(Path(folder)) as server:
            config.write_text(f"{CONFIG}redis: {server.url}\nauth: {{api_keys: redis}}\n")
            yield ["--config", str(config)]


def listed(place: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert main(["keys", "list", "--json", *place]) is Exit.OK
    keys: list[dict[str, object]] = json.loads(capsys.readouterr().out)["keys"]
    return keys


def test_a_key_from_its_making_to_its_end(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--requests-per-minute", "60", "--tokens-per-minute", "9000", "--max-concurrency", "4"]
    budget = ["--daily-usd", "2.5", "--monthly-usd", "40"]
    more = [*budget, "--routes", "chat", "team-*", "--label", "team=search", "--expires", "90d"]
    assert main(["keys", "add", "search", *limits, *more, *place]) is Exit.OK
    printed = capsys.readouterr()
    key = printed.out.strip()
    assert printed.out == f"{key}\n"
    assert key.startswith("mr-")
    assert "shown once" in printed.err
    assert key not in printed.err

    (known,) = listed(place, capsys)
    assert known["name"] == "search"
    assert known["routes"] == ["chat", "team-*"]
    assert known["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 9000, "max_concurrency": 4}
    assert known["budget"] == {
        "daily_usd": 2.5,
        "monthly_usd": 40.0,
        "on_exhausted": "refuse",
        "timezone": "UTC",
    }
    assert known["labels"] == {"team": "search"}
    assert known["fingerprint"] == hash_of(key)[:8]
    assert "sha256" not in known

    assert main(["keys", "rotate", "search", "--overlap", "1h", *place]) is Exit.OK
    new = capsys.readouterr().out.strip()
    assert [one["fingerprint"] for one in listed(place, capsys)] == [hash_of(key)[:8], hash_of(new)[:8]]
    assert main(["keys", "list", *place]) is Exit.OK
    table = capsys.readouterr().out
    assert "max_concurrency: 4" in table
    assert "2.5 USD a day and 40 USD a month (UTC), then refuses" in table
    assert "team=search" in table

    assert main(["keys", "revoke", "search", *place]) is Exit.OK
    assert "within 1 s" in capsys.readouterr().err
    assert listed(place, capsys) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["revoke", "nobody"], "nobody called nobody has a key"),
        (["rotate", "nobody"], "nobody called nobody has a key"),
        (["add", "two words"], "name: is not a name"),
        (["add", "a", "--requests-per-minute", "0"], "requests-per-minute: "),
        (["add", "a", "--daily-usd", "0"], "daily-usd: "),
        (["add", "a", "--expires", "tomorrow"], "expires: is not a moment"),
        (["add", "a", "--label", "x"], "label: is not NAME=VALUE"),
        (["rotate", "a", "--overlap", "soon"], "overlap: 'soon' is not a duration"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("keys: []\n")
    assert main(["keys", *arguments, "--file", str(path)]) is Exit.FAILED
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.out == ""
    assert path.read_text() == "keys: []\n"


def test_a_name_has_one_key_until_it_is_rotated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--file", str(tmp_path / "keys.yaml")]
    assert main(["keys", "add", "a", *place]) is Exit.OK
    assert main(["keys", "add", "a", *place]) is Exit.FAILED
    assert main(["keys", "rotate", "a", "--overlap", "0", *place]) is Exit.OK
    assert "ends at once" in capsys.readouterr().err
    assert len(yaml.safe_load((tmp_path / "keys.yaml").read_text())["keys"]) == 1


def test_a_configuration_without_a_place_for_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "router.yaml"
    config.write_text(CONFIG)
    assert main(["keys", "list", "--config", str(config)]) is Exit.FAILED
    assert "names neither a file nor redis" in capsys.readouterr().err
    config.write_text("routes: 5")
    assert main(["keys", "list", "--config", str(config)]) is Exit.CONFIGURATION


def test_a_redis_that_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "router.yaml"
    config.write_text(f"{CONFIG}redis: unix://{tmp_path}/none\nauth: {{api_keys: redis}}\n")
    for arguments in (["list"], ["add", "a"]):
        assert main(["keys", *arguments, "--config", str(config)]) is Exit.FAILED
        printed = capsys.readouterr()
        assert "Redis does not answer" in printed.err
        assert not printed.out


def test_check_config_says_how_callers_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys.yaml").touch()
    config = tmp_path / "router.yaml"
    jwt = "jwt: {jwks: 'https://id.example/jwks', issuer: 'https://id.example', audience: models}"
    limits = "limits: {caller: {requests_per_minute: 60, max_concurrency: 4}}"
    routes = CONFIG.replace("[t]}", "[t], limits: {tokens_per_minute: 900}}")
    config.write_text(f"{routes}auth: {{api_keys: keys.yaml, {jwt}}}\n{limits}\n")
    assert main(["check-config", str(config)]) is Exit.OK
    shown = capsys.readouterr().out
    assert f"Callers show API keys, kept in {tmp_path}/keys.yaml." in shown
    assert "Callers show tokens of https://id.example for models." in shown
    assert "Limits of each caller: requests_per_minute 60, max_concurrency 4." in shown
    assert "Limits of route chat: tokens_per_minute 900." in shown


CALLERS = """
server: {idempotency_ttl: 5m, tls: {cert: c.pem, key: c.pem, client_ca: c.pem}}
auth:
  api_keys:
    - {name: search, sha256: HASH, routes: ["ch*", embed], expires: 2027-01-31T00:00:00Z,
       limits: {tokens_per_minute: 7}, budget: {daily_usd: 2}}
    - {name: old, sha256: OTHER, expires: 2026-12-01T00:00:00Z}
  jwt: {jwks: "https://id.example/k", issuer: "https://id.example", audience: m, required_claims: {scope: x},
        routes: [chat], limits: {requests_per_minute: 4}, budget: {monthly_usd: 5}}
  mtls: {allow: ["spiffe://corp/*"], limits: {max_concurrency: 3}, budget: {daily_usd: 1}}
"""


def test_check_config_says_what_each_caller_may(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.pem").touch()
    config = tmp_path / "router.yaml"
    config.write_text(CONFIG + CALLERS.replace("HASH", "5b" * 32).replace("OTHER", "6c" * 32))
    assert main(["check-config", str(config)]) is Exit.OK
    shown = capsys.readouterr().out
    for line in (
        "Callers show tokens of https://id.example for m with scope.",
        "Callers show client certificates of spiffe://corp/*.",
        "Key search may name ch* or embed alone until 2027-01-31T00:00:00+00:00.",
        "Key old may call until 2026-12-01T00:00:00+00:00.",
        "Each tenant of a token may name chat alone.",
        "Limits of key search: tokens_per_minute 7.",
        "Limits of each tenant of a token: requests_per_minute 4.",
        "Limits of each owner of a certificate: max_concurrency 3.",
        "Key search may spend 2 USD a day (UTC), then refuses.",
        "Each tenant of a token may spend 5 USD a month (UTC), then refuses.",
        "Each owner of a certificate may spend 1 USD a day (UTC), then refuses.",
        "Answers are kept for 300s under idempotency keys.",
    ):
        assert line in shown
