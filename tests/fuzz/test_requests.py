"""Any message of the contract, through a whole server to three kinds of upstream: an answer or a status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from grpc import aio
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from modelrouter.v1 import chat_pb2, embed_pb2
from router_server.core.errors import Reason, RouterError
from router_server.rpc.convert.chat import read_chat
from router_server.rpc.convert.embed import read_embed
from router_server.rpc.status import ROWS
from tests.e2e.serving import Served, answer, failure_of, pieces, serving
from tests.rpc.any_message import any_message
from tests.upstream import Request, Steps, Upstream, json_reply, sse_reply

Asked = TypeVar("Asked", chat_pb2.ChatRequest, embed_pb2.EmbedRequest)

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 20_000
NEVER = {Reason.INTERNAL, Reason.UPSTREAM_AUTH_FAILED, Reason.UPSTREAM_MODEL_MISSING}
"""Reasons that nothing in a request can bring about."""

varied = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    deadline=None,
)


def gemini(finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": "Hello"}]}}
    return {"candidates": [{**candidate, "finishReason": finish} if finish else candidate]}


def reply(request: Request) -> Steps:
    """Answer any request of either API; what cannot be read as JSON gets no answer that passes."""
    asked = request.json
    if "embed" in request.path.lower():
        vectors = [{"values": [0.5]} for _ in asked.get("requests", ())]
        rows = [{"index": n, "embedding": [0.5]} for n in range(len(asked.get("input", ())))]
        return json_reply({"embeddings": vectors, "data": rows})
    if "streamGenerateContent" in request.path:
        return sse_reply([gemini(), gemini("STOP")], done=False)
    if "generateContent" in request.path:
        return json_reply(gemini("STOP"))
    return sse_reply(pieces("Hello")) if asked.get("stream") else json_reply(answer())


def configuration(upstream: Upstream) -> str:
    able, unchecked = "capabilities: {chat: true, embed: true}", "health_check: null"
    return f"""
        providers:
          o: {{kind: openai, api_key: very-secret-o, base_url: "{upstream.base_url}", {unchecked}}}
          v: {{kind: vllm, base_url: "{upstream.base_url}", {unchecked}}}
          g: {{kind: gemini, api_key: very-secret-g, base_url: "{upstream.root_url}/v1beta", {unchecked}}}
        targets:
          o: {{provider: o, model: model-o, {able}}}
          v: {{provider: v, model: model-v, {able}}}
          g: {{provider: g, model: gemini-2.5-flash, {able}}}
        routes:
          openai: {{targets: [o]}}
          vllm: {{targets: [v]}}
          gemini: {{targets: [g]}}
    """


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served() -> AsyncIterator[Served]:
    async with Upstream() as upstream:
        upstream.always(reply)
        async with serving(configuration(upstream)) as it:
            yield it


@st.composite
def requests(draw: st.DrawFn, kind: type[Asked], read: Callable[[Any], object]) -> Asked:
    """Return any request of a route that there is; most of them without the fields that are refused."""
    request: Asked = draw(any_message(kind.DESCRIPTOR))
    request.model = draw(st.sampled_from(["openai", "vllm", "gemini"]))
    for _ in range(draw(st.integers(0, 1)) * 20):
        bad = _bad_fields(request, read)
        if not bad:
            break
        _mend(request, bad)
    return request


def _bad_fields(request: Asked, read: Callable[[Any], object]) -> list[str]:
    try:
        read(request)
    except RouterError as error:
        return [violation.field for violation in error.violations]
    return []


def _mend(request: Any, bad: list[str]) -> None:
    """Leave out each bad field, or what it is in; where nothing is left of what must be there, put it in."""
    for path in sorted(bad, reverse=True):  # from the last index to the first
        head, _, inner = path.partition(".")
        name, _, index = head.partition("[")
        field = getattr(request, name)
        at = int(index.rstrip("]")) if index.rstrip("]").isdigit() else None
        if at is not None and at < len(field):
            del field[at]
        elif at is None and inner and hasattr(field, inner.split("[")[0].split(".")[0]):
            field.ClearField(inner.split("[")[0].split(".")[0])
        else:
            request.ClearField(name)
    if isinstance(request, chat_pb2.ChatRequest) and not request.messages:
        request.messages.add(role=chat_pb2.ROLE_USER).content.add(text="Hi")
    if isinstance(request, embed_pb2.EmbedRequest) and not request.inputs:
        request.inputs.add(text="Hi")


async def check(call: Any) -> str:
    """Await a call, and return how it ended: OK, or a reason of the table with the code that goes with it."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except aio.AioRpcError as error:
        failure = failure_of(error)
    else:
        return "OK"
    reason = Reason(failure.reason)
    assert reason not in NEVER, failure
    assert failure.code == ROWS[reason].code.name
    return reason


@varied
@given(request=requests(chat_pb2.ChatRequest, read_chat), stream=st.booleans())
async def test_any_chat(served: Served, request: chat_pb2.ChatRequest, *, stream: bool) -> None:
    event(await check(served.stub.StreamChat(request) if stream else served.stub.Chat(request)))


@varied
@given(request=requests(embed_pb2.EmbedRequest, read_embed))
async def test_any_embed(served: Served, request: embed_pb2.EmbedRequest) -> None:
    event(await check(served.stub.Embed(request)))


@pytest.mark.soak
@settings(varied, max_examples=MANY)
@given(request=requests(chat_pb2.ChatRequest, read_chat), stream=st.booleans())
async def test_very_many_chats(served: Served, request: chat_pb2.ChatRequest, *, stream: bool) -> None:
    await check(served.stub.StreamChat(request) if stream else served.stub.Chat(request))
