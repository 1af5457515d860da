"""Which metadata the router reads from a call, and which it sends: names, limits, and safe values.

Values are attacker's text: what does not fit is replaced or percent-encoded, never refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import ceil
from random import getrandbits
from urllib.parse import quote

from router_server.core.quotas import Standing
from router_server.core.results import Trail
from router_server.rpc.current import Rpc

Metadata = tuple[tuple[str, str], ...]

REQUEST_ID = "x-request-id"
_READ = frozenset({"traceparent", "tracestate", REQUEST_ID})
"""What observers are shown; credentials are not among it."""

_LONGEST_READ = 512
"""Characters: what the W3C asks implementations to carry of a tracestate."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def readable(metadata: Iterable[tuple[str, str | bytes]] | None) -> Mapping[str, str]:
    """Return the keys that the router reads; a repeated one is joined by commas, as HTTP says."""
    found: dict[str, str] = {}
    for key, value in metadata or ():
        if key not in _READ or not isinstance(value, str):
            continue
        found[key] = f"{found[key]},{value}" if key in found else value
    return {key: value for key, value in found.items() if len(value) <= _LONGEST_READ} if found else found


def new_rpc(metadata: Mapping[str, str]) -> Rpc:
    """Return a new RPC: under the caller's request id if that is a sane one, else under the call's."""
    # Unique, not secret. uuid4 asks the system, and every such wait lets other threads take the interpreter.
    call_id = getrandbits(128).to_bytes(16).hex()
    asked = metadata.get(REQUEST_ID)
    return Rpc(asked if asked and _REQUEST_ID.fullmatch(asked) else call_id, call_id)


def identity(rpc: Rpc) -> Metadata:
    """Return what names this RPC: it goes ahead of a stream, and behind a unary answer or an error."""
    named = ((REQUEST_ID, rpc.request_id),)
    return (*named, ("x-trace-id", rpc.trace_id)) if rpc.trace_id else named


def outcome(rpc: Rpc) -> Metadata:
    """Return the trailers: who answered, and how far the caller's limits are used."""
    answered = _answered_by(rpc.trail)
    return answered if rpc.standing is None else (*answered, *_limits(rpc.standing))


def _limits(standing: Standing) -> Metadata:
    return (
        ("x-ratelimit-limit", str(standing.limit)),
        ("x-ratelimit-remaining", str(standing.remaining)),
        ("x-ratelimit-reset", str(ceil(standing.reset))),
        ("x-ratelimit-resource", standing.resource),
    )


def _answered_by(trail: Trail | None) -> Metadata:
    if trail is None or not trail.target:
        return ()
    target = (("x-router-target", _ascii(trail.target)),)
    return (*target, ("x-fallback-model", _ascii(trail.upstream_model))) if trail.fallback else target


@lru_cache(maxsize=256)  # `quote` takes 5,000 instructions, and there are as many names as targets
def _ascii(value: str) -> str:
    """Escape what metadata may not hold: gRPC takes printable ASCII, a configuration may name anything."""
    return quote(value, safe=_PRINTABLE)
