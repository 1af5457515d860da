"""Credentials stay where they belong: a run of every failure, then a search of all that was said of it.

The upstreams do their worst: they repeat the key that they were sent in whatever they answer.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
from grpc import aio

from modelrouter.v1 import embed_pb2
from tests.e2e.process import served
from tests.e2e.serving import chat, pieces
from tests.telemetry.collector import Collector, collector
from tests.upstream import SSE_HEAD, End, Reply, Upstream, event, head, json_reply, sse_reply

KEYS = {"OPENAI": "sk-Zebra41Zebra41Zebra41", "GEMINI": "Giraffe52Giraffe52", "CALLER": "Lion63Lion63Lion63"}

CREDENTIALS = (("authorization", f"Bearer {KEYS['CALLER']}"), ("x-api-key", KEYS["CALLER"]))

HEAD = head(200, {"Content-Length": "60"})


def openai_failures(key: str) -> list[Reply]:
    """Every way to fail that the error table knows, each with the key in it."""
    words = {
        "error": {"message": f"Incorrect API key provided: {key}", "type": key, "code": key, "param": key}
    }
    refusals = [
        json_reply(words, status, {"Retry-After": "0", "X-Key": key})
        for status in (400, 403, 404, 408, 413, 429, 500, 503)
    ]
    return [
        *refusals,
        json_reply({"error": {"message": key, "code": "context_length_exceeded"}}, 400),
        json_reply({"error": {"message": key, "code": "content_filter"}}, 400),
        (head(302, {"Location": f"http://127.0.0.1:1/?key={key}", "Content-Length": "0"}),),
        (f"HTTP/1.1 200 {key}\r\nnonsense {key}\r\n\r\n".encode(), End.CLOSE),
        (f"{key}\r\n\r\n".encode(), End.CLOSE),
        (HEAD + key.encode(), End.RESET),
        (HEAD + key.encode().ljust(60),),
        json_reply({"choices": key, "model": key}),
        sse_reply([words]),
        (*SSE_HEAD, event(f"{{not json {key}"), End.CLOSE),
        (*SSE_HEAD, event(pieces("Hi", finish=None)[0]), f"{key}\r\n".encode(), End.CLOSE),
        (*SSE_HEAD, event(pieces("Hi", finish=None)[0]), event(words), End.CLOSE),
        (End.RESET,),
        (End.CLOSE,),
        (End.STALL,),
        json_reply(words, 401),
    ]


def gemini_failures(key: str) -> list[Reply]:
    error = {
        "error": {
            "code": 400,
            "message": f"API key not valid: {key}",
            "status": "INVALID_ARGUMENT",
            "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": key, "domain": key}],
        }
    }
    return [json_reply(error, 400), json_reply(error, 500), json_reply([error]), json_reply(error, 403)]


def configuration(openai: Upstream, gemini: Upstream, otlp: Collector) -> str:
    quick = "retries: 0, timeouts: {first_token: 300ms, idle: 300ms, unary: 300ms}"
    return f"""
        providers:
          o: {{kind: openai, api_key: "${{OPENAI}}", base_url: "{openai.base_url}", {quick}}}
          g: {{kind: gemini, api_key: "${{GEMINI}}", base_url: "{gemini.root_url}/v1beta", {quick}}}
        targets:
          o1: {{provider: o, model: model-o}}
          g1: {{provider: g, model: model-g, capabilities: {{embed: true}}}}
        routes:
          o: {{targets: [o1]}}
          g: {{targets: [g1]}}
        telemetry: {{otlp_endpoint: "{otlp.url}", record_content: true, log: {{format: json, level: debug}}}}
    """


async def test_no_key_is_told_to_anybody(tmp_path: Path) -> None:
    async with collector() as otlp, Upstream() as openai, Upstream() as gemini:
        openai.on("/v1/models", json_reply({"error": {"message": KEYS["OPENAI"]}}, 401))
        gemini.on("/v1beta/models", json_reply({"error": {"message": KEYS["GEMINI"]}}, 500))
        keys = "http_listen: 127.0.0.1:0\ndrain_delay: 0s"
        parts = configuration(openai, gemini, otlp)
        async with served(tmp_path, parts, server=keys, env={**KEYS}) as server:
            told = [
                *await fail_at(server.stub, "o", openai, openai_failures(KEYS["OPENAI"])),
                *await fail_at(server.stub, "g", gemini, gemini_failures(KEYS["GEMINI"])),
            ]
            metrics = await fetch(server.stdout)
            server.process.terminate()
            assert await server.exit_code(within=20) == 0
        assert any(KEYS["OPENAI"] in request.headers["authorization"] for request in openai.requests)
        assert any(KEYS["GEMINI"] in request.headers["x-goog-api-key"] for request in gemini.requests)
        assert all(KEYS["CALLER"] not in str(r) for r in (*openai.requests, *gemini.requests))
    said = {
        "errors": "\n".join(told),
        "log": server.stderr,
        "output": server.stdout,
        "spans and metrics": otlp.everything(),
        "metrics page": metrics,
    }
    assert all(said.values()), "there was something to search"
    assert len(otlp.spans) > 60
    for where, text in said.items():
        for name, key in KEYS.items():
            assert key not in text, f"{name} is in {where}: {context(text, key)}"


async def fail_at(stub: Any, route: str, upstream: Upstream, replies: list[Reply]) -> list[str]:
    """Make every kind of call fail in every way; return all that the caller was told."""
    told = []
    embed = embed_pb2.EmbedRequest(model=route, inputs=[embed_pb2.EmbedInput(text="cat")])
    for reply in replies:
        upstream.always(reply)
        asked = len(upstream.requests)
        told += [
            await outcome(stub.Chat(chat(route), metadata=CREDENTIALS)),
            await outcome(stub.StreamChat(chat(route), metadata=CREDENTIALS)),
            await outcome(stub.Embed(embed, metadata=CREDENTIALS)),
        ]
        assert len(upstream.requests) >= asked + 3, "a target that is no good is still the least bad one"
    return told


async def outcome(call: Any) -> str:
    try:
        messages = [message async for message in call] if hasattr(call, "__aiter__") else [await call]
    except aio.AioRpcError as error:
        return f"{error!r} {error.trailing_metadata()} {error.debug_error_string()}"
    return f"{messages} {await call.initial_metadata()} {await call.trailing_metadata()}"


async def fetch(stdout: str) -> str:
    found = re.search(r"http://\S+/metrics", stdout)
    assert found is not None, stdout
    async with aiohttp.ClientSession() as session, session.get(found[0]) as response:
        return await response.text()


def context(text: str, key: str) -> str:
    at = text.index(key)
    return text[max(0, at - 300) : at + 100]
