"""What a usage costs: the price of the configuration, else the published one, else unknown.

Prices are looked up once, at start. Refuses to know who pays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final

from router_server.config.tree import Config, PriceConfig
from router_server.core.target import no_price
from router_server.core.types import Usage
from router_server.price_list import PUBLISHERS, Rates, published

Cost = Callable[[Usage], int | None]

_NANO = 10**9

_OWN_MACHINES: Final = frozenset({"embedded", "mock", "sentence-transformers", "static", "vllm"})
"""Kinds of whose calls nobody sends a bill."""


def cost_function(kind: str, model: str, price: PriceConfig | None) -> Cost:
    """Return the function from a usage to nano-USD; None from it means that the price is not known.

    Args:
        kind: the provider's kind.
        model: the upstream's name of the model.
        price: what the configuration says, which wins: USD per million tokens, and per request.
    """
    if price is not None:
        return _configured(price)
    publisher = PUBLISHERS.get(kind)
    return no_price if publisher is None else _published(publisher, model)


def warnings_of_prices(config: Config) -> tuple[str, ...]:
    """Return one sentence for each target whose price its route or a budget goes by, and which has none."""
    return (*_last_of_the_cheapest(config), *_beyond_budgets(config))


def _last_of_the_cheapest(config: Config) -> Iterator[str]:
    return (
        f"routes.{name} asks the cheapest first, and the price of {target} is not known, so it comes last: "
        f"set targets.{target}.price, to 0 if it costs nothing."
        for name, route in config.routes.items()
        if route.strategy == "lowest_cost"
        for target in (one.target for one in route.targets)
        if _price_of(config, target) is None
    )


def _beyond_budgets(config: Config) -> Iterator[str]:
    for name, target in config.targets.items():
        budgets = list(_budgets_over(config, name))
        own = config.providers[target.provider].kind in _OWN_MACHINES
        if budgets and not own and _price_of(config, name) is None:
            yield (
                f"the price of {name} is not known, so its calls spend nothing of the budget of "
                f"{', '.join(budgets)}: set targets.{name}.price, to 0 if it costs nothing."
            )


def _budgets_over(config: Config, target: str) -> Iterator[str]:
    provider = config.targets[target].provider
    if config.providers[provider].budget is not None:
        yield f"providers.{provider}"
    for name, route in config.routes.items():
        shadow = () if route.shadow is None else (route.shadow.target,)
        if route.budget is not None and target in (*route.everyone, *shadow):
            yield f"routes.{name}"
    for place, callers in config.auth.callers if config.auth else ():
        if callers.budget is not None:
            yield place


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


def _published(publisher: str, model: str) -> Cost:
    tiers = published(publisher, model)
    starts = [tier.start for tier in tiers[1:]]

    def cost(usage: Usage) -> int:
        return _cost(tiers[bisect_left(starts, usage.input_tokens)], usage)

    return cost if tiers else no_price


def _cost(rates: Rates, usage: Usage) -> int:
    if not (usage.cache_read_input_tokens or usage.cache_write_input_tokens):
        return int(rates.request + rates.input * usage.input_tokens + rates.output * usage.output_tokens)
    # A part larger than the whole is an upstream's to get wrong, and must not make a price negative.
    read = min(usage.cache_read_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_input_tokens, usage.input_tokens - read)
    return int(
        rates.request
        + rates.input * (usage.input_tokens - read - written)
        + rates.output * usage.output_tokens
        + rates.cache_read * read
        + rates.cache_write * written
    )
