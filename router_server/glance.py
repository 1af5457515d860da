"""How a target is at one moment. Refuses to know who looks."""

from __future__ import annotations

from router_server.core.status import TargetSnapshot
from router_server.core.target import Target


def snapshot_of(target: Target) -> TargetSnapshot:
    """Return what is to be seen of ``target`` now."""
    return TargetSnapshot(
        target=target.configured,
        provider=target.provider,
        endpoint=target.upstream.endpoint,
        inflight=target.gate.inflight,
        queued=target.gate.queued,
        breaker=target.breaker.state.value,
        cooling=target.cooldown.remaining,
        healthy=target.upstream.healthy,
        check_took=None if target.upstream.last_check is None else target.upstream.last_check.took,
        concurrency_limit=target.upstream.limiter.max_concurrency,
        engine_up=target.upstream.load.up,
        engine=target.upstream.load.engine,
        process=None if target.upstream.engine is None else target.upstream.engine.status,
    )
