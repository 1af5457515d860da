"""What callers who are known did, counted for each: the number of those that are told apart is bounded.

Names of API keys come from the configuration, but those in tokens are as many as an identity provider has.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.metrics import Meter

from router_server.core.observer import RpcRecord
from router_server.telemetry import instruments, semconv
from router_server.telemetry.tally import Tally

MOST: Final = 200
OTHER: Final = "other"


class Callers:
    """Counts the RPCs and the tokens of callers."""

    def __init__(self, meter: Meter) -> None:
        self._rpcs = Tally(meter, instruments.CALLER_RPCS)
        self._tokens = Tally(meter, instruments.CALLER_TOKENS)
        self._known: set[str] = set()

    def add(self, record: RpcRecord) -> None:
        """Count an RPC whose caller is known."""
        name = self._name(record.principal)
        self._rpcs.add(1, (name, record.code))
        # An answer that is given again was used once, by whose call it was.
        usage = None if record.call is None or record.call.reused else record.call.usage
        if usage is not None:
            self._tokens.add(usage.input_tokens, (name, semconv.INPUT))
            self._tokens.add(usage.output_tokens, (name, semconv.OUTPUT))

    def _name(self, principal: str) -> str:
        if principal not in self._known:
            if len(self._known) >= MOST:
                return OTHER
            self._known.add(principal)
        return principal
