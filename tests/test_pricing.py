"""What a usage costs: rates derived once give what the price list's own library says of every usage."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_server import price_list
from router_server.config.tree import PriceConfig
from router_server.core.types import Usage
from router_server.pricing import cost_function

FLAT = ("openai", "openai", "gpt-4o-mini")
TIERED = ("gemini", "google", "gemini-2.5-pro")
"""Dearer for calls of more than 200,000 input tokens."""
UNLISTED = ("openai", "openai", "gpt-5.6-terra")
"""Not in our table, since its price changes on a date."""

around_a_tier = st.one_of(
    st.integers(0, 1_000_000), st.integers(199_998, 200_002), st.integers(127_998, 128_002)
)


@pytest.mark.parametrize(("kind", "publisher", "model"), [FLAT, TIERED, UNLISTED])
@given(tokens=around_a_tier, output=st.integers(0, 100_000), cached=st.floats(0, 1))
def test_a_published_price_is_the_library_s(
    kind: str, publisher: str, model: str, tokens: int, output: int, cached: float
) -> None:
    read = int(tokens * cached)
    theirs = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=tokens, output_tokens=output, cache_read_tokens=read),
        model_ref=model,
        provider_id=publisher,
    ).total_price
    assert isinstance(theirs, Decimal)
    assert cost_function(kind, model, None)(Usage(tokens, output, read)) == int(theirs * 10**9)


@pytest.mark.parametrize(("kind", "model"), [("openai", "gpt-4o-mini"), ("gemini", "gemini-2.5-pro")])
def test_parts_larger_than_the_whole_cost_no_more_than_the_whole(kind: str, model: str) -> None:
    cost = cost_function(kind, model, None)
    whole = cost(Usage(10, 0))
    assert whole is not None
    for wrong in (Usage(10, 0, 11), Usage(10, 0, 8, 8)):
        found = cost(wrong)
        assert found is not None
        assert 0 <= found <= 2 * whole


def test_the_table_is_what_the_library_says() -> None:
    assert price_list.TABLE.read_text() == price_list.table(), "run: make prices"


def test_prices_of_the_table_take_no_library() -> None:
    code = "import sys, router_server.pricing as p; print(p.cost_function('openai', 'gpt-4o-mini', None)"
    code += "(p.Usage(1000, 100)), 'genai_prices' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert done.stdout.split() == ["210000", "False"]


def test_a_configured_price_wins() -> None:
    price = PriceConfig(input=2.0, output=4.0, request=0.5)
    assert cost_function("openai", "gpt-4o-mini", price)(Usage(3, 5)) == 3 * 2000 + 5 * 4000 + 500_000_000


@pytest.mark.parametrize(("kind", "model"), [("openai", "a-model-nobody-knows"), ("vllm", "gpt-4o-mini")])
def test_an_unknown_price_is_none(kind: str, model: str) -> None:
    assert cost_function(kind, model, None)(Usage(1, 1)) is None
