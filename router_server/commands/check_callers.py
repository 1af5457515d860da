"""What ``check-config`` says of callers: who they are, what they may name, use and spend."""

from __future__ import annotations

from collections.abc import Iterator

from router_server.config import Config
from router_server.config.budgets import BudgetConfig, budget_words
from router_server.config.callers import CallersConfig, KeyConfig, RatesConfig


def caller_words(config: Config) -> Iterator[str]:
    """Yield one sentence for each thing that is said of callers."""
    yield from _ways(config)
    for who, callers in _callers(config):
        yield from _allowed(who, callers)
    yield from _limits(config)
    yield from _budgets(config)


def _callers(config: Config) -> Iterator[tuple[str, CallersConfig]]:
    auth = config.auth
    if auth is None:
        return
    for key in auth.api_keys.keys if auth.api_keys else ():
        yield f"key {key.name}", key
    if auth.jwt is not None:
        yield "each tenant of a token", auth.jwt
    if auth.mtls is not None:
        yield "each owner of a certificate", auth.mtls


def _ways(config: Config) -> Iterator[str]:
    auth = config.auth
    if auth is None:
        return
    keys = auth.api_keys
    if keys is not None:
        places = (keys.file and f"in {keys.file}", keys.redis and "in Redis", keys.keys and "in this file")
        yield f"Callers show API keys, kept {' and '.join(place for place in places if place) or 'nowhere'}."
    if auth.jwt is not None:
        claims = f" with {' and '.join(auth.jwt.required_claims)}" if auth.jwt.required_claims else ""
        yield f"Callers show tokens of {auth.jwt.issuer} for {auth.jwt.audience}{claims}."
    if auth.mtls is not None:
        allowed = f" of {' or '.join(auth.mtls.allow)}" if auth.mtls.allow else ""
        yield f"Callers show client certificates{allowed}."


def _allowed(who: str, callers: CallersConfig) -> Iterator[str]:
    only = f" name {' or '.join(callers.routes)} alone" if callers.routes else ""
    ends = callers.expires if isinstance(callers, KeyConfig) else None
    until = f"{' call' if not only else ''} until {ends.isoformat()}" if ends else ""
    if only or until:
        yield f"{who[0].upper()}{who[1:]} may{only}{until}."


def _limits(config: Config) -> Iterator[str]:
    limited: list[tuple[str, RatesConfig | None]] = []
    if config.limits is not None:
        limited += [("each caller", config.limits.caller), ("each user", config.limits.user)]
    limited += [(who, callers.limits) for who, callers in _callers(config)]
    limited += [(f"provider {name}", provider.limits) for name, provider in config.providers.items()]
    limited += [(f"route {name}", route.limits) for name, route in config.routes.items()]
    for whose, limits in limited:
        if limits is not None:
            amounts = (f"{what} {amount}" for what, amount in limits.model_dump(exclude_none=True).items())
            yield f"Limits of {whose}: {', '.join(amounts)}."


def _budgets(config: Config) -> Iterator[str]:
    owners: list[tuple[str, BudgetConfig | None]] = [
        *((f"route {name}", route.budget) for name, route in config.routes.items()),
        *((f"provider {name}", provider.budget) for name, provider in config.providers.items()),
        *((who, callers.budget) for who, callers in _callers(config)),
    ]
    for who, budget in owners:
        if budget is not None:
            yield f"{who[0].upper()}{who[1:]} may spend {budget_words(budget)}."
