"""The built-in model itself: real weights, real native threads, in this process.

One engine serves the module. It has one processor thread, so that it works beside other tests.
"""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import psutil
import pytest
import pytest_asyncio
import wordllama

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Surroundings, UpstreamChat, UpstreamEmbed
from router_server.core.types import (
    Choice,
    Delta,
    FinishReason,
    Generation,
    JsonObject,
    JsonSchema,
    Report,
    StreamItem,
    Text,
    Usage,
)
from router_server.providers.embedded import (
    CHAT_MODEL,
    EMBEDDING_MODEL,
    KIND,
    EmbeddedProvider,
    EmbeddedSettings,
    prepare,
)
from tests.providers.asks import ask, ask_vectors, finish_in, items_of, read_into, text_in, usage_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

CAPITAL = "What is the capital of France?"
LONG_STORY = "Write a very long story about a cat."
ENDLESS = JsonSchema("x", '{"type": "array", "items": {"type": "boolean"}, "minItems": 1900}')
PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module", autouse=True)
def weights(pytestconfig: pytest.Config) -> Iterator[None]:
    """Convert once for all runs of the tests, which takes some seconds."""
    assert pytestconfig.cache
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELROUTER_CACHE", str(pytestconfig.cache.mkdir("modelrouter")))
        prepare(print)
        yield


@asynccontextmanager
async def embedded(**settings: Any) -> AsyncIterator[EmbeddedProvider]:
    chosen = EmbeddedSettings(**{"threads": 1, "slots": 2, **settings})
    provider = KIND.create(chosen, Surroundings("local", models=(CHAT_MODEL,)))
    assert isinstance(provider, EmbeddedProvider)
    try:
        yield provider
    finally:
        await provider.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[EmbeddedProvider]:
    async with embedded() as made:
        yield made


def chat(text: str = CAPITAL, tokens: int = 24, **more: Any) -> UpstreamChat:
    generation = more.pop("generation", Generation(max_output_tokens=tokens))
    return ask(text, model=CHAT_MODEL, generation=generation, **more)


def vectors(*texts: str, dimensions: int | None = None) -> UpstreamEmbed:
    return ask_vectors(*texts, model=EMBEDDING_MODEL, dimensions=dimensions)


def listening() -> set[object]:
    return {c.laddr for c in psutil.Process().net_connections("all") if c.status == psutil.CONN_LISTEN}


def threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("embedded"))


async def test_it_knows_the_capital_of_france(provider: EmbeddedProvider) -> None:
    answer = await provider.chat(ask(CAPITAL, model=CHAT_MODEL))

    assert answer.message.content == (Text(PARIS),)
    assert (answer.finish_reason, answer.reported_model) == (FinishReason.STOP, CHAT_MODEL)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (37, 8)


async def test_a_stream_is_the_same_answer_in_pieces(provider: EmbeddedProvider) -> None:
    items = await items_of(provider.stream(chat()))

    assert (text_in(items), finish_in(items)) == (PARIS, FinishReason.STOP)
    assert len([item for item in items if isinstance(item, Delta)]) == 7
    assert isinstance(items[-1], Report)
    assert usage_in(items).output_tokens == 8


async def test_the_system_message_is_read(provider: EmbeddedProvider) -> None:
    plain, guided = [
        await provider.chat(chat("Hello!", system=system)) for system in ("", "You are a pirate. Say arr.")
    ]

    assert plain.message != guided.message


async def test_a_seed_makes_a_warm_answer_repeat_itself(provider: EmbeddedProvider) -> None:
    def warm(seed: int) -> UpstreamChat:
        return chat(
            "Tell me a story.", generation=Generation(8, temperature=1.5, seed=seed, top_k=200, top_p=1.0)
        )

    texts = [text_in(await items_of(provider.stream(warm(seed)))) for seed in (1, 1, 2, 3)]

    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


async def test_the_limit_of_tokens_ends_an_answer(provider: EmbeddedProvider) -> None:
    answer = await provider.chat(chat(tokens=3))

    assert (answer.message.content, answer.finish_reason) == ((Text("The capital of"),), FinishReason.LENGTH)
    assert answer.usage
    assert answer.usage.output_tokens == 3


