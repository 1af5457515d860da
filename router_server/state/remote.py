"""The state that replicas share, in Redis or what speaks like it.

No question takes longer than the call's patience, and none is asked while the circuit is open. Refuses to
know any feature.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from router_server.core.shared import CALL_PATIENCE, SharedSnapshot, UnreachableError, patience
from router_server.state.causes import cause_of
from router_server.state.circuit import Circuit
from router_server.state.store import PREFIX, Argument, Reply, Script

T = TypeVar("T")

_MOST_CONNECTIONS: Final = 32
_CONNECT: Final = 1.0
"""Seconds for a connection that nobody waits for: a probe's."""

_PROBE: Final = Script(
    "probe", "redis.call('SET', KEYS[1], now, 'PX', 60000) return {now}", lambda cells, _k, _a: [cells.now]
)
"""Writes, since a replica that may only be read, or a full one, is of no use."""
_PROBE_KEY: Final = f"{PREFIX}:{{state}}:probe"


class RedisStore:
    """Values by key, on a server.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, with credentials and options as redis-py reads them.
        changed: called whenever `degraded` has changed.
    """

    def __init__(self, url: str, changed: Callable[[], None] = lambda: None) -> None:
        # No retry: it would not fit into the patience, and a connection that died idle is noticed before.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_MOST_CONNECTIONS,
            timeout=None,
            socket_connect_timeout=_CONNECT,
            socket_timeout=_CONNECT,
            retry=Retry(NoBackoff(), 0),
            # A connection is made without a word, since a burst of calls makes many of them at once.
            protocol=2,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._redis: Redis = Redis(connection_pool=pool)
        self._pool = pool
        self._circuit = Circuit(self._probe, changed, cause_of)
        self._asked: Counter[tuple[str, str]] = Counter()

    @property
    def degraded(self) -> bool:
        """Tell whether asking is pointless just now."""
        return self._circuit.degraded

    @property
    def snapshot(self) -> SharedSnapshot:
        """Return how it is, and what was asked so far."""
        return SharedSnapshot(self.degraded, dict(self._asked))

    async def connect(self) -> bool:
        """Ask for the first time, and tell whether an answer came; the background goes on if none did."""
        return await self._circuit.recovered()

    async def run_probes(self) -> None:
        """Probe while degraded, until cancelled."""
        await self._circuit.run()

    async def get(self, key: str) -> bytes | None:
        """Return a value, or None where there is none."""
        return await self._ask("get", lambda: cast("Awaitable[bytes | None]", self._redis.get(key)))

    async def get_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of ``keys``, in their order, None where there is none."""
        if not keys:
            return []
        return await self._ask("get", lambda: cast("Awaitable[list[bytes | None]]", self._redis.mget(keys)))

    async def put(self, key: str, value: bytes, ttl: float, *, only_if_absent: bool = False) -> bool:
        """Set a value; tell whether it was set."""
        lasting = _milliseconds(ttl)
        return bool(
            await self._ask("put", lambda: self._redis.set(key, value, px=lasting, nx=only_if_absent))
        )

    async def drop(self, *keys: str) -> int:
        """Remove values; return how many there were."""
        if not keys:
            return 0
        return int(await self._ask("drop", lambda: self._redis.unlink(*keys)))

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a whole number, which begins at 0 and lives ``ttl`` from now on; return the sum."""

        async def both() -> int:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.incrby(key, amount)
                pipe.pexpire(key, _milliseconds(ttl))
                total, _set = await pipe.execute()
                return int(total)

        return await self._ask("add", both)

    async def fields(self, key: str) -> Mapping[str, bytes]:
        """Return the fields of a record."""
        found = await self._ask("fields", lambda: cast("Awaitable[Any]", self._redis.hgetall(key)))
        return {name.decode(): value for name, value in found.items()}

    async def put_fields(self, key: str, fields: Mapping[str, bytes], ttl: float) -> None:
        """Set fields of a record, beside those it has; the whole record lives ``ttl`` from now on."""

        async def both() -> None:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(key, items=[part for pair in fields.items() for part in pair])
                pipe.pexpire(key, _milliseconds(ttl))
                await pipe.execute()

        if fields:
            await self._ask("put_fields", both)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        """Do one step."""
        return await self._ask(script.name, lambda: self._evaluate(script, keys, arguments))

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()
        await self._pool.aclose()

    async def _evaluate(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        given = (*keys, *arguments)
        try:
            reply: Any = await self._redis.evalsha(script.sha, len(keys), *given)
        except NoScriptError:
            # New to this server, or forgotten at its restart; EVAL runs it and keeps it.
            reply = await self._redis.eval(script.source, len(keys), *given)
        return cast("Reply", reply)

    async def _ask(self, what: str, command: Callable[[], Awaitable[T]]) -> T:
        left = patience()
        if self._circuit.degraded or left.left <= 0:
            self._asked[what, "skipped"] += 1
            raise UnreachableError
        loop = asyncio.get_running_loop()
        began, cancels = loop.time(), _cancels()
        try:
            async with asyncio.timeout(left.left):
                answer = await command()
        except TimeoutError:
            self._circuit.slow()
            self._asked[what, "timeout"] += 1
            raise UnreachableError from None
        except (RedisError, OSError) as error:
            self._circuit.failed(cause_of(error))
            self._asked[what, "error"] += 1
            raise UnreachableError from None
        finally:
            took = loop.time() - began
            left.left -= took
        # What a call would not have waited for is no sign that calls may go on asking.
        if took <= CALL_PATIENCE:
            self._circuit.answered()
        self._asked[what, "ok"] += 1
        if _cancels() > cancels:
            # redis-py has been seen to lose it where a silent server answers again in that moment.
            raise asyncio.CancelledError
        return answer

    async def _probe(self) -> None:
        # Connecting may take longer than an answer, with TLS to another zone for example.
        async with asyncio.timeout(_CONNECT):
            await cast("Awaitable[Any]", self._redis.ping())
        async with asyncio.timeout(CALL_PATIENCE):
            await self._evaluate(_PROBE, (_PROBE_KEY,), ())


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1_000))


def _cancels() -> int:
    """Return how often the current task was called off."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
