import asyncio
import itertools
import math

import numpy as np
import pytest
from pydantic import ValidationError

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Provider, Surroundings
from router_server.core.types import Delta, FinishReason, Generation, StreamItem, Text, Usage
from router_server.providers.mock import KIND
from tests.clock import virtual_time
from tests.providers.asks import ask, ask_vectors, finish_in, items_of, read_into, text_in, usage_in


def make(**settings: object) -> Provider:
    return KIND.create(KIND.settings(**settings), Surroundings("mock", retry_after_cap=60.0))


async def failure_of(provider: Provider) -> UpstreamError | None:
    try:
        await provider.chat(ask("Hi"))
    except UpstreamError as error:
        return error
    return None


async def test_unless_told_otherwise_it_echoes() -> None:
    answer = await make().chat(ask("How are you?", model="parrot"))

    assert answer.message.content == (Text("This is parrot, a mock. You said: How are you?"),)
    assert answer.usage == Usage(input_tokens=3, output_tokens=10)


async def test_a_stream_is_the_same_answer_in_pieces() -> None:
    items = await items_of(make(reply="one two  three\n").stream(ask("Count")))

    assert [item.text for item in items if isinstance(item, Delta)] == ["one", " two", "  three"]
    assert (finish_in(items), usage_in(items)) == (FinishReason.STOP, Usage(1, 3))


async def test_the_callers_limit_cuts_the_answer() -> None:
    call = ask("Count", generation=Generation(max_output_tokens=2))

    items = await items_of(make(reply="one two three").stream(call))

    assert (text_in(items), finish_in(items)) == ("one two", FinishReason.LENGTH)


async def test_a_continuation_is_not_repeated() -> None:
    items = await items_of(make(reply="one two three").stream(ask("Count", continuation="one two")))

    assert text_in(items) == " three"


@virtual_time
async def test_tokens_come_at_the_scripted_pace() -> None:
    loop = asyncio.get_running_loop()
    stream = make(reply="one two three", latency="500ms", tokens_per_second=4).stream(ask("Count"))

    times = [loop.time() async for _ in stream]

    assert times == pytest.approx([0.5, 0.75, 1.0, 1.0])


@virtual_time
async def test_a_whole_answer_takes_as_long_as_its_stream() -> None:
    await make(reply="one two three", latency="2s", tokens_per_second=1).chat(ask("Count"))

    assert asyncio.get_running_loop().time() == pytest.approx(4.0)


@virtual_time
async def test_vectors_take_the_latency() -> None:
    await make(latency=3).embed(ask_vectors("a"))

    assert asyncio.get_running_loop().time() == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("settings", "outcome", "reason"),
    [
        ({"fail": "always"}, Outcome.UNAVAILABLE, "http_503"),
        ({"fail": "always", "fail_status": 500}, Outcome.UNAVAILABLE, "http_500"),
        ({"fail": 429}, Outcome.RATE_LIMITED, "http_429"),
        ({"fail": 401}, Outcome.AUTH, "http_401"),
        ({"fail": 1, "fail_status": 404}, Outcome.MODEL_MISSING, "http_404"),
    ],
)
async def test_a_failure_is_what_its_status_means(
    settings: dict[str, object], outcome: Outcome, reason: str
) -> None:
    provider = make(**settings)

    for attempt in (
        provider.chat(ask("Hi")),
        items_of(provider.stream(ask("Hi"))),
        provider.embed(ask_vectors("a")),
    ):
        with pytest.raises(UpstreamError) as caught:
            await attempt
        assert (caught.value.outcome, caught.value.reason) == (outcome, reason)
    assert await provider.check() is False


async def test_a_rate_fails_some_calls_and_the_same_ones_every_time() -> None:
    one, two = make(fail=0.3, seed=7), make(fail=0.3, seed=7)
    failed = [await failure_of(one) is not None for _ in range(200)]

    assert failed == [await failure_of(two) is not None for _ in range(200)]
    assert 35 < sum(failed) < 85
    assert await one.check() is True


async def test_a_rate_of_zero_never_fails() -> None:
    provider = make(fail=0)

    assert [await failure_of(provider) for _ in range(50)] == [None] * 50


async def test_a_stream_breaks_after_the_tokens_it_was_told() -> None:
    provider = make(reply="one two three", fail_after_tokens=2)
    said: list[StreamItem] = []

    with pytest.raises(UpstreamError) as caught:
        await read_into(said, provider.stream(ask("Count")))

    assert (text_in(said), len(said)) == ("one two", 2)
    assert (caught.value.outcome, caught.value.usage) == (Outcome.UNAVAILABLE, Usage(1, 2))
    failure = await failure_of(provider)
    assert failure is not None
    assert failure.reason == "reset"


async def test_a_break_point_of_zero_refuses_before_the_first_token() -> None:
    with pytest.raises(UpstreamError, match="http_503"):
        await items_of(make(reply="one", fail_after_tokens=0).stream(ask("Count")))


@pytest.mark.parametrize(("asked", "told"), [("5s", 5.0), ("2m", 60.0)])
async def test_retry_after_is_told_up_to_the_cap(asked: str, told: float) -> None:
    failure = await failure_of(make(fail=429, retry_after=asked))

    assert failure is not None
    assert failure.retry_after == told


@virtual_time
async def test_a_refusal_takes_the_latency() -> None:
    await failure_of(make(fail=503, latency="2s"))

    assert asyncio.get_running_loop().time() == pytest.approx(2.0)


@virtual_time
async def test_cancelling_ends_the_wait() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await make(latency="1h").chat(ask("Hi"))


async def test_vectors_are_of_unit_length_and_depend_on_the_text_alone() -> None:
    first = await make(dimensions=16).embed(ask_vectors("a cat", "a dog"))
    second = await make(dimensions=16, seed=9).embed(ask_vectors("a dog"))
    rows = np.frombuffer(first.vectors.data, "<f4").reshape(first.vectors.rows, 16)

    assert np.linalg.norm(rows, axis=1) == pytest.approx([1.0, 1.0])
    assert rows[1].tobytes() == second.vectors.data
    assert not math.isclose(float(rows[0] @ rows[1]), 1.0)
    assert first.usage == Usage(input_tokens=4)


async def test_the_caller_chooses_the_dimensions() -> None:
    embeddings = await make().embed(ask_vectors("a", dimensions=3))

    assert (embeddings.vectors.dimensions, embeddings.vectors.rows) == (3, 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *itertools.product(
            [
                {"fail": 200},
                {"fail": 1.5},
                {"fail": "often"},
                {"fail": -0.1},
                {"fail": True},
                {"fail": 503.5},
            ],
            ["fail\n.*always, an HTTP status from 400 to 599, or a rate from 0 to 1"],
        ),
        ({"latency": "soon"}, "latency\n.*is not a duration"),
        ({"tokens_per_second": 0}, "tokens_per_second"),
        ({"fail_after_tokens": -1}, "fail_after_tokens"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_mistake_in_the_settings_is_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        KIND.settings(**settings)
