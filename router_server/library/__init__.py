"""The router inside one's own process, without a server: ``from router_server import Router``."""

from router_server.library.blocking import BlockingRouter
from router_server.library.conversation import Reply
from router_server.library.lifetime import NotRunningError
from router_server.library.router import Router
from router_server.library.stats import Stats, TargetStats

__all__ = ["BlockingRouter", "NotRunningError", "Reply", "Router", "Stats", "TargetStats"]
