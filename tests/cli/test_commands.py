"""The command as a shell sees it: output, exit codes, bad luck."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from router_server.auth.api_keys import hash_of
from router_server.cli import main
from router_server.commands.exits import MEANINGS, Exit

MOCK = """\
server: {{listen: '{listen}', http_listen: null, drain_delay: 0s}}
providers: {{m: {{kind: mock}}}}
targets: {{t: {{provider: m, model: x}}, u: {{provider: m, model: y}}}}
routes: {{chat: {{targets: [t, u]}}, other: {{targets: [u]}}}}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the path of a socket has at most 107 bytes.
    with TemporaryDirectory(prefix="cli-") as name:
        yield Path(name)


def file_of(folder: Path, text: str = MOCK, listen: str = "127.0.0.1:0") -> Path:
    file = folder / "router.yaml"
    file.write_text(text.format(listen=listen))
    return file


def python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("OPENAI", "GEMINI", "VLLM"))
    }
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, *arguments], env=clean | env, capture_output=True, text=True, timeout=50, check=False
    )


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "router_server", *arguments, **env)


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "router_server", "serve", *arguments]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


def test_a_valid_file_is_summed_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(folder)
    assert main(["check-config", str(file)]) == Exit.OK
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{file} is valid. Its routes:", "  chat   t, then u", "  other  u"]
    assert err == ""


OWN = """
providers:
  p: {kind: openai, api_key: key, health_check: {interval: 2s}}
  q: {kind: mock, health_check: null}
  v: {kind: vllm, base_urls: ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]}
  w: {kind: vllm, base_urls: ["http://10.0.0.1:8000", "http://10.0.0.2:8000"], prefix_affinity: false}
targets:
  plain: {provider: p, model: gpt-4o-mini}
  own:
    provider: p
    model: m
    max_output_tokens: 100
    temperature: 0
    capabilities: {tools: false}
    timeouts: {idle: 3s}
    price: {input: 0.5, request: 0.001}
    provider_options: {service_tier: flex}
  free: {provider: q, model: m, price: {}}
routes: {chat: {targets: [plain, own, free]}}
alerts: {webhook: "https://hooks.example/very-secret", budget: [0.5, 1]}
"""


def test_what_providers_and_targets_have_of_their_own_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "own.yaml").write_text(OWN)
    assert main(["check-config", str(folder / "own.yaml")]) == Exit.OK
    shown = capsys.readouterr().out
    own = (
        "max_output_tokens 100, temperature 0.0, lack of tools, timeouts (idle 3), price (0.5 USD a million "
        "tokens in, 0.001 USD a request), provider_options (service_tier)"
    )
    when = "a target has been down, or back, for 30s, and when 50% and 100% of a budget is spent"
    assert shown.splitlines()[2:] == [
        "Provider p is checked every 2s.",
        "Provider q is not checked.",
        "Provider v has 2 servers, asked by load; prompts that begin alike go to the same one.",
        "Provider w has 2 servers, asked by load.",
        f"Target own has its own {own}.",
        "Target free has its own price (nothing).",
        f"A webhook is told when {when}.",
    ]


def test_every_mistake_of_a_file_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(folder, "server: {{workers: no}}\nproviders: {{m: {{kind: mook}}}}\ntarget: 1\n")
    assert main(["check-config", str(file)]) == Exit.CONFIGURATION
    out, err = capsys.readouterr()
    *mistakes, count = err.splitlines()
    assert out == ""
    assert count == f"{len(mistakes)} mistakes."
    assert mistakes[0] == f"{file}:1: server.workers: must be a whole number"
    assert any(line.startswith(f"{file}:3: target: unknown key; did you mean targets?") for line in mistakes)


