"""Budgets as the configuration asks for them: kept while a server runs, told of at its end.

Refuses to know servers and calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router_server.config.tree import Config
from router_server.spending.ledger import BudgetLedger, Heard
from router_server.state.opening import State


def are_wanted(config: Config) -> bool:
    """Tell whether anything has a budget, or may have: keys that are kept elsewhere come and go."""
    auth = config.auth
    if auth is not None:
        keys = auth.api_keys
        if keys is not None and (keys.file or keys.redis or any(key.budget for key in keys.keys)):
            return True
        if (auth.jwt and auth.jwt.budget) or (auth.mtls and auth.mtls.budget):
            return True
    providers, routes = config.providers.values(), config.routes.values()
    return any(one.budget for one in providers) or any(one.budget for one in routes)


@asynccontextmanager
async def budgets_kept(config: Config, state: State, heard: Heard) -> AsyncIterator[BudgetLedger]:
    """Give the ledger while the context lasts; at its end what was settled is written down.

    Args:
        config: says how many workers there are.
        state: where it is kept.
        heard: see `spending.ledger`.
    """
    # Workers that share nothing each have their part of it.
    shares = 1 if state.distributed else config.server.workers
    ledger = BudgetLedger(state.shared, shares=shares, heard=heard)
    writing = asyncio.create_task(ledger.run(), name="budgets")
    try:
        yield ledger
    finally:
        writing.cancel()
        await asyncio.wait({writing})
        await ledger.flush()
