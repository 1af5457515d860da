"""What is told of calls that are given the answer of another: in the answer, traces, metrics and the log."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.phases import until
from tests.e2e.serving import answer, chat, events_of, pieces, serving
from tests.e2e.test_flights import in_two
from tests.telemetry.collector import Collector, attributes, collector
from tests.upstream import Upstream, json_reply, sse_reply

KEY = "very-secret-key-of-a-caller"


def config(upstream: Upstream, otlp: Collector) -> str:
    return f"""
        server: {{allow_direct: true}}
        providers: {{a: {{kind: openai, api_key: k, base_url: "{upstream.base_url}", health_check: null}}}}
        targets: {{a1: {{provider: a, model: m, price: {{input: 1, output: 1}}}}}}
        routes: {{chat: {{targets: [a1], cache: {{}}}}}}
        telemetry: {{otlp_endpoint: '{otlp.url}'}}
    """


def said_of_calls(otlp: Collector) -> list[dict[str, Any]]:
    """Return what the spans of the calls say, in the order in which they began."""
    spans = sorted(
        (s for s in otlp.spans if s.name.startswith("route ")), key=lambda s: s.start_time_unix_nano
    )
    return [attributes(span.attributes) for span in spans]


def counted(otlp: Collector, metric: str) -> Iterator[tuple[dict[str, Any], float]]:
    for point in otlp.metrics[metric].sum.data_points:
        yield attributes(point.attributes), point.as_double or point.as_int


async def test_an_answer_that_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    async with collector() as otlp, Upstream() as a:
        a.always(json_reply(answer()))
        async with serving(config(a, otlp)) as served:
            for fields in ({"generation": {"temperature": 0}}, {"idempotencyKey": KEY}):
                first = await served.stub.Chat(chat(**fields))
                again = await served.stub.Chat(chat(**fields))
                assert (first.route.cache_hit, again.route.cache_hit) == (False, True)
                assert (first.usage.cost_nano_usd, again.usage.cost_nano_usd) == (5_000, 0)
        calls = said_of_calls(otlp)
        assert [call.get("modelrouter.call.reused") for call in calls] == [None, "cache", None, "replay"]
        assert [call["modelrouter.call.cost_nano_usd"] for call in calls] == [5_000, 0, 5_000, 0]
        assert [call["modelrouter.call.attempts"] for call in calls] == [1, 0, 1, 0]
        assert {call["modelrouter.target"] for call in calls} == {"a1"}
        labels = {"route": "chat", "operation": "chat"}
        assert list(counted(otlp, "modelrouter.calls.reused")) == [
            ({**labels, "reused": "cache"}, 1),
            ({**labels, "reused": "replay"}, 1),
        ]
        tokens = {said["direction"]: count for said, count in counted(otlp, "modelrouter.tokens")}
        assert tokens == {"input": 6, "output": 4}, "used by the two that asked"
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    access = [line for line in lines if line["logger"] == "router_server.access"]
    assert [line.get("reused") for line in access] == [None, "cache", None, "replay"]
    assert [(line["input_tokens"], line["output_tokens"]) for line in access] == [(3, 2)] * 4
    assert [line["cost_nano_usd"] for line in access] == [5_000, 0, 5_000, 0]
    assert {line["target"] for line in access} == {"a1"}


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_one_that_was_on_its_way(streaming: bool, capsys: pytest.CaptureFixture[str]) -> None:
    go_on = asyncio.Event()
    async with collector() as otlp, Upstream() as a:
        a.always(in_two(go_on, streaming=streaming))
        async with serving(config(a, otlp)) as served:

            async def ask() -> None:
                request = chat(generation={"temperature": 0})
                if streaming:
                    await events_of(served.stub.StreamChat(request))
                else:
                    await served.stub.Chat(request)

            calls = [asyncio.ensure_future(ask()) for _ in range(3)]
            await a.requested()
            replays = served.server.assembly.router.replays  # type: ignore[attr-defined]
            await until(lambda: [flight.waiting for flight in replays.flights] == [3])
            go_on.set()
            await asyncio.gather(*calls)
        said = Counter(call.get("modelrouter.call.reused") for call in said_of_calls(otlp))
        assert said == {None: 1, "joined": 2}
        operation = "stream" if streaming else "chat"
        assert list(counted(otlp, "modelrouter.calls.reused")) == [
            ({"route": "chat", "operation": operation, "reused": "joined"}, 2)
        ]
        assert [count for _said, count in counted(otlp, "modelrouter.attempts")] == [1]
        if streaming:
            points = otlp.metrics["modelrouter.call.time_to_first_token"].histogram.data_points
            assert sum(point.count for point in points) == 3
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    reused = Counter(line.get("reused") for line in lines if line["logger"] == "router_server.access")
    assert reused == {None: 1, "joined": 2}


async def test_what_callers_name_by_themselves_is_no_label() -> None:
    async with collector() as otlp, Upstream() as a:
        a.always(sse_reply(pieces("Hello")))
        async with serving(config(a, otlp)) as served:
            for _ in range(2):
                await events_of(served.stub.StreamChat(chat("a/whatever", idempotencyKey=KEY)))
        assert [call.get("modelrouter.call.reused") for call in said_of_calls(otlp)] == [None, "replay"]
        assert {call["modelrouter.route"] for call in said_of_calls(otlp)} == {"direct"}
        assert "very-secret" not in otlp.everything()