def test_a_long_mistake_stays_on_its_line_and_keeps_its_brackets(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(folder, MOCK.replace("[t, u]", "[t, '{{}}[bold]{{}}" + "x" * 200 + "']"))
    assert main(["check-config", str(file)]) == Exit.CONFIGURATION
    (mistake, _) = capsys.readouterr().err.splitlines()
    assert "routes.chat.targets[1]: no target is called '{}[bold]{}xxx" in mistake


@pytest.mark.parametrize("command", [["check-config"], ["serve", "--config"]])
def test_a_file_that_is_not_there_is_one_clear_message(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(folder / "no.yaml")]) == Exit.CONFIGURATION
    assert capsys.readouterr().err.splitlines() == [
        f"{folder}/no.yaml: cannot be read: No such file or directory; check the path and its permissions",
        "1 mistake.",
    ]


def test_a_warning_is_no_mistake(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", str(file_of(folder, listen="0.0.0.0:50051"))]) == Exit.OK
    assert capsys.readouterr().err.startswith("warning: server.listen 0.0.0.0:50051 is reachable")


BUDGETS = """
providers:
  p: {kind: openai, api_key: key, budget: {daily_usd: 1}}
  q: {kind: openai, api_key: key}
  own: {kind: vllm, base_url: "http://127.0.0.1:1"}
targets:
  known: {provider: p, model: gpt-4o-mini}
  tuned: {provider: p, model: ft-ours}
  elsewhere: {provider: q, model: ft-ours}
  free: {provider: q, model: ft-ours, price: {}}
  ours: {provider: own, model: qwen}
routes:
  chat: {targets: [known, tuned, free, ours], shadow: {target: elsewhere, share: 0.1}, budget: {daily_usd: 1}}
  other: {targets: [free]}
auth:
  jwt: {jwks: "https://id.example/k", issuer: x, audience: y, budget: {daily_usd: 2}}
"""


def test_a_price_that_a_budget_goes_by_and_nobody_knows_is_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "budgets.yaml").write_text(BUDGETS)
    assert main(["check-config", str(folder / "budgets.yaml")]) == Exit.OK
    told = capsys.readouterr().err.splitlines()
    spends = "is not known, so its calls spend nothing of the budget of"
    assert [line.partition(": set ")[0] for line in told] == [
        f"warning: the price of tuned {spends} providers.p, routes.chat, auth.jwt",
        f"warning: the price of elsewhere {spends} routes.chat, auth.jwt",
    ]


def test_a_price_that_a_route_goes_by_and_nobody_knows_is_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = MOCK.replace("[t, u]", "[t, u], strategy: lowest_cost").replace(
        "model: y", "model: y, price: {{}}"
    )
    assert main(["check-config", str(file_of(folder, text))]) == Exit.OK
    out, err = capsys.readouterr()
    assert "t or u whichever is cheapest for the call" in out
    assert "the price of t is not known, so it comes last: set targets.t.price" in err
    assert "price of u" not in err


