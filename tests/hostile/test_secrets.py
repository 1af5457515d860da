"""Everything that can go wrong goes wrong, for every kind that has a key, and the key is seen upstream alone.

The upstreams send back what they were sent: a proxy's error page that quotes a request's headers does so.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from grpc import aio

from modelrouter import AsyncClient, ModelRouterError
from modelrouter.v1 import embed_pb2, service_pb2_grpc
from router_server.app import Running, running
from router_server.config import ConfigError
from router_server.config.loading import read
from router_server.core.errors import UpstreamError
from router_server.core.provider import UpstreamChat
from router_server.core.types import ChatRequest, Message, Role, Text
from tests.e2e.serving import chat, pieces
from tests.secrecy import MARK, must_not_show
from tests.telemetry.collector import Collector, collector
from tests.upstream import (
    SSE_HEAD,
    End,
    Request,
    Step,
    Steps,
    Upstream,
    chunk,
    event,
    head,
    json_reply,
    reply,
    sse_reply,
)

ROOT = Path(__file__).parents[2]

KEYS = {"openai": f"{MARK}-o", "gemini": f"{MARK}-g", "vllm": f"{MARK}-v"}
SENT_IN = {"authorization", "x-goog-api-key"}
"""The headers that may carry a key, in a request to its own upstream."""


def told(request: Request) -> str:
    """Return what a server that shows everything shows of a request."""
    return f"{request.method} {request.target} {dict(request.headers)}"


def key_of(request: Request) -> str:
    return request.headers.get("x-goog-api-key") or request.headers["authorization"].removeprefix("Bearer ")


def echoed(status: int) -> Callable[[Request], Steps]:
    """Answer with an error of that status that quotes the request: in its body, headers and status line."""

    def quote(request: Request) -> Steps:
        error = {"error": {"message": told(request), "code": key_of(request), "type": key_of(request)}}
        headers = {
            "X-Echo": key_of(request),
            "Set-Cookie": f"key={key_of(request)}",
            "Retry-After": key_of(request),
        }
        headers["Location"] = f"http://{key_of(request)}:{key_of(request)}@127.0.0.1:1/{key_of(request)}"
        body = json.dumps(error).encode()
        said = head(status, {"Content-Length": str(len(body)), **headers}) + body
        return (said.replace(b"\r\n", b" " + key_of(request).encode() + b"\r\n", 1),)

    return quote


def _in_a_stream(request: Request) -> Steps:
    return sse_reply(
        [*pieces("Hel", finish=None), {"error": {"message": told(request), "code": key_of(request)}}]
    )


def _bad_chunk(request: Request) -> Steps:
    return (*SSE_HEAD, chunk(f"data: {{{told(request)}\n\n".encode()), End.CLOSE)


def _bad_http(request: Request) -> Steps:
    return (f"HTTP/1.1 {key_of(request)}\r\n{told(request)}\r\n\r\n".encode(), End.CLOSE)


FAILURES: tuple[Callable[[Request], Sequence[Step]], ...] = (
    *(
        echoed(status)
        for status in (302, 400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 503, 529, 700)
    ),
    lambda _: (End.RESET,),
    lambda _: (End.STALL,),
    lambda _: (*SSE_HEAD, event(pieces("Hel")[0]), End.RESET),
    lambda _: (*SSE_HEAD, event(pieces("Hel")[0]), End.STALL),
    lambda request: reply(told(request).encode()),
    lambda request: reply(told(request).encode(), 200, {"Content-Encoding": "gzip"}),
    lambda request: json_reply(
        {"choices": told(request), "candidates": told(request), "data": told(request)}
    ),
    lambda request: json_reply({"error": {"message": told(request), "code": 400, "status": key_of(request)}}),
    _in_a_stream,
    _bad_chunk,
    _bad_http,
)


def configuration(upstream: Upstream, otlp: str, nowhere: str, not_tls: str) -> str:
    """Return a configuration with a route for each kind, and for each way of not being there."""
    addresses = {
        "openai": ("openai", upstream.base_url),
        "gemini": ("gemini", f"{upstream.root_url}/v1beta"),
        "vllm": ("vllm", upstream.base_url),
        "refused": ("openai", nowhere),
        "unknown": ("openai", "http://no-such-host.invalid/v1"),
        "not-tls": ("openai", not_tls),
    }
    quick = {
        "timeouts": dict.fromkeys(("connect", "first_token", "idle", "unary"), "300ms"),
        "breaker": {"failure_threshold": 10_000, "min_calls": 10_000},
        "retries": 0,
    }
    everything = {
        "server": {"listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"},
        "providers": {
            name: {
                "kind": kind,
                "api_key": f"${{{kind}_KEY}}",
                "base_url": url,
                "health_check": {"interval": "100ms"} if name in KEYS else None,
                **quick,
            }
            for name, (kind, url) in addresses.items()
        },
        "targets": {name: {"provider": name, "model": f"{name}-model"} for name in addresses},
        "routes": {name: {"targets": [name]} for name in addresses},
        "telemetry": {
            "otlp_endpoint": otlp,
            "record_content": True,
            "log": {"format": "json", "level": "debug"},
        },
    }
    return json.dumps(everything)


@asynccontextmanager
async def no_tls() -> AsyncIterator[str]:
    """Answer a TLS client with what is none."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def scene() -> AsyncIterator[tuple[Upstream, Running, Collector]]:
    """Serve with everything on that could show a key: debug logs, contents, traces, metrics."""
    async with collector() as otlp:
        async with Upstream() as upstream, Upstream() as gone, no_tls() as not_tls:
            nowhere = gone.base_url
            await gone.stop()
            text = configuration(upstream, otlp.url, nowhere, not_tls)
            config = read(text, {f"{kind}_KEY": key for kind, key in KEYS.items()}, origin="test")
            async with running(
                config, announce=lambda line: must_not_show("an announcement", line)
            ) as server:
                yield upstream, server, otlp
                must_not_show("a running server", config, server, *server.assembly.upstreams.values())
        must_not_show("telemetry", otlp.everything(), otlp.headers)


