"""What a metric is, and the bounds into which histograms sort what they are given.

Refuses to know which metrics there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Instrument(Enum):
    """What kind of series a metric is."""

    COUNTER = auto()
    HISTOGRAM = auto()
    GAUGE = auto()


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what it is called, what it counts, what tells its series apart.

    ``labels`` are those it may have; ``buckets`` are upper bounds, for histograms.
    """

    name: str
    instrument: Instrument
    unit: str
    description: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


SECONDS: Final = tuple(0.01 * 2**step for step in range(17))
"""10 ms to 655 s: the boundaries the GenAI conventions ask for, and three more, since a stream may run
for 600 s where the convention ends at 82."""

TOKEN_SECONDS: Final = (0.001, 0.0025, 0.005, *SECONDS[:11])
"""1 ms to 10 s: those of the conventions begin at 10 ms, where a fast local model is already done."""

QUEUE_SECONDS: Final = (0.001, 0.005, *SECONDS[:11])
"""1 ms to 10 s: a queue gives up after ``queue_timeout``, 5 s unless configured."""

SECONDS_IN_ENGINE: Final = (0.0005, 0.001, 0.0025, 0.005, *SECONDS)
"""0.5 ms to 655 s: an engine that is not busy begins at once, and may then decode for minutes."""

RATES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
"""Tokens a second of one answer: a busy CPU to a speculating GPU."""

TOKENS: Final = tuple(4.0**step for step in range(14))
"""1 to 67 million, as the GenAI conventions ask for."""