@pytest.mark.parametrize(
    "arguments", [[], ["srve"], ["check-config"], ["status", "--timeout", "0"], ["serve", "x"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == Exit.USAGE
    assert "usage: router-server" in capsys.readouterr().err


def test_the_help_lists_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(command in text for command in ("serve", "check-config", "status", "version"))
    assert set(MEANINGS) == set(Exit)
    assert all(f"{code:>3}  {meaning}" in text for code, meaning in MEANINGS.items())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == Exit.OK
    assert capsys.readouterr().out == f"router-server {version('modelrouter-grpc')}\n"


@pytest.mark.parametrize("package", ["pydantic", "yaml"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(package: str) -> None:
    done = python(
        "-c",
        f"import sys; sys.modules[{package!r}] = None; from router_server.cli import main; "
        "sys.exit(main(['check-config', 'x']))",
    )
    assert done.returncode == Exit.FAILED
    assert done.stderr.splitlines() == [
        f"router-server: the package {package} is not installed; run: pip install 'modelrouter-grpc[server]'"
    ]


def test_help_and_version_load_no_package_of_the_server() -> None:
    done = python(
        "-c",
        "import sys; from router_server.cli import main; main(['version']); "
        "sys.exit(any(name in sys.modules for name in ('pydantic', 'grpc', 'rich', 'yaml')))",
    )
    assert done.returncode == 0


def test_a_variable_that_cannot_be_used_is_blamed() -> None:
    done = run("serve", VLLM_BASE_URL="localhost:8000")
    assert done.returncode == Exit.CONFIGURATION
    assert done.stderr.startswith("environment: VLLM_BASE_URL: must begin with http://")


def test_a_port_that_is_taken_ends_the_start(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("serve", "--config", str(file_of(folder)), "--listen", address)
    assert done.returncode == Exit.FAILED
    assert f"router-server: cannot listen on {address}: the port is taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_none_ends_the_start(folder: Path) -> None:
    done = run("serve", "--config", str(file_of(folder)), "--http-listen", "8080")
    assert done.returncode == Exit.CONFIGURATION
    assert done.stderr.startswith("command line: --http-listen: is not an address")


def without_checks(said: str) -> list[str]:
    return [line for line in said.splitlines() if not line.startswith("  provider ")]


def test_status_of_a_running_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"unix:{folder}/s"
    with serving("--config", str(file_of(folder)), "--listen", address):
        assert main(["status", "--target", address, "--timeout", "30"]) == Exit.OK
        assert without_checks(capsys.readouterr().out) == [
            f"{address} is ready.",
            "  route chat   serving      t, then u",
            "  route other  serving      u",
            "  target t     serving",
            "  target u     serving",
        ]
        assert main(["status", "--target", address, "--json"]) == Exit.OK
        told = json.loads(capsys.readouterr().out)
    assert (told["target"], told["live"], told["ready"]) == (address, True, True)
    assert told["routes"][0] == {
        "name": "chat",
        "state": "serving",
        "operations": ["chat", "embed"],
        "targets": ["t", "u"],
    }
    assert told["targets"] == [{"name": "t", "state": "serving"}, {"name": "u", "state": "serving"}]
    assert told["engines"] == []


def test_status_of_a_server_that_waits_for_a_provider(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"unix:{folder}/s"
    down = "kind: vllm, required: true, base_url: 'unix:///nowhere.sock'"
    file = file_of(folder, MOCK.replace("kind: mock", down))
    with serving("--config", str(file), "--listen", address):
        assert main(["status", "--target", address, "--timeout", "30"]) == Exit.NOT_READY
    said = capsys.readouterr().out.splitlines()[0]
    assert said == f"{address} is not ready: it starts, drains, or a required provider is down."


def test_status_of_a_server_that_asks_who_calls(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, config = f"unix:{folder}/s", file_of(folder)
    keys = f"auth: {{api_keys: [{{name: ops, sha256: {hash_of('key')}, routes: [other]}}]}}\n"
    config.write_text(config.read_text() + keys)
    monkeypatch.delenv("MODELROUTER_API_KEY", raising=False)
    with serving("--config", str(config), "--listen", address):
        assert main(["status", "--target", address, "--timeout", "30"]) == Exit.FAILED
        assert "set MODELROUTER_API_KEY" in " ".join(capsys.readouterr().err.split())
        monkeypatch.setenv("MODELROUTER_API_KEY", "key")
        assert main(["status", "--target", address, "--timeout", "30"]) == Exit.OK
        assert without_checks(capsys.readouterr().out)[1:] == [
            "  route other  serving      u",
            "  target u     serving",
        ]


def test_status_where_nobody_listens(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--target", f"unix:{folder}/s", "--timeout", "0.2"]) == Exit.FAILED
    assert f"no router answers at unix:{folder}/s; start one with" in capsys.readouterr().err


def test_status_with_an_authority_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--ca", "/nowhere.pem"]) == Exit.FAILED
    assert "cannot read /nowhere.pem: No such file or directory; correct --ca" in capsys.readouterr().err


def test_serving_stops_as_told(folder: Path) -> None:
    address = f"unix:{folder}/s"
    with serving("--config", str(file_of(folder)), "--listen", address) as process:
        assert main(["status", "--target", address, "--timeout", "30"]) == Exit.OK
        process.terminate()
        process.wait(timeout=30)
        assert process.returncode == Exit.OK
