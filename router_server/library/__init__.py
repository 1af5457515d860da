"""The router inside one's own process, without a server: ``from router_server import Router``."""

from router_server.library.blocking import BlockingRouter
from router_server.library.router import Reply, Router
from router_server.library.stats import Stats, TargetStats

__all__ = ["BlockingRouter", "Reply", "Router", "Stats", "TargetStats"]
