"""The options of ``keys``. Imports nothing that `--help` can do without."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_keys(command: argparse.ArgumentParser) -> None:
    """Add the subcommands and their options."""
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = _action(actions, "add", "make a key, and print it once")
    _named(add)
    add.add_argument("--routes", nargs="+", metavar="ROUTE", help="that it may name (default: every route)")
    add.add_argument("--requests-per-minute", type=int, metavar="N", help="calls in any 60 seconds")
    add.add_argument("--tokens-per-minute", type=int, metavar="N", help="tokens in any 60 seconds")
    add.add_argument("--max-concurrency", type=int, metavar="N", help="calls at once")
    add.add_argument("--daily-usd", type=float, metavar="USD", help="that it may spend in a day (UTC)")
    add.add_argument("--monthly-usd", type=float, metavar="USD", help="that it may spend in a month (UTC)")
    add.add_argument("--expires", metavar="WHEN", help="90d, or 2027-01-31T00:00:00Z (default: never)")
    add.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    listing = _action(actions, "list", "print who has a key, and what it may do")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    _named(_action(actions, "revoke", "make every key of a name worthless"))
    rotate = _action(actions, "rotate", "make a new key for a name, and print it once")
    _named(rotate)
    rotate.add_argument(
        "--overlap",
        default="24h",
        metavar="DURATION",
        help="how long the key before it stays good (default: %(default)s); 0 ends it at once",
    )


def _action(actions: Any, name: str, purpose: str) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=purpose, description=purpose[0].upper() + purpose[1:] + "."
    )
    place = action.add_mutually_exclusive_group(required=True)
    place.add_argument("--file", type=Path, metavar="FILE", help="the file of keys")
    place.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the router's configuration, whose auth.api_keys says where keys are kept: a file, or Redis",
    )
    return action


def _named(action: argparse.ArgumentParser) -> None:
    action.add_argument("name", metavar="NAME", help="who the key belongs to")
