"""What the subcommands of `modelrouter` do and print: answers to stdout, notices to stderr.

Refuses to know exit codes: failures are raised.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from modelrouter.answers import Answer, FinishReason
from modelrouter.client import Client
from modelrouter.messages import system, user
from modelrouter.v1 import chat_pb2, common_pb2

_SHOWN_VALUES = 4
_SHOWN_CHARACTERS = 24
_COUNTS = frozenset(
    field.name
    for field in common_pb2.Usage.DESCRIPTOR.fields
    if field.cpp_type == FieldDescriptor.CPPTYPE_INT64
)


def chat(client: Client, arguments: argparse.Namespace) -> None:
    """Ask a model and print its answer as it comes, or with --json once it is whole."""
    prompt = _prompt(arguments.prompt)
    stream = client.stream_chat(
        [*([system(arguments.system)] if arguments.system else []), user(prompt)],
        model=arguments.model,
        # What went into a pipe cannot be taken back; a terminal's reader can be told.
        on_reset=_announce if sys.stdout.isatty() and not arguments.json else None,
        temperature=arguments.temperature,
        max_output_tokens=arguments.max_tokens,
    )
    if arguments.json:
        _print_json(_chat_json(stream.result()))
        return
    with stream:
        _print_pieces(stream)
        _remark(stream.answer)


def embed(client: Client, arguments: argparse.Namespace) -> None:
    """Turn texts into vectors and print their shape and first values, or with --json all of them."""
    texts = _texts(arguments.texts)
    embeddings = client.embed(texts, model=arguments.model)
    if arguments.json:
        _print_json(
            {
                "model": embeddings.raw.model,
                "dimensions": embeddings.dimensions,
                "vectors": [[_shortest(value) for value in vector] for vector in embeddings],
                "usage": _plain(embeddings.usage),
                "route": _plain(embeddings.route),
            }
        )
        return
    sys.stdout.write(f"{len(texts)} x {embeddings.dimensions} float32 from {embeddings.route.target}\n")
    for text, vector in zip(texts, embeddings, strict=True):
        values = " ".join(f"{value:8.4f}" for value in vector[:_SHOWN_VALUES])
        more = " ..." if embeddings.dimensions > _SHOWN_VALUES else ""
        sys.stdout.write(f"{_shortened(text):<{_SHOWN_CHARACTERS}} {values}{more}\n")


def models(client: Client, arguments: argparse.Namespace) -> None:
    """List the routes: what each can do, its targets in order, and whether it is available."""
    if arguments.model:
        raise ValueError("`models` lists every route; leave --model away")
    routes = client.models()
    if arguments.json:
        _print_json({"models": [_plain(route.raw) for route in routes]})
        return
    _print_table(
        ("ROUTE", "OPERATIONS", "AVAILABLE", "TARGETS"),
        [
            (
                route.name,
                ",".join(route.operations),
                "yes" if route.available else "no",
                ", ".join(route.targets),
            )
            for route in routes
        ],
    )


def _prompt(words: list[str]) -> str:
    prompt = _stdin("the question") if words in ([], ["-"]) else " ".join(words)
    if not prompt.strip():
        raise ValueError("there is no question; give one as an argument or on stdin")
    return prompt


def _texts(texts: list[str]) -> list[str]:
    if texts not in ([], ["-"]):
        return texts
    lines = [line for line in _stdin("one text per line").splitlines() if line.strip()]
    if not lines:
        raise ValueError("there is nothing to embed; give texts as arguments, or as lines on stdin")
    return lines


def _stdin(what: str) -> str:
    if sys.stdin.isatty():
        sys.stderr.write(f"Type {what}, then Ctrl-D on a line of its own.\n")
    return sys.stdin.read()


def _print_pieces(pieces: Iterable[str]) -> None:
    last = ""
    try:
        for last in pieces:
            sys.stdout.write(last)
            sys.stdout.flush()
    finally:
        # Also after an interruption: the message about it starts on a line of its own.
        if last and not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


def _announce(reset: chat_pb2.StreamReset) -> None:
    sys.stdout.write("\n")
    sys.stdout.flush()
    sys.stderr.write(f"[the answer broke off ({reset.reason}); {reset.route.target} starts it over]\n")


def _remark(answer: Answer) -> None:
    if answer.refusal:
        sys.stderr.write(f"[the model declined: {answer.refusal}]\n")
    if answer.finish_reason is FinishReason.LENGTH:
        sys.stderr.write("[the answer was cut off at its token limit; --max-tokens sets it]\n")
    if answer.finish_reason is FinishReason.CONTENT_FILTER:
        sys.stderr.write("[the provider's content filter cut the answer off]\n")


def _chat_json(answer: Answer) -> dict[str, Any]:
    return {
        "text": answer.text,
        **({"reasoning": answer.reasoning} if answer.reasoning else {}),
        **({"refusal": answer.refusal} if answer.refusal else {}),
        "finish_reason": answer.finish_reason,
        "id": answer.raw.id,
        "model": answer.raw.model,
        "usage": _plain(answer.usage),
        "route": _plain(answer.route),
    }


def _plain(message: Message) -> dict[str, Any]:
    """Return protobuf's own JSON form, with numbers where it writes 64-bit integers as strings."""
    plain: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {name: _unquoted(name, value) for name, value in plain.items()}


def _unquoted(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_unquoted(name, each) for each in value]
    if isinstance(value, dict):
        return {inner: _unquoted(inner, each) for inner, each in value.items()}
    return int(value) if name in _COUNTS else value


def _shortest(value: float) -> float:
    """Return the number with the fewest digits that is the same float32."""
    return float(f"{value:.9g}")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 3]}..."


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(value, ensure_ascii=False)}\n")


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = [titles, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    for row in table:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")
