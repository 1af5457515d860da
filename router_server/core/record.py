"""Dataclasses of which a call makes dozens: frozen for whoever checks types, plain slots for the interpreter.

A frozen dataclass stores each field through ``object.__setattr__``. One of ten fields takes 3 to 10 times as
long to make as a plain one (Python 3.11), and a call makes about 30 of them. So here only mypy holds that
nobody changes a record. What is made once, such as settings, stays a frozen dataclass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(*, frozen: bool, slots: bool, eq: bool = True) -> Callable[[type], type]:
        """Decorate a class as ``dataclass(frozen=True)`` does, equality and hash included; see above."""
        return dataclasses.dataclass(slots=slots, eq=eq, unsafe_hash=eq and frozen)


__all__ = ["record"]
