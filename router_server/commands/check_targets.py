"""What ``check-config`` says of providers and targets that differ from others: checks, overrides, prices."""

from __future__ import annotations

from collections.abc import Iterator

from router_server.config import Config
from router_server.config.tree import PriceConfig, ProviderConfig, TargetConfig
from router_server.providers import load_kind

_PRICES = {"input": "a million tokens in", "output": "a million tokens out", "request": "a request"}


def target_words(config: Config) -> Iterator[str]:
    """Yield one sentence for each provider that is checked otherwise, and each target with settings."""
    for name, provider in config.providers.items():
        if "health_check" in provider.model_fields_set:
            yield f"Provider {name} is {_checked(provider)}."
        if (servers := _servers(provider)) > 1:
            yield f"Provider {name} has {servers} servers, asked {_order(provider)}."
    for name, target in config.targets.items():
        if own := ", ".join(_own(target)):
            yield f"Target {name} has its own {own}."


def _servers(provider: ProviderConfig) -> int:
    endpoints = load_kind(provider.kind).endpoints
    return 0 if endpoints is None else len(endpoints(provider.settings))


def _order(provider: ProviderConfig) -> str:
    keeps = load_kind(provider.kind).prefix_affinity
    alike = keeps is not None and keeps(provider.settings)
    return "by load; prompts that begin alike go to the same one" if alike else "by load"


def _checked(provider: ProviderConfig) -> str:
    check = provider.health_check
    return "not checked" if check is None else f"checked every {check.interval:g}s"


def _own(target: TargetConfig) -> Iterator[str]:
    for name in ("max_output_tokens", "temperature", "max_concurrency"):
        value = getattr(target, name)
        if value is not None:
            yield f"{name} {value}"
    for capability, able in target.capabilities.items():
        yield capability if able else f"lack of {capability}"
    for name in ("timeouts", "breaker"):
        part = getattr(target, name)
        if part is not None:
            changes = part.model_dump(exclude_unset=True)
            yield f"{name} ({', '.join(f'{key} {value:g}' for key, value in changes.items())})"
    if target.price is not None:
        yield f"price ({_price(target.price)})"
    if target.provider_options:
        # Names alone: what they are set to may be anybody's secret.
        yield f"provider_options ({', '.join(target.provider_options)})"


def _price(price: PriceConfig) -> str:
    parts = [f"{getattr(price, name):g} USD {of}" for name, of in _PRICES.items() if getattr(price, name)]
    return ", ".join(parts) or "nothing"
