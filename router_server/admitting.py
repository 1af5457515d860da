"""From the configuration to the door before the router. Refuses to know what is behind it."""

from __future__ import annotations

from collections.abc import Callable

from router_server.config.tree import Config
from router_server.core.admission import Admission, Limits
from router_server.core.quotas import Quotas
from router_server.core.service import CallRouter


def admitted(
    config: Config, router: CallRouter, canonical: Callable[[str], str], quotas: Quotas
) -> CallRouter:
    """Return ``router`` behind the door that ``config`` asks for, or itself where it asks for none.

    Shared state asks for one too: it is there that a call's patience with it begins.
    """
    limited = [route.limits for route in config.routes.values() if route.limits is not None]
    if config.auth is None and config.limits is None and config.redis is None and not limited:
        return router
    return Admission(router, canonical, quotas, _limits(config), authenticated=config.auth is not None)


def _limits(config: Config) -> Limits:
    caller, user = (None, None) if config.limits is None else (config.limits.caller, config.limits.user)
    return Limits(
        caller=None if caller is None else caller.quota,
        user=None if user is None else user.quota,
        routes={name: route.limits.quota for name, route in config.routes.items() if route.limits},
        longest_answers={name: _longest_answer(config, name) for name in config.routes},
        longest_call=max(config.server.deadline.unary, config.server.deadline.stream),
    )


def _longest_answer(config: Config, route: str) -> int | None:
    caps = [config.targets[name].max_output_tokens for name in config.routes[route].order]
    return None if None in caps else max((cap for cap in caps if cap is not None), default=None)
