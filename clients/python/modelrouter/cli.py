"""The `modelrouter` command: its options, its exit codes, its words about failures.

What each subcommand does and prints is in `modelrouter.commands`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

from modelrouter import errors
from modelrouter.client import Client
from modelrouter.commands import chat, embed, models
from modelrouter.connection import DEFAULT_TARGET, TARGET_VARIABLE, VERSION, TlsConfig

API_KEY_VARIABLE: Final = "MODELROUTER_API_KEY"


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    OTHER = 1
    INVALID = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    INTERRUPTED = 6
    DEADLINE = 7
    CTRL_C = 130
    BROKEN_PIPE = 141


_MEANINGS: Final[Mapping[Exit, str]] = {
    Exit.OK: "answered",
    Exit.OTHER: "any other failure",
    Exit.INVALID: "wrong usage, or a request that the router refuses as wrong",
    Exit.UNREACHABLE: "no router answers at the target",
    Exit.NOT_FOUND: "there is no such route",
    Exit.UNAVAILABLE: "every target failed, or a limit was reached: try again later",
    Exit.INTERRUPTED: "the answer broke off; what had come was printed",
    Exit.DEADLINE: "the time ran out",
    Exit.CTRL_C: "interrupted by Ctrl-C",
    Exit.BROKEN_PIPE: "whoever read the output went away",
}

# The first that fits counts, so a class stands before its base.
_EXITS: Final[Sequence[tuple[type[errors.ModelRouterError], Exit]]] = (
    (errors.InvalidRequest, Exit.INVALID),
    (errors.CapabilityUnsupported, Exit.INVALID),
    (errors.ServerUnreachable, Exit.UNREACHABLE),
    (errors.ModelNotFound, Exit.NOT_FOUND),
    (errors.Unavailable, Exit.UNAVAILABLE),
    (errors.ResourceExhausted, Exit.UNAVAILABLE),
    (errors.StreamInterrupted, Exit.INTERRUPTED),
    (errors.DeadlineExceeded, Exit.DEADLINE),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        with _client(arguments) as client:
            arguments.run(client, arguments)
            sys.stdout.flush()
    except errors.ModelRouterError as error:
        return _fail(error, next((code for kind, code in _EXITS if isinstance(error, kind)), Exit.OTHER))
    except KeyboardInterrupt:
        return Exit.CTRL_C
    except BrokenPipeError:
        # Python flushes stdout once more on its way out, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE
    except UnicodeError:
        return _fail(ValueError("the input is not UTF-8 text; convert it first"), Exit.INVALID)
    except (ValueError, OSError) as error:
        return _fail(error, Exit.INVALID)
    return Exit.OK


def _client(arguments: argparse.Namespace) -> Client:
    return Client(
        arguments.target,
        tls=TlsConfig(ca=arguments.ca) if arguments.ca else arguments.tls,
        api_key=arguments.api_key or os.environ.get(API_KEY_VARIABLE),
        insecure_api_key=arguments.insecure_api_key,
        timeout=arguments.timeout,
    )


def _fail(error: Exception, code: Exit) -> Exit:
    sys.stderr.write(f"modelrouter: {error}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelrouter",
        description="Ask the models behind a model router.",
        epilog="exit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in _MEANINGS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"modelrouter {VERSION}")
    _add_common_options(parser, {})
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_chat(commands)
    _add_embed(commands)
    _add_command(commands, "models", models, "list the routes that --model can name")
    return parser


def _add_common_options(parser: argparse.ArgumentParser, given: Mapping[str, Any]) -> None:
    parser.add_argument(
        "--target",
        metavar="HOST:PORT",
        help=f"where the router is (default: ${TARGET_VARIABLE}, else {DEFAULT_TARGET})",
        **given,
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="for the whole call (default: the server's)",
        **given,
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"the caller's key (default: ${API_KEY_VARIABLE}, which other users of this machine cannot see)",
        **given,
    )
    parser.add_argument(
        "--insecure-api-key",
        action="store_true",
        help="send the key to another machine without TLS",
        **given,
    )
    parser.add_argument("--tls", action="store_true", help="use TLS", **given)
    parser.add_argument(
        "--ca", metavar="FILE", help="who signed the server's certificate; implies --tls", **given
    )
    parser.add_argument(
        "--model", metavar="ROUTE", help="who is asked (default: the route `chat` or `embed`)", **given
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with everything", **given)


def _add_command(commands: Any, name: str, run: Any, purpose: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=purpose, description=purpose[0].upper() + purpose[1:] + "."
    )
    # Without a default here, what stands before the command's name is not overwritten.
    _add_common_options(command, {"default": argparse.SUPPRESS})
    command.set_defaults(run=run)
    return command


def _add_chat(commands: Any) -> None:
    command = _add_command(commands, "chat", chat, "ask a model and print its answer as it comes")
    command.add_argument("prompt", nargs="*", help="the question; from stdin when there is none, or `-`")
    command.add_argument("--system", metavar="TEXT", help="an instruction that stands above the question")
    command.add_argument("--temperature", type=float, metavar="T")
    command.add_argument("--max-tokens", type=int, metavar="N", help="the longest answer")


def _add_embed(commands: Any) -> None:
    command = _add_command(commands, "embed", embed, "turn texts into vectors")
    command.add_argument(
        "texts", nargs="*", help="one vector each; the lines of stdin when there are none, or `-`"
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return seconds
