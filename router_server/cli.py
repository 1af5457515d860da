"""The `router-server` command: its options, its exit codes, and what it says where a package is missing.

What each subcommand does and prints is in `router_server.commands`. Imports none of them before it is asked
for, so that `--help` answers at once, and without the packages of the server.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from router_server.commands.exits import MEANINGS, Exit
from router_server.commands.keys_options import add_keys

_DISTRIBUTION: Final = "modelrouter-grpc"
_DEFAULT_TARGET: Final = "127.0.0.1:50051"

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    # What gRPC's core logs by itself stands beside our own message and says less; who wants it sets this.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    arguments = _parser().parse_args(argv)
    try:
        return _command(arguments.module)(arguments)
    except KeyboardInterrupt:
        return Exit.CTRL_C
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == __package__:
            raise
        sys.stderr.write(
            f"router-server: the package {package} is not installed; "
            f"run: pip install '{_DISTRIBUTION}[server]'\n"
        )
        return Exit.FAILED


def _command(module: str) -> Command:
    # What is imported stays, so the collector needs to look at it neither now nor later: 0.1 s of a start.
    gc.disable()
    try:
        command: Command = importlib.import_module(f"router_server.commands.{module}").run
    finally:
        gc.freeze()
        gc.enable()
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="router-server",
        description="Serve language models behind one gRPC service.",
        epilog="exit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in MEANINGS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_check_config(commands)
    _add_status(commands)
    _add_check_health(commands)
    _add_shares(commands)
    add_keys(_add_command(commands, "keys", "make, list, replace and revoke the API keys of callers"))
    _add_command(commands, "version", "print the version")
    return parser


def _add_serve(commands: Any) -> None:
    command = _add_command(commands, "serve", "serve until SIGTERM or Ctrl-C; a second one ends at once")
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="what to serve (default: what VLLM_BASE_URL, OPENAI_API_KEY and GEMINI_API_KEY allow, "
        "else the built-in model)",
    )
    command.add_argument(
        "--listen", metavar="HOST:PORT", help="address of the service, over the configuration's"
    )
    command.add_argument(
        "--http-listen", metavar="HOST:PORT", help="address of /metrics and /healthz, likewise"
    )


def _add_check_config(commands: Any) -> None:
    command = _add_command(commands, "check-config", "name every mistake of a configuration file")
    command.add_argument("file", type=Path, metavar="FILE")


def _add_status(commands: Any) -> None:
    command = _add_command(commands, "status", "print how a running server, its routes and its targets are")
    command.add_argument(
        "--target", default=_DEFAULT_TARGET, metavar="HOST:PORT", help="the server (default: %(default)s)"
    )
    command.add_argument("--ca", type=Path, metavar="FILE", help="who signed its certificate; asks with TLS")
    command.add_argument(
        "--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="of each question (default: 5)"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_check_health(commands: Any) -> None:
    command = _add_command(commands, "check-health", "ask every provider once whether it is well")
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="whom to ask (default: what the environment allows)"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_shares(commands: Any) -> None:
    command = _add_command(commands, "shares", "show or change how the users of a route are allotted")
    command.add_argument("route", metavar="ROUTE")
    command.add_argument("shares", nargs="*", metavar="TARGET=SHARE", help="what to allot by")
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="what the replicas serve")
    command.add_argument("--reset", action="store_true", help="allot as the configuration says again")


def _add_command(commands: Any, name: str, purpose: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=purpose, description=purpose[0].upper() + purpose[1:] + "."
    )
    command.set_defaults(module=name.replace("-", "_"))
    return command


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return seconds
