"""Both kinds in a whole server, and in the router without one; the examples of their page, run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import modelrouter
from modelrouter import AsyncClient
from router_server import Router
from tests.docs.pages import DOCS, blocks
from tests.e2e.serving import CHAT_PATH, answer, pieces, serving
from tests.kinds.litellm_talk import KEY, LITELLM_MARKS
from tests.kinds.minilm import MINILM
from tests.secrecy import must_not_show
from tests.upstream import SSE_HEAD, End, Upstream, event, json_reply, sse_reply

pytestmark = LITELLM_MARKS


@pytest.fixture
async def other() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


def two_targets(a: Upstream, b: Upstream, timeouts: str = "first_token: 20s, idle: 20s, unary: 20s") -> str:
    """Return a route whose first target goes through litellm, and whose second does not."""
    return f"""
        providers:
          a: {{kind: litellm, api_key: {KEY}, base_url: "{a.base_url}", retries: 0, timeouts: {{{timeouts}}}}}
          b: {{kind: openai, api_key: {KEY}, base_url: "{b.base_url}", health_check: null}}
        targets:
          a1: {{provider: a, model: openai/model-a}}
          b1: {{provider: b, model: model-b}}
        routes:
          chat: {{targets: [a1, b1]}}
          only-a: {{targets: [a1]}}
    """


async def test_a_server_answers_through_litellm(upstream: Upstream, other: Upstream) -> None:
    upstream.then(json_reply(answer("whole")), sse_reply(pieces("in ", "pieces")))
    async with serving(two_targets(upstream, other)) as server, AsyncClient(server.target) as client:
        whole = await client.chat("Hi", model="chat")
        assert (whole.text, whole.usage.input_tokens, whole.usage.output_tokens) == ("whole", 3, 2)
        assert (await client.stream_chat("Hi", model="chat").result()).text == "in pieces"
        assert server.idle


async def test_failover_is_the_routers(upstream: Upstream, other: Upstream) -> None:
    upstream.then(json_reply({"error": {"message": KEY}}, 429, {"Retry-After": "9"}))
    other.on(CHAT_PATH, json_reply(answer("from b")))
    async with serving(two_targets(upstream, other)) as server, AsyncClient(server.target) as client:
        assert (await client.chat("Hi", model="chat")).text == "from b"
        assert len(upstream.requests) == 1
        with pytest.raises(modelrouter.RateLimited) as caught:
            await client.chat("Hi", model="only-a", timeout=5)
        assert 7 < (caught.value.retry_after or 0) <= 9
        must_not_show("an error", caught.value)


async def test_a_stream_that_breaks_is_begun_again_elsewhere(upstream: Upstream, other: Upstream) -> None:
    upstream.then((*SSE_HEAD, event(pieces("half")[0]), End.RESET))
    other.on(CHAT_PATH, sse_reply(pieces("all of it")))
    async with serving(two_targets(upstream, other)) as server, AsyncClient(server.target) as client:
        stream = client.stream_chat("Hi", model="chat")
        assert (await stream.result()).text == "all of it"


@pytest.mark.parametrize("begun", [(), (event(pieces("half")[0]),)], ids=["first token", "stall"])
async def test_timers_hold(upstream: Upstream, other: Upstream, begun: tuple[bytes, ...]) -> None:
    upstream.then((*SSE_HEAD, *begun, End.STALL))
    other.on(CHAT_PATH, sse_reply(pieces("all of it")))
    quick = "first_token: 1s, idle: 1s"
    async with serving(two_targets(upstream, other, quick)) as server, AsyncClient(server.target) as client:
        assert (await client.stream_chat("Hi", model="chat").result()).text == "all of it"
        await upstream.connections[0].closed.wait()
        assert server.idle


def example(kind: str) -> dict[str, Any]:
    """Return the example of the page that is of this kind."""
    found = [yaml.safe_load(block.text) for block in blocks(DOCS / "providers.md", "yaml")]
    (whole,) = [one for one in found if any(p["kind"] == kind for p in one["providers"].values())]
    routes = {name: {"targets": [name]} for name in whole["targets"]}
    return {**whole, "routes": routes}


async def test_the_pages_example_of_litellm(upstream: Upstream) -> None:
    """The only change: where the providers are, and the keys."""
    config = example("litellm")
    config["providers"]["aws"]["parameters"]["aws_bedrock_runtime_endpoint"] = upstream.root_url
    config["providers"]["aws"]["credentials"] = dict.fromkeys(
        ("aws_access_key_id", "aws_secret_access_key"), KEY
    )
    config["providers"]["cohere"].update(api_key=KEY, base_url=f"{upstream.root_url}/embed")
    message = {"role": "assistant", "content": [{"text": "Paris."}]}
    usage = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    upstream.then(
        json_reply({"output": {"message": message}, "stopReason": "end_turn", "usage": usage}),
        json_reply({"id": "1", "embeddings": {"float": [[1, 2]]}, "meta": {}}),
    )
    async with serving(yaml.safe_dump(config)) as server, AsyncClient(server.target) as client:
        reply = await client.chat("What is the capital of France?", model="claude")
        assert (reply.text, reply.usage.output_tokens) == ("Paris.", 2)
        assert (await client.embed(["a"], model="vectors")).dimensions == 2
    aws, cohere = upstream.requests
    assert aws.path.endswith("/converse")
    assert aws.headers["authorization"].startswith("AWS4-HMAC-SHA256")
    assert cohere.headers["authorization"] == f"Bearer {KEY}"


def embedding_config() -> dict[str, Any]:
    config = example("sentence-transformers")
    config["targets"]["minilm"]["model"] = str(MINILM)
    return config


async def test_the_pages_example_of_embeddings() -> None:
    """The only change: the model is a folder."""
    async with serving(yaml.safe_dump(embedding_config())) as server, AsyncClient(server.target) as client:
        vectors = await client.embed(["A cat sleeps.", "A kitten is asleep."], model="minilm", timeout=120)
        assert vectors.dimensions == 384
        assert vectors.usage.input_tokens > 8
        with pytest.raises(modelrouter.CapabilityUnsupported):
            await client.chat("Hi", model="minilm")


def test_without_a_server(tmp_path: Path) -> None:
    """One file for both kinds; blocking, so that the router's loop is on a thread of its own."""
    config = embedding_config()
    config["providers"]["any"] = {"kind": "litellm", "parameters": {"mock_delay": 0}}
    config["targets"]["any"] = {"provider": "any", "model": "openai/m"}
    file = tmp_path / "router.yaml"
    file.write_text(yaml.safe_dump(config))
    with Router.from_config(file) as router:
        assert len(router.embed(["a", "b"], model="minilm")) == 2
        assert router.stats().targets["minilm"].succeeded == 1
