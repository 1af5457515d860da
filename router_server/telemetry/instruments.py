"""The router's own metrics: name, unit, labels, bounds; with those of `conventions`, all that there are."""

from __future__ import annotations

from typing import Final

from router_server.telemetry import conventions
from router_server.telemetry.metric import (
    QUEUE_SECONDS,
    RATES,
    SECONDS,
    SECONDS_IN_ENGINE,
    Instrument,
    Metric,
)
from router_server.telemetry.semconv import (
    ERROR_TYPE,
    LABEL_ARM,
    LABEL_BUDGET,
    LABEL_CODE,
    LABEL_DIRECTION,
    LABEL_ENDPOINT,
    LABEL_FROM,
    LABEL_OPERATION,
    LABEL_OUTCOME,
    LABEL_PERIOD,
    LABEL_PHASE,
    LABEL_PRINCIPAL,
    LABEL_PROVIDER,
    LABEL_REASON,
    LABEL_REUSED,
    LABEL_ROUTE,
    LABEL_STATE,
    LABEL_TARGET,
    LABEL_TO,
    LABEL_WON,
)

_H, _C, _G = Instrument.HISTOGRAM, Instrument.COUNTER, Instrument.GAUGE
_PER_TARGET: Final = (LABEL_TARGET, LABEL_PROVIDER, LABEL_ENDPOINT)
_PER_ENGINE: Final = (LABEL_PROVIDER, LABEL_ENDPOINT)

