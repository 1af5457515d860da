"""Who pays: tenants of tokens, owners of certificates, keys that come while it runs, and copies of calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2
from grpc import aio

from router_server.auth.api_keys import hash_of
from router_server.auth.key_file import KeyFile
from router_server.auth.key_set import Adding
from router_server.config.budgets import BudgetConfig
from router_server.config.callers import KeyConfig
from router_server.core.budget import NANO_PER_USD
from tests.auth.issuer import AUDIENCE, ISSUER, SigningKey, issuing
from tests.e2e.phases import until
from tests.e2e.serving import Served, answer, chat, fails, failure_of, serving
from tests.e2e.test_auth import bearer, channel_with
from tests.e2e.test_budgets import COST, LIMITED, RESERVED, ask, config, spent
from tests.rpc.certificates import Authority
from tests.upstream import Upstream, json_reply

ONE_CALL = {"daily_usd": RESERVED / NANO_PER_USD}
"""It pays for one call, and not for another one after it."""


@asynccontextmanager
async def paying(route: str = "null", **extra: Any) -> AsyncIterator[Served]:
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply(answer()))
        more = "\n        ".join(f"{name}: {json.dumps(value)}" for name, value in extra.items())
        async with serving(config(a, b, route=route, extra=more)) as served:
            yield served


async def pays_once(served: Served, subject: str, call: Any) -> None:
    """Two calls of one caller: the first is paid from its budget, which refuses the second."""
    await call()
    assert await spent(served, subject) == COST
    failure = await fails(call())
    assert failure.reason == "BUDGET_EXCEEDED"
    assert failure.metadata["budget"] == subject
    assert failure.detail(error_details_pb2.QuotaFailure).violations[0].subject == subject
    assert await spent(served, subject) == COST


async def test_each_tenant_of_a_token() -> None:
    key = SigningKey("k1")
    async with issuing(key) as issuer:
        jwt = {"jwks": issuer.url, "issuer": ISSUER, "audience": AUDIENCE, "budget": ONE_CALL}
        async with paying(auth={"jwt": jwt}) as served:
            for tenant in ("acme", "corp"):
                mine = bearer(key.token(sub=tenant))
                await pays_once(served, f"jwt/{tenant}", lambda m=mine: served.stub.Chat(LIMITED, metadata=m))


async def test_each_owner_of_a_certificate(tmp_path: Path) -> None:
    ca = Authority(tmp_path, "ca")
    own = ca.issue("server")
    tls = {"cert": str(own.cert), "key": str(own.key), "client_ca": str(ca.cert)}
    async with paying(auth={"mtls": {"budget": ONE_CALL}}, server={"tls": tls}) as served:
        for name in ("worker-1", "worker-2"):
            async with channel_with(served, ca, ca.issue(name)) as stub:
                await pays_once(served, f"mtls/{name}", lambda s=stub: s.Chat(LIMITED))


async def test_a_key_with_a_budget_that_comes_while_it_runs(tmp_path: Path) -> None:
    place = KeyFile(tmp_path / "keys.yaml")
    await place.change(Adding(KeyConfig(name="old", sha256=hash_of("very-secret-old"))))
    async with paying(auth={"api_keys": str(tmp_path / "keys.yaml")}) as served:
        budget = BudgetConfig.model_validate(ONE_CALL)
        await place.change(Adding(KeyConfig(name="new", sha256=hash_of("very-secret-new"), budget=budget)))

        async def known() -> bool:
            try:
                await ask(served, metadata=bearer("very-secret-new"))
            except aio.AioRpcError as error:
                return failure_of(error).reason != "UNAUTHENTICATED"
            return True

        while not await known():
            pass
        assert await spent(served, "key/new") == COST
        failure = await fails(served.stub.Chat(LIMITED, metadata=bearer("very-secret-new")))
        assert failure.metadata["budget"] == "key/new"


@pytest.mark.parametrize("fails_too", [False, True], ids=["answers", "fails"])
async def test_a_copy_is_paid_by_its_route_and_its_provider_not_by_the_caller(fails_too: bool) -> None:
    keys = [{"name": "one", "sha256": hash_of("one"), "budget": {"daily_usd": 1}}]
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply(answer()))
        broken = answer() | {"choices": []}
        b.always(json_reply(broken if fails_too else answer()))
        text = f"""
            providers:
              a: {{kind: openai, api_key: k, base_url: "{a.base_url}", health_check: null}}
              b: {{kind: openai, api_key: k, base_url: "{b.base_url}", health_check: null,
                   budget: {{daily_usd: 1}}}}
            targets:
              a1: {{provider: a, model: model-a, price: {{input: 1, output: 1, request: 0.001}}}}
              b1: {{provider: b, model: model-b, price: {{input: 1, output: 1, request: 0.002}}}}
            routes:
              chat: {{targets: [a1], shadow: {{target: b1, share: 1.0}}, budget: {{daily_usd: 1}}}}
            auth: {{api_keys: {json.dumps(keys)}}}
        """
        async with serving(text) as served:
            await served.stub.Chat(chat(), metadata=(("x-api-key", "one"),))
            shadows = served.server.assembly.shadows
            assert shadows is not None
            await until(lambda: shadows.counts[0].running == 0)
            copy = await spent(served, "provider/b")
            assert await spent(served, "key/one") == COST
            assert await spent(served, "route/chat") == COST + copy
            # An answer that cannot be read costs its prompt.
            assert copy == (1_000 + 2_000_000 if fails_too else COST + 1_000_000)
