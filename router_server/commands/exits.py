"""How a command ends: the codes, and what each means."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    CONFIGURATION = 1
    USAGE = 2
    FAILED = 3
    NOT_READY = 4
    CTRL_C = 130


MEANINGS: Final[Mapping[Exit, str]] = {
    Exit.OK: "done; of serve: stopped as told",
    Exit.CONFIGURATION: "the configuration has mistakes, each of which is named",
    Exit.USAGE: "wrong usage",
    Exit.FAILED: "the server cannot start, or does not answer",
    Exit.NOT_READY: "status: the server answers, but takes no calls; check-health: what is required is down",
    Exit.CTRL_C: "interrupted by Ctrl-C",
}