async def test_a_stop_sequence_ends_an_answer(provider: EmbeddedProvider) -> None:
    answer = await provider.chat(chat(generation=Generation(24, stop_sequences=(" is",))))

    assert (answer.message.content, answer.finish_reason) == (
        (Text("The capital of France"),),
        FinishReason.STOP,
    )


async def test_penalties_change_an_answer(provider: EmbeddedProvider) -> None:
    text = "Repeat the word cat ten times."
    plain = await provider.chat(chat(text))
    varied = await provider.chat(
        chat(text, generation=Generation(24, presence_penalty=2.0, frequency_penalty=2.0))
    )

    assert plain.message != varied.message


@pytest.mark.parametrize(
    "choices", [("perhaps", "never"), ('a "b"\\c',), ("größer 😀\n",), ("<think>a</think>b",)]
)
async def test_the_answer_is_one_of_the_choices(provider: EmbeddedProvider, choices: tuple[str, ...]) -> None:
    answer = await provider.chat(chat("Is the sky blue?", response_format=Choice(choices)))

    assert answer.message.content[0] in [Text(choice) for choice in choices]


async def test_a_schema_is_obeyed(provider: EmbeddedProvider) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"enum": ["Rome", "Oslo"]},
            "people": {"type": "integer", "minimum": 7, "maximum": 9},
        },
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    wanted = JsonSchema("x", json.dumps(schema))

    answer = await provider.chat(chat("Tell me of Paris.", tokens=60, response_format=wanted))

    (part,) = answer.message.content
    assert isinstance(part, Text)
    value = json.loads(part.text)
    assert value["city"] in {"Rome", "Oslo"}
    assert value["people"] in {7, 8, 9}
    assert len(value) == 2


async def test_a_json_object_begins_as_one(provider: EmbeddedProvider) -> None:
    items = await items_of(provider.stream(chat("Tell me of Paris.", tokens=6, response_format=JsonObject())))

    assert text_in(items).lstrip().startswith("{")


@pytest.mark.parametrize("top", [0, 1, 3])
async def test_log_probabilities_come_with_their_tokens(provider: EmbeddedProvider, top: int) -> None:
    answer = await provider.chat(chat(generation=Generation(3, top_logprobs=top)))

    assert [entry.token for entry in answer.logprobs] == ["The", " capital", " of"]
    assert b"".join(entry.token_bytes for entry in answer.logprobs) == b"The capital of"
    assert all(entry.logprob <= 0 for entry in answer.logprobs)
    assert {len(entry.top) for entry in answer.logprobs} == {top}


async def test_an_answer_is_continued_where_it_broke(provider: EmbeddedProvider) -> None:
    items = await items_of(provider.stream(chat(continuation="The capital of")))

    assert text_in(items) == " France is Paris."


async def test_a_prompt_beyond_the_context_is_told_apart(provider: EmbeddedProvider) -> None:
    for attempt in (provider.chat(chat("word " * 3000)), items_of(provider.stream(chat("word " * 3000)))):
        with pytest.raises(UpstreamError) as caught:
            await attempt
        assert caught.value.outcome is Outcome.CONTEXT_LENGTH


async def test_the_end_of_the_context_ends_an_answer() -> None:
    async with embedded(slots=1, context=256) as small:
        answer = await small.chat(chat(LONG_STORY + " word" * 200, tokens=500))

    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.usage
    assert answer.usage.input_tokens + answer.usage.output_tokens <= 257


async def test_a_schema_that_the_runtime_refuses_is_the_callers_fault(provider: EmbeddedProvider) -> None:
    with pytest.raises(UpstreamError) as caught:
        await provider.chat(chat(response_format=JsonSchema("x", '{"type": "colour"}')))

    assert (caught.value.outcome, caught.value.reason) == (Outcome.INVALID_REQUEST, "refused_by_engine")


