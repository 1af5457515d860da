"""Who is measured: how the router and the bare pipeline are started, and how everyone is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from bench.rig import bodies
from bench.rig.load import Target
from bench.rig.process import Process

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = {"PYTHONPATH": f"{ROOT}:{ROOT / 'clients' / 'python'}"}
_SERVICE: Final = "modelrouter.v1.ModelRouterService"
_GRPC_HEADERS: Final = ("content-type: application/grpc", "te: trailers")
_JSON_HEADERS: Final = ("content-type: application/json", "authorization: Bearer sk-bench")


@dataclass(frozen=True, slots=True)
class Traffic:
    """A kind of call: which RPC, and which upstream answers it.

    Attributes:
        name: also the route, the model, and the first part of the upstream's path.
        rpc: the method of the contract.
        grpc: the request as a gRPC body.
        path: OpenAI's path for it.
        json: the request in OpenAI's words.
        upstream: the name under which the upstream answers, where that is another.
        least: bytes that every answer to it has.
    """

    name: str
    rpc: str
    grpc: bytes
    path: str
    json: bytes
    upstream: str = ""
    least: int = 1


_CHAT: Final = "/chat/completions"
_EMBED: Final = "/embeddings"

UNARY: Final = Traffic(
    "unary",
    "Chat",
    bodies.framed(bodies.chat("unary")),
    _CHAT,
    bodies.chat_json("unary"),
    least=len(bodies.QUESTION),  # which is what the echo answers
)
STREAM: Final = Traffic(
    "stream",
    "StreamChat",
    bodies.framed(bodies.chat("stream")),
    _CHAT,
    bodies.chat_json("stream", stream=True),
    least=len("".join(bodies.words())),
)
EMBED_BYTES: Final = Traffic(
    "embed",
    "Embed",
    bodies.framed(bodies.embed("embed", as_bytes=True)),
    _EMBED,
    bodies.embed_json("embed", as_bytes=True),
    least=len(bodies.matrix()),
)
EMBED_FLOATS: Final = Traffic(
    "floats",
    "Embed",
    bodies.framed(bodies.embed("embed", as_bytes=False)),
    _EMBED,
    bodies.embed_json("floats", as_bytes=False),
    upstream="embed",
    least=len(bodies.matrix()),
)


def paced(tokens: int) -> Traffic:
    """Return streams of so many tokens, 20 ms apart."""
    name = f"paced-20-{tokens}"
    return Traffic(
        name, "StreamChat", bodies.framed(bodies.chat(name)), _CHAT, bodies.chat_json(name, stream=True)
    )


PACED_TOKENS: Final = 110
LONG_PACED_TOKENS: Final = 225
PACED: Final = paced(PACED_TOKENS)
LONG_PACED: Final = paced(LONG_PACED_TOKENS)
"""Of as many tokens as show what a server does every three seconds."""

IDLE: Final = Traffic(
    "paced-600000-2", "StreamChat", bodies.framed(bodies.chat("paced-600000-2")), _CHAT, b""
)
"""One token, and then nothing for ten minutes."""

TRAFFIC: Final = (UNARY, STREAM, EMBED_BYTES, EMBED_FLOATS)


@dataclass
class Subject:
    """A server that is measured.

    ``turn`` is the least CPU time of a turn of chat, in seconds, where what it does now and then wants more
    than the effort's. ``http_port`` is where the router shows its metrics.
    """

    name: str
    process: Process
    port: int
    folder: Path
    speaks_grpc: bool = True
    headers: Callable[[Traffic], Sequence[str]] = lambda _: ()
    base: str = "/v1"
    turn: float = 0.0
    http_port: int = 0
    _bodies: dict[bytes, Path] = field(default_factory=dict)

    def target(self, traffic: Traffic) -> Target:
        """Return how it is asked for that kind of call."""
        if self.speaks_grpc:
            url = f"http://127.0.0.1:{self.port}/{_SERVICE}/{traffic.rpc}"
            headers = (*_GRPC_HEADERS, *self.headers(traffic))
            return Target(self.process, url, self._file(traffic.grpc), headers, least=traffic.least)
        url = f"http://127.0.0.1:{self.port}{self.base}{traffic.path}"
        headers = (*_JSON_HEADERS, *self.headers(traffic))
        return Target(self.process, url, self._file(traffic.json), headers, http1=True, least=traffic.least)

    def _file(self, body: bytes) -> Path:
        if body not in self._bodies:
            path = self.folder / f"{self.name}-{self.port}-{len(self._bodies)}.body"
            path.write_bytes(body)
            self._bodies[body] = path
        return self._bodies[body]


def bare(folder: Path, core: int, port: int, upstream: str, variant: str) -> Process:
    """Start the bare pipeline."""
    return Process(f"{variant}-{port}", bare_command(port, upstream, variant), core, folder, PYTHON)


def bare_command(port: int, upstream: str, variant: str) -> Sequence[str]:
    """Return what starts the bare pipeline."""
    command = [sys.executable, "-m", "bench.bare", "--listen", f"127.0.0.1:{port}"]
    return [*command, "--upstream", upstream, "--variant", variant]


def ours(folder: Path, core: int, config: Mapping[str, Any], name: str = "router") -> Process:
    """Start the router with this configuration; its access log goes to a file."""
    return Process(name, our_command(folder, config, name), core, folder, PYTHON)


def our_command(folder: Path, config: Mapping[str, Any], name: str = "router") -> Sequence[str]:
    """Return what starts the router with this configuration."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(dict(config)))
    return [sys.executable, "-m", "router_server", "serve", "--config", str(file)]


def router_config(port: int, http_port: int, upstreams: Mapping[str, str], otlp: str) -> dict[str, Any]:
    """Return a configuration with every default feature on, and a route for each of ``upstreams``.

    Limits, breaker, deadlines, request ids, metrics and the access log are on unless they are turned off.
    """
    return {
        "server": {"listen": f"127.0.0.1:{port}", "http_listen": f"127.0.0.1:{http_port}"},
        "providers": {
            name: {"kind": "openai", "api_key": "sk-bench", "base_url": url}
            for name, url in upstreams.items()
        },
        "targets": {name: {"provider": name, "model": "gpt-4o-mini"} for name in upstreams},
        "routes": {name: {"targets": [name]} for name in upstreams},
        "telemetry": {"otlp_endpoint": otlp, "sample_ratio": 0.01},
    }


def direct(folder: Path, upstream: str, traffic: Traffic) -> Target:
    """Return how the upstream itself is asked, with nobody in between."""
    body = folder / f"direct-{traffic.name}.body"
    body.write_bytes(traffic.json)
    return Target(None, f"{upstream}{traffic.path}", body, _JSON_HEADERS, http1=True)
