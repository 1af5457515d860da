"""What a usage costs: the price of the configuration, else the published one, else unknown.

Prices are looked up once, at start. Refuses to know who pays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from router_server.config.tree import Config, PriceConfig
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


def warnings_of_prices(config: Config) -> tuple[str, ...]:
    """Return one sentence for each target whose price its route goes by, and which has none."""
    return tuple(
        f"routes.{name} asks the cheapest first, and the price of {target} is not known, so it comes last: "
        f"set targets.{target}.price, to 0 if it costs nothing."
        for name, route in config.routes.items()
        if route.strategy == "lowest_cost"
        for target in (one.target for one in route.targets)
        if _price_of(config, target) is None
    )


def _price_of(config: Config, name: str) -> int | None:
    target = config.targets[name]
    kind = config.providers[target.provider].kind
    return cost_function(kind, target.model, target.price)(Usage(1, 1))


def _configured(price: PriceConfig) -> Cost:
    per_input, per_output = price.input * 1000, price.output * 1000
    per_request = price.request * _NANO

    def cost(usage: Usage) -> int:
        return round(usage.input_tokens * per_input + usage.output_tokens * per_output + per_request)

    return cost


@dataclass(frozen=True, slots=True)
class _Rates:
    """Nano-USD: of a request, and of one token of each kind."""

    request: Decimal
    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal

    def cost(self, usage: Usage) -> int:
        # A part larger than the whole is an upstream's to get wrong, and must not make a price negative.
        read = min(usage.cache_read_input_tokens, usage.input_tokens)
        written = min(usage.cache_write_input_tokens, usage.input_tokens - read)
        return int(
            self.request
            + self.input * (usage.input_tokens - read - written)
            + self.output * usage.output_tokens
            + self.cache_read * read
            + self.cache_write * written
        )


def _published(publisher: str, model: str) -> Cost:
    """Return the function of a published price.

    The library's own takes 70 µs, as it derives the rates of the model anew for every usage; here they are
    derived once, from what it says of one token, and a usage takes 1 µs.
    """
    import genai_prices  # noqa: PLC0415 - a quarter of a second, which only these kinds need

    try:
        found = genai_prices.calc_price(genai_prices.Usage(), model_ref=model, provider_id=publisher)
    except LookupError:
        return no_price
    price = found.model_price

    def nano_usd(tokens: int, **counts: int) -> Decimal:
        usage = genai_prices.Usage(**{"input_tokens": tokens, "output_tokens": 0, **counts})
        total: Decimal = price.calc_price(usage)["total_price"]
        return total * _NANO

    def rates(above: int) -> _Rates:
        tokens, request = above + 1, nano_usd(0)
        plain = nano_usd(tokens)
        return _Rates(
            request,
            input=(plain - request) / tokens,
            output=nano_usd(tokens, output_tokens=1) - plain,
            cache_read=(nano_usd(tokens, cache_read_tokens=tokens) - request) / tokens,
            cache_write=(nano_usd(tokens, cache_write_tokens=tokens) - request) / tokens,
        )

    tiered = [value for value in vars(price).values() if isinstance(value, genai_prices.types.TieredPrices)]
    # A tier's rates hold for all tokens of a call that has more input tokens than the tier's start.
    starts = sorted({tier.start for value in tiered for tier in value.tiers})
    tiers = [rates(above) for above in (0, *starts)]

    def cost(usage: Usage) -> int:
        return tiers[bisect_left(starts, usage.input_tokens)].cost(usage)

    return cost
