"""A whole server in this process, from a configuration's text to a port, and a raw channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from modelrouter.v1 import chat_pb2, service_pb2_grpc
from router_server.app import Running, running
from router_server.config.loading import read
from router_server.core.limiter import Limiter
from tests.secrecy import must_not_show
from tests.upstream import Upstream

CHAT_PATH = "/v1/chat/completions"
EMBED_PATH = "/v1/embeddings"


@dataclass
class Served:
    """A running server, its address, and a stub whose channel retries nothing by itself."""

    server: Running
    target: str
    stub: Any

    @property
    def idle(self) -> bool:
        """No permit is held and nobody waits."""
        upstreams = self.server.assembly.upstreams.values()
        return all(u.limiter.inflight == 0 and u.limiter.queued == 0 for u in upstreams)

    def limiter(self, provider: str) -> Limiter:
        """The limiter of a provider."""
        return self.server.assembly.upstreams[provider].limiter

    def breaker(self, target: str) -> str:
        """The state of a target's breaker."""
        return self.server.assembly.targets[target].breaker.state.value


@asynccontextmanager
async def serving(
    text: str, env: Mapping[str, str] | None = None, announce: Callable[[str], None] = lambda _line: None
) -> AsyncIterator[Served]:
    """Serve the configuration ``text`` on a free port, with no HTTP port."""
    config = read(dedent(text), env or {}, origin="test")
    server_settings = config.server.model_copy(update={"listen": "127.0.0.1:0", "http_listen": None})
    config = config.model_copy(update={"server": server_settings})
    async with running(config, announce=announce) as server:
        target = f"127.0.0.1:{server.rpc.port}"
        async with aio.insecure_channel(target, options=[("grpc.enable_retries", 0)]) as channel:
            yield Served(server, target, service_pb2_grpc.ModelRouterServiceStub(channel))
        must_not_show("a running server", config, server, *server.assembly.upstreams.values())


def two_targets(a: Upstream, b: Upstream, *, extra: str = "", recovery: str = "none") -> str:
    """Return the configuration of a route ``chat`` over two OpenAI-like upstreams, with quick timers."""
    quick = "timeouts: {connect: 1s, first_token: 1s, idle: 1s, unary: 1s}, health_check: null"
    return dedent(f"""
        providers:
          a: {{kind: openai, api_key: very-secret-a, base_url: "{a.base_url}", {quick}{extra}}}
          b: {{kind: openai, api_key: very-secret-b, base_url: "{b.base_url}", {quick}}}
        targets:
          a1: {{provider: a, model: model-a}}
          b1: {{provider: b, model: model-b}}
        routes:
          chat: {{targets: [a1, b1], stream_recovery: {recovery}}}
          only-a: {{targets: [a1], stream_recovery: {recovery}}}
    """)


def answer(text: str = "Hello", model: str = "model-x") -> dict[str, Any]:
    """Return an OpenAI chat completion."""
    return {
        "id": "c1",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def pieces(*texts: str, finish: str | None = "stop") -> list[dict[str, Any]]:
    """Return the events of an OpenAI stream."""
    events: list[dict[str, Any]] = [_piece({"content": text}, None) for text in texts]
    if finish is not None:
        events.append(_piece({}, finish))
        events.append(
            {**_piece({}, None), "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
        )
    return events


def _piece(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "model": "model-x",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def chat(model: str = "chat", text: str = "Hi", **fields: Any) -> chat_pb2.ChatRequest:
    """Return a request, with further fields as JSON has them."""
    message = {"role": "ROLE_USER", "content": [{"text": text}]}
    return ParseDict({"model": model, "messages": [message], **fields}, chat_pb2.ChatRequest())


@dataclass(frozen=True)
class Failure:
    """What a caller sees of a failed RPC."""

    code: str
    reason: str
    pushback: str | None
    metadata: Mapping[str, str]
    details: tuple[Any, ...]

    def detail(self, kind: type[Any]) -> Any:
        """Return the detail of that type, or None."""
        return next((d for d in self.details if isinstance(d, kind)), None)

    @property
    def retry_after(self) -> float | None:
        """Seconds of the RetryInfo."""
        info = self.detail(error_details_pb2.RetryInfo)
        return None if info is None else info.retry_delay.ToTimedelta().total_seconds()


_DETAILS = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.RetryInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.ResourceInfo,
        error_details_pb2.RequestInfo,
        error_details_pb2.QuotaFailure,
    )
}


def failure_of(error: aio.AioRpcError) -> Failure:
    """Return what the rich status of ``error`` says."""
    pairs: Any = error.trailing_metadata() or ()
    trailers = dict(pairs)
    must_not_show("a refusal", error, *pairs)
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    details = []
    for packed in status.details:
        message = _DETAILS[packed.TypeName()]()
        packed.Unpack(message)
        details.append(message)
    info = next(d for d in details if isinstance(d, error_details_pb2.ErrorInfo))
    assert info.domain == "modelrouter"
    code: grpc.StatusCode = error.code()
    return Failure(
        code.name, info.reason, trailers.get("grpc-retry-pushback-ms"), dict(info.metadata), tuple(details)
    )


async def fails(call: Any) -> Failure:
    """Await ``call``, a unary RPC or a stream, which must fail, and return how."""
    try:
        if hasattr(call, "__aiter__"):
            async for _message in call:
                pass
        else:
            await call
    except aio.AioRpcError as error:
        return failure_of(error)
    raise AssertionError("the call did not fail")


async def events_of(call: Any) -> list[tuple[str, Any]]:
    """Return the events of a stream as pairs of name and message."""
    return [
        (message.WhichOneof("event"), getattr(message, message.WhichOneof("event"))) async for message in call
    ]


def text_of(events: list[tuple[str, Any]]) -> str:
    """Return the text that a caller who follows the resets ends with."""
    text = ""
    for name, event in events:
        if name == "reset" and not event.resumed:
            text = ""
        elif name == "delta":
            text += event.text
    return text
