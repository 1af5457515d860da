"""The published prices, as the library genai-prices has them, and the table that is made of them.

The library takes a fifth of a second and 10 MiB to load, and a router needs the price of a few models. So
``published.json`` has the rates of every model that the list calls by one plain name and whose price changes
on no date. Any other is looked up in the library itself, and so is one that only a newer list knows. A test
holds table and library together; ``python -m router_server.price_list`` writes the table anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

PUBLISHERS: Final = {"openai": "openai", "gemini": "google"}
"""Provider kinds whose prices are public, and what the price list calls them."""

TABLE: Final = Path(__file__).with_name("published.json")
_NANO: Final = 10**9


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-USD of a request, and of one token of each kind; they hold from ``start`` input tokens on."""

    start: int
    request: Decimal
    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal

    @property
    def of_each_kind(self) -> tuple[Decimal, ...]:
        """The rates alone, in the order of the fields."""
        return (self.request, self.input, self.output, self.cache_read, self.cache_write)


def published(publisher: str, model: str) -> Sequence[Rates]:
    """Return the rates of a model by their start, the first from 0; nothing where nobody knows them."""
    tiers = _read()[publisher].get(model)
    if tiers is None:
        return asked(publisher, model)
    return [Rates(start, *map(Decimal, rates)) for start, *rates in tiers]


@cache
def _read() -> Any:
    return json.loads(TABLE.read_bytes())


def asked(publisher: str, model: str) -> Sequence[Rates]:
    """Return the same in the library's own words.

    Its own way from a usage to a price takes 70 µs, as it derives the rates of the model anew for every
    usage. Here they are derived once, from what it says of one token.
    """
    import genai_prices  # noqa: PLC0415 - see above

    found = _found(publisher, model)
    if found is None:
        return ()
    price = found.model_price

    def nano_usd(tokens: int, **counts: int) -> Decimal:
        usage = genai_prices.Usage(**{"input_tokens": tokens, "output_tokens": 0, **counts})
        total: Decimal = price.calc_price(usage)["total_price"]
        return total * _NANO

    def rates(start: int) -> Rates:
        # A tier's rates hold for all tokens of a call that has more input tokens than the tier's start.
        tokens, request = start + 1, nano_usd(0)
        plain = nano_usd(tokens)
        return Rates(
            start,
            request,
            input=(plain - request) / tokens,
            output=nano_usd(tokens, output_tokens=1) - plain,
            cache_read=(nano_usd(tokens, cache_read_tokens=tokens) - request) / tokens,
            cache_write=(nano_usd(tokens, cache_write_tokens=tokens) - request) / tokens,
        )

    tiered = [value for value in vars(price).values() if isinstance(value, genai_prices.types.TieredPrices)]
    starts = sorted({tier.start for value in tiered for tier in value.tiers})
    return [rates(start) for start in (0, *starts)]


def _found(publisher: str, model: str) -> Any:
    import genai_prices  # noqa: PLC0415 - as above

    try:
        return genai_prices.calc_price(genai_prices.Usage(), model_ref=model, provider_id=publisher)
    except LookupError:
        return None


def table() -> str:
    """Return what `published.json` has to be: a line for each model."""
    from genai_prices.data import providers  # noqa: PLC0415 - as above

    lists = {provider.id: provider.models for provider in providers}
    return "{\n" + ",\n".join(_section(name, lists[name]) for name in sorted(PUBLISHERS.values())) + "\n}\n"


def _section(publisher: str, models: Sequence[Any]) -> str:
    names = sorted({name for model in models for name in (model.id, *_plain_names(model.match))})
    rows = {name: asked(publisher, name) for name in names if _is_settled(publisher, name)}
    lines = (f"  {json.dumps(name)}: {json.dumps(_cells(tiers))}" for name, tiers in rows.items())
    return f" {json.dumps(publisher)}: {{\n" + ",\n".join(lines) + "\n }"


def _is_settled(publisher: str, name: str) -> bool:
    """Tell whether the price is the same on every date: prices by date are a list."""
    found = _found(publisher, name)
    return found is not None and not isinstance(found.model.prices, list)


def _plain_names(clause: Any) -> Iterator[str]:
    if hasattr(clause, "equals"):
        yield clause.equals
    for part in getattr(clause, "or_", ()):
        yield from _plain_names(part)


def _cells(tiers: Sequence[Rates]) -> list[list[int | str]]:
    return [[tier.start, *(f"{rate.normalize():f}" for rate in tier.of_each_kind)] for tier in tiers]


if __name__ == "__main__":
    TABLE.write_text(table())
