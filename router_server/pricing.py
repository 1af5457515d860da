"""What a usage costs: the price of the configuration, else the published one, else unknown.

Prices are looked up once, at start. Refuses to know who pays.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from router_server.config.tree import PriceConfig
from router_server.core.target import no_price
from router_server.core.types import Usage

Cost = Callable[[Usage], int | None]

_PUBLISHERS = {"openai": "openai", "gemini": "google"}
"""Provider kinds whose prices are public, and what the price list calls them."""

_NANO = 10**9


def cost_function(kind: str, model: str, price: PriceConfig | None) -> Cost:
    """Return the function from a usage to nano-USD; None from it means that the price is not known.

    Args:
        kind: the provider's kind.
        model: the upstream's name of the model.
        price: what the configuration says, which wins: USD per million tokens, and per request.
    """
    if price is not None:
        return _configured(price)
    publisher = _PUBLISHERS.get(kind)
    return no_price if publisher is None else _published(publisher, model)


def _configured(price: PriceConfig) -> Cost:
    per_input, per_output = price.input * 1000, price.output * 1000
    per_request = price.request * _NANO

    def cost(usage: Usage) -> int:
        return round(usage.input_tokens * per_input + usage.output_tokens * per_output + per_request)

    return cost


def _published(publisher: str, model: str) -> Cost:
    import genai_prices  # noqa: PLC0415 - a quarter of a second, which only these kinds need

    try:
        found = genai_prices.calc_price(genai_prices.Usage(), model_ref=model, provider_id=publisher)
    except LookupError:
        return no_price
    price = found.model_price

    def cost(usage: Usage) -> int:
        counts = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            # It raises where a part is larger than the whole, which is an upstream's to get wrong.
            cache_read_tokens=min(usage.cache_read_input_tokens, usage.input_tokens),
            cache_write_tokens=usage.cache_write_input_tokens,
        )
        total: Decimal = price.calc_price(counts)["total_price"]
        return int(total * _NANO)

    return cost
