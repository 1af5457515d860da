"""Which event loop the server's processes run: uvloop where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

new_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    import uvloop
except ModuleNotFoundError:  # there is none for this platform
    new_loop = asyncio.new_event_loop
else:
    new_loop = uvloop.new_event_loop
