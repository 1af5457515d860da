import pytest
from pydantic import ValidationError

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Provider, Surroundings
from router_server.core.types import FinishReason, Text, Usage
from router_server.providers.static import KIND
from tests.providers.asks import ask, ask_vectors, finish_in, items_of, text_in, usage_in


def make(**settings: object) -> Provider:
    return KIND.create(KIND.settings(**settings), Surroundings("static"))


async def test_the_content_is_the_answer_and_costs_nothing() -> None:
    answer = await make(content="We are closed.").chat(ask("Hello?"))

    assert answer.message.content == (Text("We are closed."),)
    assert (answer.finish_reason, answer.usage, answer.reported_model) == (FinishReason.STOP, Usage(), "m")


async def test_the_first_rule_that_matches_the_last_user_message_answers() -> None:
    answers = [{"match": "(?i)price", "content": "See the list."}, {"match": "p", "content": "?"}]
    provider = make(content="Later.", answers=answers)

    assert text_in(await items_of(provider.stream(ask("The PRICE, please")))) == "See the list."
    assert text_in(await items_of(provider.stream(ask("Hello", system="price")))) == "Later."


async def test_a_stream_says_it_all_and_stops() -> None:
    items = await items_of(make(content="Later.").stream(ask("Hello?")))

    assert (text_in(items), finish_in(items), usage_in(items)) == ("Later.", FinishReason.STOP, Usage())


async def test_it_has_no_vectors_and_is_always_well() -> None:
    provider = make(content="Later.")

    assert await provider.check() is True
    with pytest.raises(UpstreamError) as caught:
        await provider.embed(ask_vectors("a"))
    assert caught.value.outcome is Outcome.INVALID_REQUEST
    await provider.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "content"),
        ({"content": ""}, "at least 1 character"),
        ({"content": "x", "answers": [{"match": "(", "content": "y"}]}, "not a regular expression"),
        ({"content": "x", "colour": "red"}, "colour"),
    ],
)
def test_a_mistake_in_the_settings_is_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        KIND.settings(**settings)
