"""``version``: which version this is."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version

from router_server.commands.exits import Exit


def run(_arguments: argparse.Namespace) -> Exit:
    """Print the version; needs no package of the server."""
    sys.stdout.write(f"router-server {version('modelrouter-grpc')}\n")
    return Exit.OK