def embed(route: str) -> embed_pb2.EmbedRequest:
    return embed_pb2.EmbedRequest(model=route, inputs=[embed_pb2.EmbedInput(text="Hi")])


async def tried(stub: Any, route: str) -> None:
    """Make every kind of call, and look at whatever comes back of it."""
    for call in (stub.Chat(chat(route)), stub.StreamChat(chat(route)), stub.Embed(embed(route))):
        try:
            answers = [one async for one in call] if hasattr(call, "__aiter__") else [await call]
        except aio.AioRpcError as error:
            must_not_show("a refusal", error, error.trailing_metadata(), error.initial_metadata())
        else:
            must_not_show("an answer", answers)


async def tried_by_the_client(client: AsyncClient, route: str) -> None:
    for call in (client.chat("Hi", model=route), client.stream_chat("Hi", model=route).result()):
        try:
            await call
        except ModelRouterError as error:
            must_not_show("an exception of the client", error, *traceback.format_exception(error))


async def test_no_failure_shows_a_key(capfd: pytest.CaptureFixture[str]) -> None:
    async with scene() as (upstream, server, otlp):
        target = f"127.0.0.1:{server.rpc.port}"
        async with aio.insecure_channel(target) as channel, AsyncClient(target) as client:
            stub = service_pb2_grpc.ModelRouterServiceStub(channel)
            for failure in FAILURES:
                upstream.always(failure)
                await asyncio.gather(*(tried(stub, route) for route in KEYS))
            for route in ("refused", "unknown", "not-tls"):
                await tried(stub, route)
            upstream.always(echoed(503))
            await asyncio.gather(*(tried_by_the_client(client, route) for route in KEYS))
        must_not_show("the metrics", await metrics(server.http_port))
        await asyncio.gather(*(raised(server, name) for name in KEYS))
        assert otlp.url
    shown = capfd.readouterr()
    must_not_show("the log", shown.err, shown.out)
    assert '"level":"debug"' in shown.err, "the log said nothing"
    assert otlp.spans, "nothing was traced"
    assert_sent_in_their_headers_alone(upstream.requests)


async def metrics(port: int) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as got:
        text = await got.text()
    assert "modelrouter" in text
    return text


async def raised(server: Running, name: str) -> None:
    """Look at what a provider raises, with its causes."""
    provider = server.assembly.upstreams[name].provider
    asked = UpstreamChat("m", ChatRequest(name, (Message(Role.USER, (Text("Hi"),)),)))
    with pytest.raises(UpstreamError) as caught:
        await provider.chat(asked)
    must_not_show("an exception", provider, caught.value, *traceback.format_exception(caught.value))


def assert_sent_in_their_headers_alone(requests: Sequence[Request]) -> None:
    used = set()
    for request in requests:
        others = {name: value for name, value in request.headers.items() if name not in SENT_IN}
        must_not_show("a request", request.target, request.body, others)
        used |= {name for name, key in KEYS.items() for value in request.headers.values() if key in value}
    assert used == KEYS.keys(), "not every key was used"


def test_no_mistake_of_a_configuration_shows_a_key() -> None:
    text = (
        'providers: {o: {kind: openai, api_key: "${KEY}", colour: "${KEY}", base_url: "http://u:${KEY}@x"}}'
    )
    with pytest.raises(ConfigError) as caught:
        read(text, {"KEY": KEYS["openai"]}, origin="test")
    must_not_show("a mistake", caught.value, *traceback.format_exception(caught.value))


LEAKS = {
    "in its output": f"def test_leak():\n    print('{MARK}')\n",
    "by a process": f"import os\ndef test_leak():\n    os.system('echo {MARK} >&2')\n",
    "by its exception": f"from tests.secrecy import must_not_show\n"
    f"def test_leak():\n    must_not_show('it', ValueError('{MARK}'))\n",
}


@pytest.mark.parametrize("leak", LEAKS)
def test_the_net_holds(leak: str, tmp_path: Path) -> None:
    (tmp_path / "test_leak.py").write_text(LEAKS[leak])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.secrecy",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
    ]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "1 failed" in done.stdout, done.stdout
