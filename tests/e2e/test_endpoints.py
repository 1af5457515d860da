"""Several vLLM servers as one provider, through the whole server, on real sockets."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.json_format import ParseDict

from modelrouter.v1 import embed_pb2
from router_server.config import ConfigError
from router_server.config.loading import read
from tests.e2e.serving import (
    answer,
    chat,
    events_of,
    fails,
    pieces,
    serving,
    text_of,
)
from tests.e2e.vllm_like import config, engines, eventually, loads_known, until
from tests.telemetry.collector import attributes, collector
from tests.upstream import SSE_HEAD, End, event, json_reply, reply, sse_reply


async def test_the_least_loaded_is_asked_by_what_engines_say_and_by_our_own_calls() -> None:
    async with engines(3) as (a, b, c):
        a.load, b.load, c.load = (9, 0, 0.1), (2, 0, 0.1), (9, 2, 0.1)
        async with serving(config(a, b, c)) as served:
            await loads_known(served, a, b, c)
            await asyncio.gather(*(served.stub.Chat(chat()) for _ in range(4)))
            assert (len(a.asked), len(b.asked), len(c.asked)) == (0, 4, 0)
            b.load = (20, 0, 0.1)
            await loads_known(served, b)
            assert (await served.stub.Chat(chat())).route.target == "small"
            assert (len(a.asked), len(b.asked), len(c.asked)) == (1, 4, 0)


async def test_a_burst_spreads_although_nobody_has_told_of_it_yet() -> None:
    async with engines() as (a, b):
        more = ", load_interval: 1h, load_idle_interval: 1h".replace("1h", "3600s")
        text = config(a, b).replace("load_interval: 50ms, load_idle_interval: 50ms", more[2:])
        hold = asyncio.Event()
        for engine in (a, b):
            engine.upstream.always(lambda _request: (hold, *json_reply(answer())))
        async with serving(text) as served:
            await loads_known(served, a, b)
            calls = [asyncio.ensure_future(served.stub.Chat(chat())) for _ in range(10)]
            await eventually(lambda: len(a.asked) + len(b.asked) == 10)
            assert (len(a.asked), len(b.asked)) == (5, 5)
            hold.set()
            await asyncio.gather(*calls)
            assert served.idle


@pytest.mark.parametrize("full", [(0, 5, 0.0), (0, 0, 0.97)], ids=["requests wait", "its cache is full"])
async def test_a_full_engine_is_passed_over_while_another_is_not(full: tuple[float, float, float]) -> None:
    async with engines() as (a, b):
        a.load, b.load = full, (30, 0, 0.5)
        async with serving(config(a, b)) as served:
            await loads_known(served, a, b)
            for _ in range(3):
                await served.stub.Chat(chat())
            assert (len(a.asked), len(b.asked)) == (0, 3)
            b.load = (30, 9, 0.5)
            await loads_known(served, b)
            await served.stub.Chat(chat())
            assert (len(a.asked), len(b.asked)) == (1, 3), "where all are full, the least loaded is asked"


async def test_the_limit_holds_for_each_endpoint_and_a_full_one_is_passed_over() -> None:
    async with engines() as (a, b):
        hold = asyncio.Event()
        for engine in (a, b):
            engine.upstream.always(lambda _request: (hold, *json_reply(answer())))
        a.load = (0, 0, 0.0)
        b.load = (50, 0, 0.0)
        text = config(a, b, more=", max_concurrency: 1, max_queue: 0")
        async with serving(text) as served:
            await loads_known(served, a, b)
            first = asyncio.ensure_future(served.stub.Chat(chat()))
            await a.upstream.requested(1)
            second = asyncio.ensure_future(served.stub.Chat(chat()))
            await eventually(lambda: bool(a.asked and b.asked))
            assert (await fails(served.stub.Chat(chat()))).reason == "ROUTER_SATURATED"
            hold.set()
            for response in await asyncio.gather(first, second):
                assert [x.target for x in response.route.attempts] == ["small"], "no full one was tried"
            assert (len(a.asked), len(b.asked)) == (1, 1)
            assert served.idle


async def test_an_endpoint_that_fails_leads_to_another_unseen_and_is_no_fallback() -> None:
    async with collector() as otlp, engines() as (a, b):
        b.load = (50, 0, 0.0)
        a.upstream.always(json_reply({"error": {"message": "no"}}, 503))
        text = config(a, b, rest=f"telemetry: {{otlp_endpoint: '{otlp.url}'}}\n")
        async with serving(text) as served:
            await loads_known(served, a, b)
            call = served.stub.Chat(chat())
            response = await call
            trailers = dict(await call.trailing_metadata())
        assert (len(a.asked), len(b.asked)) == (1, 1)
        route = response.route
        assert (route.target, route.provider) == ("small", "local")
        assert (trailers["x-router-target"], trailers.get("x-fallback-model")) == ("small", None)
        assert [x.target for x in route.attempts] == ["small", "small"]
        assert a.name not in str(response)
    spans = [attributes(span.attributes) for span in otlp.spans if span.name == "chat small"]
    assert sorted((s["modelrouter.endpoint"], s["modelrouter.outcome"]) for s in spans) == sorted(
        [(a.name, "unavailable"), (b.name, "ok")]
    )
    assert {s["modelrouter.target"] for s in spans} == {"small"}


async def test_a_dead_endpoint_is_passed_over_and_comes_back_by_itself() -> None:
    async with engines() as (a, b):
        b.load = (50, 0, 0.0)
        async with serving(config(a, b)) as served:
            await until(served, a, healthy=True)
            await a.upstream.stop()
            await until(served, a, healthy=False)
            before = len(b.asked)
            response = await served.stub.Chat(chat())
            assert len(b.asked) == before + 1
            assert [x.target for x in response.route.attempts] == ["small"], "it was not even tried"
            health = served.server.health
            await eventually(lambda: health.state(f"target/small@{a.name}") == 2)
            assert (health.state("target/small"), health.state(f"target/small@{b.name}")) == (1, 1)
            await a.upstream.start()
            await until(served, a, healthy=True)
            await loads_known(served, a)
            await served.stub.Chat(chat())
            assert len(a.asked) == 1


async def test_a_cut_stream_goes_on_at_the_other_endpoint() -> None:
    async with engines() as (a, b):
        b.load = (50, 0, 0.0)
        a.upstream.always(
            (*SSE_HEAD, *(event(piece) for piece in pieces("Once", " upon", finish=None)), End.RESET)
        )
        b.upstream.always(sse_reply(pieces(" a", " time")))
        async with serving(config(a, b, recovery="resume")) as served:
            await loads_known(served, a, b)
            events = await events_of(served.stub.StreamChat(chat()))
        kinds = [name for name, _event in events]
        assert kinds[0] == "started"
        assert kinds.count("reset") == 1
        assert [event.resumed for name, event in events if name == "reset"] == [True]
        assert text_of(events) == "Once upon a time"
        assert b.asked[0].json["messages"][-1] == {"role": "assistant", "content": "Once upon"}
        assert b.asked[0].json["continue_final_message"] is True


async def test_the_other_endpoint_answers_where_the_first_is_late() -> None:
    async with engines() as (a, b):
        b.load = (50, 0, 0.0)
        a.upstream.always((End.STALL,))
        text = config(a, b, recovery="none, hedge: {after: 100ms, max_extra: 1.0}")
        async with serving(text) as served:
            await loads_known(served, a, b)
            response = await served.stub.Chat(chat())
            assert [x.target for x in response.route.attempts] == ["small", "small"]
            assert served.idle
        assert (len(a.asked), len(b.asked)) == (1, 1)


async def test_a_prompt_that_is_too_long_is_not_sent_to_the_same_model_again() -> None:
    async with engines() as (a, b):
        b.load = (50, 0, 0.0)
        too_long = {"error": {"message": "x", "code": "context_length_exceeded"}}
        a.upstream.always(json_reply(too_long, 400))
        async with serving(config(a, b)) as served:
            await loads_known(served, a, b)
            assert (await fails(served.stub.Chat(chat()))).reason == "CONTEXT_LENGTH_EXCEEDED"
        assert (len(a.asked), len(b.asked)) == (1, 0)


async def test_no_more_than_four_engines_are_given_a_prompt_that_may_kill_them() -> None:
    async with engines(6) as all_engines:
        for engine in all_engines:
            engine.upstream.always((End.RESET,))
        async with serving(config(*all_engines)) as served:
            assert (await fails(served.stub.Chat(chat()))).reason == "ALL_TARGETS_FAILED"
        asked = [len(engine.asked) for engine in all_engines]
        assert sum(asked) == 5, "four engines, and the last of them once more"
        assert sorted(asked)[:2] == [0, 0]


async def test_a_required_provider_is_ready_with_one_endpoint() -> None:
    async with engines() as (a, b):
        await a.upstream.stop()
        b.healthy = False
        async with serving(config(a, b, more=", required: true")) as served:
            await until(served, a, checked=True)
            await until(served, b, checked=True)
            assert not served.server.health.ready
            b.healthy = True
            await eventually(lambda: served.server.health.ready)


async def test_engines_that_tell_no_load_are_asked_in_turn() -> None:
    async with engines() as (a, b):
        for engine in (a, b):
            engine.upstream.on("/metrics", reply(b"", 404))
        async with serving(config(a, b)) as served:
            for _ in range(4):
                await served.stub.Chat(chat())
        assert (len(a.asked), len(b.asked)) == (2, 2)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('base_urls: ["http://a:1", "http://a:1/v1"]', "names a server twice"),
        ('base_url: "http://a:1", base_urls: ["http://b:1"]', "stands beside base_url"),
        ("base_urls: []", "add base_url"),
        ('base_urls: ["ftp://a"]', "must begin with http://"),
    ],
)
def test_mistakes_are_named(keys: str, words: str) -> None:
    text = f"providers: {{v: {{kind: vllm, {keys}}}}}\ntargets: {{t: {{provider: v, model: m}}}}\n"
    with pytest.raises(ConfigError, match=words):
        read(text + "routes: {r: {targets: [t]}}\n", {}, origin="test")


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_where_the_engine_says_that_its_time_went_is_in_the_span(streaming: bool) -> None:
    times = {"queue_time_ms": 2.0, "time_to_first_token_ms": 250.0, "generation_time_ms": 500.0}
    async with collector() as otlp, engines() as (a, b):
        whole = answer()
        whole["usage"]["prompt_tokens_details"] = {"cached_tokens": 2}
        events = pieces("Hel", "lo")
        events[-1]["usage"] = whole["usage"]
        for engine in (a, b):
            engine.upstream.always(
                sse_reply([*events[:-1], {**events[-1], "metrics": times}])
                if streaming
                else json_reply({**whole, "metrics": times})
            )
        text = config(a, b, rest=f"telemetry: {{otlp_endpoint: '{otlp.url}'}}\n")
        async with serving(text) as served:
            if streaming:
                assert text_of(await events_of(served.stub.StreamChat(chat()))) == "Hello"
            else:
                await served.stub.Chat(chat())
    said = attributes(otlp.span("chat small").attributes)
    assert said["modelrouter.endpoint"] in (a.name, b.name)
    assert said["modelrouter.engine.queue_time"] == 0.002
    assert said["modelrouter.engine.prefill_time"] == 0.25
    assert said["modelrouter.engine.decode_time"] == 0.5
    assert said["gen_ai.usage.cache_read.input_tokens"] == 2
    assert said["modelrouter.attempt.tokens_per_second"] > 0


async def test_embedding_goes_on_at_the_other_endpoint() -> None:
    async with engines() as (a, b):
        b.load = (50, 0, 0.0)
        a.upstream.always((End.RESET,))
        vectors = {
            "data": [{"index": 0, "embedding": [1.0, 0.5]}],
            "model": "small",
            "usage": {"prompt_tokens": 1},
        }
        b.upstream.always(json_reply(vectors))
        async with serving(config(a, b)) as served:
            await loads_known(served, a, b)
            request = ParseDict({"model": "chat", "inputs": [{"text": "a cat"}]}, embed_pb2.EmbedRequest())
            response = await served.stub.Embed(request)
            assert served.idle
        assert [x.target for x in response.route.attempts] == ["small", "small"]
        assert (len(a.asked), len(b.asked)) == (1, 1)


async def test_prompts_that_begin_alike_go_to_the_same_server_while_it_is_not_much_busier() -> None:
    async with engines(3) as (a, b, c):
        async with serving(config(a, b, c)) as served:
            documents = [f"Document {number}. {'All work and no play. ' * 200}" for number in range(6)]
            for question in ("Who?", "What?", "Why?"):
                for document in documents:
                    await served.stub.Chat(chat(text=document + question))
            places = [
                {engine.name for engine in (a, b, c) for call in engine.asked if document in str(call.json)}
                for document in documents
            ]
            assert all(len(place) == 1 for place in places)
            assert len(set.union(*places)) == 3, "other documents go elsewhere"
            busy = next(engine for engine in (a, b, c) if engine.name in places[0])
            busy.load = (20, 0, 0.1)
            await loads_known(served, a, b, c)
            before = len(busy.asked)
            await served.stub.Chat(chat(text=documents[0] + "Where?"))
            assert len(busy.asked) == before
        async with serving(config(a, b, c, more=", prefix_affinity: false")) as served:
            counts = {engine.name: len(engine.asked) for engine in (a, b, c)}
            busy.load = (0, 0, 0)
            await loads_known(served, a, b, c)
            for _ in range(3):
                await served.stub.Chat(chat(text=documents[0]))
            assert [len(engine.asked) - counts[engine.name] for engine in (a, b, c)] == [1, 1, 1]