CALL_DURATION: Final = Metric(
    "modelrouter.call.duration",
    _H,
    "s",
    "How long calls took, all attempts included",
    (LABEL_ROUTE, LABEL_OPERATION, ERROR_TYPE, LABEL_ARM),
    SECONDS,
)
CALL_TIME_TO_FIRST_TOKEN: Final = Metric(
    "modelrouter.call.time_to_first_token",
    _H,
    "s",
    "From a call's arrival to its first delta, failed attempts included",
    (LABEL_ROUTE, LABEL_ARM),
    SECONDS,
)
CALLS_REUSING: Final = Metric(
    "modelrouter.calls.reused",
    _C,
    "{call}",
    "Calls that were given the answer of another call, by where it was: cache, replay, joined",
    (LABEL_ROUTE, LABEL_OPERATION, LABEL_REUSED),
)
ATTEMPTS_MADE: Final = Metric(
    "modelrouter.attempts",
    _C,
    "{attempt}",
    "Attempts by outcome",
    (LABEL_TARGET, LABEL_ENDPOINT, LABEL_OUTCOME),
)
FAILOVERS: Final = Metric(
    "modelrouter.failovers",
    _C,
    "{failover}",
    "Times a call went from one target to another",
    (LABEL_ROUTE, LABEL_FROM, LABEL_TO, LABEL_REASON),
)
HEDGES: Final = Metric(
    "modelrouter.hedges",
    _C,
    "{attempt}",
    "Attempts made beside one that was late, by whether theirs was the answer: true, false",
    (LABEL_ROUTE, LABEL_TARGET, LABEL_WON),
)
RATE_LIMITED: Final = Metric(
    "modelrouter.rate_limited", _C, "{attempt}", "Attempts that an upstream rate-limited", (LABEL_TARGET,)
)
QUEUE_WAIT: Final = Metric(
    "modelrouter.queue.wait", _H, "s", "How long attempts waited for a permit", (LABEL_TARGET,), QUEUE_SECONDS
)
TOKENS_USED: Final = Metric(
    "modelrouter.tokens",
    _C,
    "{token}",
    "Tokens used, by direction: input, output",
    (LABEL_TARGET, LABEL_DIRECTION),
)
TOKENS_PER_SECOND: Final = Metric(
    "modelrouter.tokens_per_second",
    _H,
    "{token}/s",
    "Output tokens of whole answers by the time from the permit to the end, one value per attempt",
    (LABEL_TARGET, LABEL_ENDPOINT),
    RATES,
)
ENGINE_TIME: Final = Metric(
    "modelrouter.engine.time",
    _H,
    "s",
    "Where a request's time went by the engine's own word, by phase: queue, prefill, decode",
    (LABEL_TARGET, LABEL_ENDPOINT, LABEL_PHASE),
    SECONDS_IN_ENGINE,
)
COST: Final = Metric("modelrouter.cost", _C, "{USD}", "What attempts cost, in US dollars", (LABEL_TARGET,))
BREAKER_OPENS: Final = Metric(
    "modelrouter.breaker.opens", _C, "{open}", "Times a target's breaker opened", _PER_TARGET
)
INFLIGHT: Final = Metric("modelrouter.inflight", _G, "{attempt}", "Attempts that hold a permit", _PER_TARGET)
CONCURRENCY_LIMIT: Final = Metric(
    "modelrouter.concurrency_limit",
    _G,
    "{attempt}",
    "Attempts that may hold a permit of the provider at once; moves where the provider is adaptive",
    _PER_ENGINE,
)
QUEUE_DEPTH: Final = Metric(
    "modelrouter.queue.depth", _G, "{attempt}", "Attempts that wait for a permit", _PER_TARGET
)
BREAKER_STATE: Final = Metric(
    "modelrouter.breaker.state", _G, "{state}", "0 closed, 1 half-open, 2 open", _PER_TARGET
)
TARGET_HEALTHY: Final = Metric(
    "modelrouter.target.healthy",
    _G,
    "{bool}",
    "1 where the last active check passed, 0 where it failed; absent where nothing is known",
    _PER_TARGET,
)
CHECK_DURATION: Final = Metric(
    "modelrouter.check.duration",
    _G,
    "s",
    "How long the last active check took; absent where there was none",
    _PER_TARGET,
)
TARGET_COOLING: Final = Metric(
    "modelrouter.target.cooling", _G, "s", "How long a rate-limited target is still left alone", _PER_TARGET
)
CALLER_RPCS: Final = Metric(
    "modelrouter.caller.rpcs",
    _C,
    "{rpc}",
    "RPCs of callers who are known, by gRPC status",
    (LABEL_PRINCIPAL, LABEL_CODE),
)
CALLER_TOKENS: Final = Metric(
    "modelrouter.caller.tokens",
    _C,
    "{token}",
    "Tokens that callers used who are known, by direction: input, output",
    (LABEL_PRINCIPAL, LABEL_DIRECTION),
)
STATE_DEGRADED: Final = Metric(
    "modelrouter.state.degraded",
    _G,
    "{process}",
    "1 while this process does without the shared state, 0 while it shares; absent where there is none",
    (),
)
STATE_OPERATIONS: Final = Metric(
    "modelrouter.state.operations",
    _C,
    "{operation}",
    "Questions to the shared state, by what came of them: ok, timeout, error, skipped",
    (LABEL_OPERATION, LABEL_OUTCOME),
)
CONFIG_RELOADS: Final = Metric(
    "modelrouter.config.reloads",
    _C,
    "{reload}",
    "How often the configuration was read again, by what came of it: taken, refused",
    (LABEL_OUTCOME,),
)
CONFIG_REFUSED: Final = Metric(
    "modelrouter.config.refused",
    _G,
    "{bool}",
    "1 while the configuration that was read last is refused and another is in use, else 0",
    (),
)
ENGINE_UP: Final = Metric(
    "modelrouter.engine.up",
    _G,
    "{bool}",
    "1 where a vLLM server told its load when it was last asked, 0 where it did not answer",
    _PER_ENGINE,
)
ENGINE_RUNNING: Final = Metric(
    "modelrouter.engine.running",
    _G,
    "{request}",
    "Requests that a vLLM server works on, by its own word: those of others included",
    _PER_ENGINE,
)
ENGINE_WAITING: Final = Metric(
    "modelrouter.engine.waiting",
    _G,
    "{request}",
    "Requests that wait inside a vLLM server, by its own word",
    _PER_ENGINE,
)
ENGINE_CACHE: Final = Metric(
    "modelrouter.engine.kv_cache_usage",
    _G,
    "1",
    "Share of a vLLM server's KV cache that running requests hold, 0 to 1, by its own word",
    _PER_ENGINE,
)
SHADOWS: Final = Metric(
    "modelrouter.shadows",
    _C,
    "{call}",
    "Copies of a route's calls that were sent to its shadow, and dropped because its places were taken",
    (LABEL_ROUTE, LABEL_OUTCOME),
)
STICKY_ALLOTMENTS: Final = Metric(
    "modelrouter.sticky.allotments",
    _C,
    "{user}",
    "Users who were given a target by a route that is sticky",
    (LABEL_ROUTE, LABEL_TARGET),
)
STICKY_MOVES: Final = Metric(
    "modelrouter.sticky.moves",
    _C,
    "{move}",
    "Times such a user was moved to another target because the own one was unwell, or back",
    (LABEL_ROUTE, LABEL_FROM, LABEL_TO),
)
BUDGET_USED: Final = Metric(
    "modelrouter.budget.used",
    _G,
    "1",
    "Share of a budget that is spent or reserved in its period, as last heard: daily, monthly",
    (LABEL_BUDGET, LABEL_PERIOD),
)
ENGINE_STATE: Final = Metric(
    "modelrouter.engine.state",
    _G,
    "{engine}",
    "1 for the state that a server run by the router is in, 0 for the other states",
    (LABEL_PROVIDER, LABEL_STATE),
)
ENGINE_RESTARTS: Final = Metric(
    "modelrouter.engine.restarts",
    _C,
    "{restart}",
    "Starts of such a server because it had died or was given up",
    (LABEL_PROVIDER,),
)
ENGINE_WAKES: Final = Metric(
    "modelrouter.engine.wakes", _C, "{wake}", "Times a call woke it, or had it started", (LABEL_PROVIDER,)
)
ENGINE_ASLEEP: Final = Metric(
    "modelrouter.engine.asleep",
    _C,
    "s",
    "How long it was asleep or stopped for want of calls",
    (LABEL_PROVIDER,),
)
ENGINE_START_DURATION: Final = Metric(
    "modelrouter.engine.start_duration",
    _G,
    "s",
    "How long its last start or waking took; absent where it was never ready",
    (LABEL_PROVIDER,),
)

METRICS: Final[tuple[Metric, ...]] = (
    *conventions.METRICS,
    *(one for one in list(globals().values()) if isinstance(one, Metric)),
)
"""Every metric there is, in the order of these files."""