@pytest.mark.parametrize("model", ["gpt-4o", EMBEDDING_MODEL])
async def test_no_other_model_chats(provider: EmbeddedProvider, model: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        await provider.chat(ask("Hi", model=model))

    assert caught.value.outcome is Outcome.MODEL_MISSING


async def test_two_streams_advance_side_by_side(provider: EmbeddedProvider) -> None:
    order: list[str] = []

    async def read(name: str) -> Usage:
        items: list[StreamItem] = []
        async for batch in provider.stream(chat(LONG_STORY, tokens=24)):
            items.extend(batch)
            order.append(name)
        return usage_in(items)

    usages = await asyncio.gather(read("a"), read("b"))

    assert [usage.output_tokens for usage in usages] == [24, 24]
    assert sorted((order.index("a"), order.index("b")))[1] < len(order) // 2


async def read_some(stream: AsyncIterator[Sequence[StreamItem]], kind: type, count: int = 1) -> float:
    """Read until ``count`` items of ``kind`` have come, and return how long one took."""
    loop = asyncio.get_running_loop()
    started, seen = loop.time(), 0
    async for batch in stream:
        seen += sum(isinstance(item, kind) for item in batch)
        if seen >= count:
            break
    return (loop.time() - started) / seen


async def test_closing_a_stream_stops_its_generation() -> None:
    """With one slot, the next call is answered only once the abandoned one is out of the way."""
    before = threads()
    async with embedded(slots=1) as single:
        await single.check()
        async with aclosing(single.stream(chat(tokens=1500, response_format=ENDLESS))) as stream:
            pace = await read_some(stream, Delta, 30)

        async with asyncio.timeout(pace * 1500 / 3):
            assert text_in(await items_of(single.stream(chat()))) == PARIS
    assert threads() == before


async def test_closing_a_stream_stops_the_reading_of_its_prompt() -> None:
    async with embedded(slots=1) as single:
        await single.check()
        async with aclosing(
            single.stream(chat("word " * 1700, tokens=300, response_format=ENDLESS))
        ) as stream:
            pace = await read_some(stream, Report, 2)

        async with asyncio.timeout(pace * 2 * 4):  # seven batches of the prompt, and 300 tokens after them
            assert text_in(await items_of(single.stream(chat()))) == PARIS


async def test_cancelling_a_whole_answer_stops_the_engine() -> None:
    async with embedded(slots=1) as single:
        await single.check()
        async with aclosing(single.stream(chat(tokens=30, response_format=ENDLESS))) as stream:
            pace = await read_some(stream, Delta, 20)
        task = asyncio.create_task(single.chat(chat(tokens=1500, response_format=ENDLESS)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, timeout=pace * 20)

        async with asyncio.timeout(pace * 1500 / 3):
            assert (await single.chat(chat())).message.content == (Text(PARIS),)


async def test_a_call_that_waits_for_a_slot_can_be_cancelled() -> None:
    async with embedded(slots=1) as single, aclosing(single.stream(chat(LONG_STORY, tokens=40))) as running:
        await read_some(running, Delta)
        waiting = asyncio.create_task(single.chat(chat()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert finish_in(await items_of(running)) is FinishReason.LENGTH


async def test_closing_ends_what_runs_and_leaves_no_thread() -> None:
    before = threads()
    async with embedded() as closing:
        stream = closing.stream(chat(tokens=1500, response_format=ENDLESS))
        await read_some(stream, Delta)
        async with asyncio.timeout(20):
            await closing.close()
        with pytest.raises(UpstreamError) as caught:
            await read_into([], stream)
        with pytest.raises(UpstreamError):
            await closing.chat(chat())

    assert (caught.value.outcome, caught.value.reason) == (Outcome.UNAVAILABLE, "engine_failed")
    assert threads() == before


async def test_closing_while_it_loads_waits_for_the_load() -> None:
    before = threads()
    async with embedded():
        pass

    assert threads() == before


async def test_it_says_that_it_is_well_once_it_is_loaded(provider: EmbeddedProvider) -> None:
    assert await provider.check() is True


async def test_weights_that_cannot_be_loaded_make_it_unwell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / prepare(print).name
    broken.write_bytes(b"GGUF, or so it says")
    monkeypatch.setenv("MODELROUTER_CACHE", str(tmp_path))

    async with embedded() as unwell:
        assert await unwell.check() is False
        with pytest.raises(UpstreamError) as caught:
            await unwell.chat(chat())

    assert (caught.value.outcome, caught.value.reason) == (Outcome.UNAVAILABLE, "not_loaded")
    assert f"the weights in {broken} cannot be loaded" in caplog.text


async def test_the_runtimes_own_door_cannot_be_found() -> None:
    """It listens on a socket that has no name any more: no port, and no file to connect to."""
    already = listening()
    async with embedded() as made:
        await made.check()
        ours = psutil.Process().net_connections("all")
        named = [Path(str(c.laddr)) for c in ours if "engine.sock" in str(c.laddr)]

        assert listening() <= already
        assert named
        assert not any(path.exists() for path in named)


async def test_near_texts_have_near_vectors(provider: EmbeddedProvider) -> None:
    texts = ["a cat", "a kitten", "quarterly revenue"]
    embeddings = await provider.embed(vectors(*texts))
    rows = np.frombuffer(embeddings.vectors.data, "<f4").reshape(3, 256)

    assert rows[0] @ rows[1] > 0.4
    assert abs(rows[0] @ rows[2]) < 0.2
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    assert (embeddings.reported_model, embeddings.usage) == (EMBEDDING_MODEL, Usage(input_tokens=9))
    folder = wordllama.__path__[0]
    reference = wordllama.WordLlama.load(cache_dir=folder, disable_download=True).embed(texts, norm=True)
    assert rows == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize("dimensions", [64, 128, 256])
async def test_shorter_vectors_are_the_beginning_of_the_long_one(
    provider: EmbeddedProvider, dimensions: int
) -> None:
    short = await provider.embed(vectors("a cat", dimensions=dimensions))
    whole = await provider.embed(vectors("a cat"))
    row = np.frombuffer(short.vectors.data, "<f4")
    begin = np.frombuffer(whole.vectors.data, "<f4")[:dimensions]

    assert short.vectors.dimensions == len(row) == dimensions
    assert row == pytest.approx(begin / np.linalg.norm(begin), abs=1e-6)


async def test_a_text_of_a_megabyte_is_averaged_too(provider: EmbeddedProvider) -> None:
    short = await provider.embed(vectors("cat cat"))
    long = await provider.embed(vectors("cat " * 250_000))

    rows = [np.frombuffer(embeddings.vectors.data, "<f4") for embeddings in (short, long)]
    assert rows[0] @ rows[1] > 0.9


@pytest.mark.parametrize(
    ("call", "outcome", "reason"),
    [
        (vectors("a", dimensions=100), Outcome.INVALID_REQUEST, "dimensions_unsupported"),
        (vectors("a", ""), Outcome.INVALID_REQUEST, "empty_input"),
        (ask_vectors("a", model=CHAT_MODEL), Outcome.MODEL_MISSING, "unknown_model"),
    ],
)
async def test_what_it_cannot_embed_is_refused(
    provider: EmbeddedProvider, call: UpstreamEmbed, outcome: Outcome, reason: str
) -> None:
    with pytest.raises(UpstreamError) as caught:
        await provider.embed(call)

    assert (caught.value.outcome, caught.value.reason) == (outcome, reason)


SERVES = """
    import asyncio, logging, os, signal

    from router_server.core.provider import Surroundings
    from router_server.providers.embedded import CHAT_MODEL, EMBEDDING_MODEL, KIND

    async def main():
        heard = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.set)
        everything = Surroundings("local", models=(CHAT_MODEL, EMBEDDING_MODEL))
        provider = KIND.create(KIND.settings(threads=1), everything)
        assert await provider.check()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(heard.wait(), 20)
        await provider.close()
        print(logging.getLogger().handlers, logging.getLogger().level)

    asyncio.run(main())
"""


async def test_a_server_keeps_its_signals_its_logging_and_its_standard_error() -> None:
    """Native servers like to take the first, eager packages the second, and both the third."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", dedent(SERVES), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()

    assert (process.returncode, out.decode().strip(), err.decode()) == (0, "[] 30", "")
