"""Experiments and shadows through the whole server: who is asked, what is told of it, who is spared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from textwrap import dedent

import pytest

from tests.e2e.serving import Served, answer, chat, events_of, pieces, serving, text_of
from tests.telemetry.collector import Collector, attributes, collector
from tests.upstream import End, Request, Step, Steps, Upstream, json_reply, sse_reply

OK = json_reply(answer())
DOWN = json_reply({"error": {"message": "down"}}, 503)


@asynccontextmanager
async def trying(route: str, otlp: Collector) -> AsyncIterator[tuple[Served, Upstream, Upstream]]:
    quick = "retries: 0, health_check: null, max_concurrency: 1"
    async with Upstream() as old, Upstream() as new:
        old.always(OK)
        new.always(OK)
        text = dedent(f"""
            providers:
              old: {{kind: openai, api_key: k, base_url: "{old.base_url}", {quick}}}
              new: {{kind: openai, api_key: k, base_url: "{new.base_url}", {quick}}}
            targets:
              old: {{provider: old, model: m}}
              new: {{provider: new, model: n}}
              again: {{provider: old, model: again}}
            routes:
              chat: {{targets: [old], {route}}}
            telemetry: {{otlp_endpoint: '{otlp.url}'}}
        """)
        async with serving(text) as served:
            yield served, old, new


async def test_an_experiment_is_tried_by_its_share_of_users_and_told_in_traces() -> None:
    async with collector() as otlp:
        route = "experiment: {target: new, share: 0.5, name: try-n, by: user_id}"
        async with trying(route, otlp) as (served, _old, new):
            users = list(map(str, range(20)))
            first = [(await served.stub.Chat(chat(user_id=user), timeout=10)).route.target for user in users]
            assert set(first) == {"old", "new"}
            again = [(await served.stub.Chat(chat(user_id=user), timeout=10)).route.target for user in users]
            assert again == first
            new.always(DOWN)
            treated = users[first.index("new")]
            response = await served.stub.Chat(chat(user_id=treated), timeout=10)
            assert [x.target for x in response.route.attempts] == ["new", "old"]
    durations = otlp.metrics["modelrouter.call.duration"].histogram.data_points
    counts = {attributes(point.attributes)["arm"]: point.count for point in durations}
    assert counts == {"try-n": 2 * first.count("new") + 1, "control": 2 * first.count("old")}
    arms = [
        attributes(span.attributes)["modelrouter.arm"] for span in otlp.spans if span.name == "route chat"
    ]
    assert arms.count("try-n") == 2 * first.count("new") + 1
    assert arms.count("control") == 2 * first.count("old")


@pytest.mark.parametrize("target", ["new", "again"])
async def test_a_shadow_is_sent_beside_and_tells_of_itself(target: str) -> None:
    async with collector() as otlp, trying(f"shadow: {{target: {target}}}", otlp) as (served, old, new):
        response = await served.stub.Chat(chat(), timeout=10)
        assert (response.route.target, response.usage.output_tokens) == ("old", 2)
        await (new.requested() if target == "new" else old.requested(2))
        await settled()
    shadow, call = otlp.span("route chat:shadow"), otlp.span("route chat")
    assert attributes(shadow.attributes)["modelrouter.arm"] == "shadow"
    assert attributes(shadow.attributes)["modelrouter.target"] == target
    assert "modelrouter.arm" not in attributes(call.attributes)
    assert shadow.trace_id == call.trace_id


@pytest.mark.parametrize("shadowed", [(End.STALL,), DOWN, (End.RESET,)], ids=["hangs", "down", "reset"])
async def test_a_shadow_that_hangs_or_fails_costs_the_caller_nothing(shadowed: Steps) -> None:
    def reply(request: Request) -> Iterable[Step]:
        if request.json["model"] == "again":
            return shadowed
        return sse_reply(pieces("Hel", "lo")) if request.json.get("stream") else OK

    async with (
        collector() as otlp,
        trying("shadow: {target: again, max_copies: 2}", otlp) as (served, old, _new),
    ):
        old.always(reply)
        for _ in range(4):
            response = await served.stub.Chat(chat(), timeout=10)
            assert len(response.route.attempts) == 1
            assert text_of(await events_of(served.stub.StreamChat(chat(), timeout=10))) == "Hello"
        (count,) = served.server.assembly.copies()
        assert count.sent + count.dropped == 8
        if shadowed == (End.STALL,):
            assert (count.sent, count.running) == (2, 2)
        assert served.breaker("again") == "closed", "that one is only the shadow's"
        assert served.idle, "old has one place, which no copy takes"
    points = otlp.metrics["modelrouter.shadows"].sum.data_points
    told = {attributes(point.attributes)["outcome"]: point.as_int for point in points}
    assert told == {"sent": count.sent, "dropped": count.dropped}


async def settled() -> None:
    """Wait until no copy runs."""
    copies = [task for task in asyncio.all_tasks() if task.get_name().endswith("-shadow")]
    if copies:
        await asyncio.wait(copies, timeout=10)
