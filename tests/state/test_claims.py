"""Claims in a real server, and the same in memory."""

from __future__ import annotations

from router_server.core.claim import Taken
from router_server.state.claims import SharedClaims
from router_server.state.store import Store

TTL = 10.0


async def test_one_has_it_until_it_lets_go(store: Store) -> None:
    claims = SharedClaims(store)
    assert await claims.take("k", "q1", "a", TTL) is None
    assert await claims.take("k", "q1", "a", TTL) is None, "renewed"
    assert await claims.take("k", "q1", "b", TTL) == Taken("q1")
    assert await claims.take("k", "q2", "b", TTL) == Taken("q1")
    await claims.release("k", "q1", "b")
    assert await claims.take("k", "q1", "b", TTL) == Taken("q1"), "it was not b's"
    await claims.release("k", "q1", "a")
    assert await claims.take("k", "q2", "b", TTL) is None


async def test_what_is_kept_comes_before_any_claim(store: Store) -> None:
    claims = SharedClaims(store)
    assert await claims.take("k", "q", "a", TTL) is None
    await store.put("k", b"answer", TTL)
    for owner in ("a", "b"):
        assert await claims.take("k", "q", owner, TTL) == Taken(answer=b"answer")
    await claims.release("k", "q", "a")
    assert await store.get("k") == b"answer"
    assert await store.get("k:claim") is None


async def test_a_claim_ends_by_itself(store: Store) -> None:
    claims = SharedClaims(store)
    assert await claims.take("k", "q", "a", 0.05) is None
    while await claims.take("k", "q", "b", TTL) is not None:
        pass
    assert await claims.take("k", "q", "a", TTL) == Taken("q")
