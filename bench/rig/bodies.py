"""What is sent: the same requests as gRPC messages and as OpenAI's JSON, and what upstreams answer."""

from __future__ import annotations

import base64
import json
import struct
from array import array
from typing import Any, Final

from google.protobuf.message import Message

from modelrouter.v1 import chat_pb2, embed_pb2

INPUTS: Final = 64
DIMENSIONS: Final = 1_536
TOKENS: Final = 200
ANSWER: Final = "Paris is the capital of France. " * 3
QUESTION: Final = "What is the capital of France? Answer in one sentence."

_SYSTEM: Final = "You are a helpful assistant."
_MODEL: Final = "gpt-4o-mini-2024-07-18"


def framed(message: Message) -> bytes:
    """Return a message as a gRPC body carries it: five bytes ahead, not compressed."""
    body = message.SerializeToString()
    return b"\0" + struct.pack(">I", len(body)) + body


def chat(model: str, prompt_bytes: int = 0) -> chat_pb2.ChatRequest:
    """Return a small question, or one with a prompt of about so many bytes."""
    request = chat_pb2.ChatRequest(model=model)
    system, user = _prompt(prompt_bytes)
    request.messages.add(role=chat_pb2.ROLE_SYSTEM).content.add(text=system)
    request.messages.add(role=chat_pb2.ROLE_USER).content.add(text=user)
    request.generation.max_output_tokens = 256
    request.generation.temperature = 0.7
    return request


def chat_json(model: str, *, stream: bool = False) -> bytes:
    """Return the same question in OpenAI's words."""
    system, user = _prompt(0)
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "max_tokens": 256,
        "temperature": 0.7,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def embed(model: str, *, as_bytes: bool) -> embed_pb2.EmbedRequest:
    """Return 64 short texts, whose vectors shall be bytes or floats."""
    encoding = (
        embed_pb2.EMBEDDING_ENCODING_FLOAT32_BYTES if as_bytes else embed_pb2.EMBEDDING_ENCODING_FLOAT32
    )
    return embed_pb2.EmbedRequest(
        model=model, inputs=[embed_pb2.EmbedInput(text=text) for text in _texts()], encoding=encoding
    )


def embed_json(model: str, *, as_bytes: bool) -> bytes:
    """Return the same texts in OpenAI's words."""
    encoding = "base64" if as_bytes else "float"
    return json.dumps({"model": model, "input": _texts(), "encoding_format": encoding}).encode()


def answer() -> bytes:
    """Return what an upstream answers at once."""
    message = {"role": "assistant", "content": ANSWER, "refusal": None}
    return _json(
        id="chatcmpl-1",
        object="chat.completion",
        created=1_700_000_000,
        model=_MODEL,
        choices=[{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        usage={"prompt_tokens": 20, "completion_tokens": 21, "total_tokens": 41},
    )


def event(content: str | None, *, finish: str | None = None, usage: bool = False) -> bytes:
    """Return one event of a stream as OpenAI sends it."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    counts = {"prompt_tokens": 20, "completion_tokens": TOKENS, "total_tokens": 20 + TOKENS}
    body = _json(
        id="chatcmpl-1",
        object="chat.completion.chunk",
        created=1_700_000_000,
        model=_MODEL,
        choices=[] if usage else [choice],
        usage=counts if usage else None,
    )
    return b"data: " + body + b"\n\n"


def end_of_stream() -> bytes:
    """Return what follows the last token."""
    return event(None, finish="stop") + event(None, usage=True) + b"data: [DONE]\n\n"


def stream(tokens: int = TOKENS) -> bytes:
    """Return a whole stream of so many tokens."""
    return b"".join(map(event, words(tokens))) + end_of_stream()


def words(tokens: int = TOKENS) -> list[str]:
    """Return the texts of so many tokens."""
    return [f" word{number}" for number in range(tokens)]


def vectors() -> bytes:
    """Return 64 vectors of 1,536 numbers in base64, as an upstream sends them."""
    row = base64.b64encode(array("f", (i / DIMENSIONS for i in range(DIMENSIONS))).tobytes()).decode()
    data = [{"object": "embedding", "index": index, "embedding": row} for index in range(INPUTS)]
    return _json(
        object="list",
        data=data,
        model="text-embedding-3-small",
        usage={"prompt_tokens": 640, "total_tokens": 640},
    )


def float_vectors() -> bytes:
    """Return the same vectors as lists of numbers."""
    row = [i / DIMENSIONS for i in range(DIMENSIONS)]
    data = [{"object": "embedding", "index": index, "embedding": row} for index in range(INPUTS)]
    return _json(
        object="list",
        data=data,
        model="text-embedding-3-small",
        usage={"prompt_tokens": 640, "total_tokens": 640},
    )


def matrix() -> bytes:
    """Return the vectors' bytes alone, as large as the answer's field."""
    return bytes(INPUTS * DIMENSIONS * 4)


def _prompt(size: int) -> tuple[str, str]:
    words = "The quick brown fox jumps over the lazy dog. "
    padding = (words * (size // len(words) + 1))[:size]
    return _SYSTEM, padding + QUESTION


def _texts() -> list[str]:
    return [f"Input number {number} of the batch that is embedded." for number in range(INPUTS)]


def _json(**body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
