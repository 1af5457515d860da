"""What to begin with: bytes that go far, whole and in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.e2e.serving import answer, pieces

_TOOL: Final = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
_LOGPROBS: Final = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}]}
_GEMINI: Final[dict[str, Any]] = {
    "candidates": [
        {
            "content": {
                "parts": [
                    {"text": "a", "thought": True, "thoughtSignature": "c2ln"},
                    {"functionCall": {"name": "f", "args": {"a": [1, {}]}}},
                ]
            },
            "finishReason": "STOP",
        }
    ],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2},
    "modelVersion": "m",
}
_CHUNKS: Final = [
    *pieces("Hello", " you"),
    {"choices": [{"index": 0, "delta": {"tool_calls": [_TOOL]}, "logprobs": _LOGPROBS}]},
    {"error": {"code": "429", "type": "rate_limit_exceeded", "message": "m"}},
    _GEMINI,
]
_FILE: Final = """\
providers:
  o: {kind: openai, api_key: "${KEY}", base_url: "http://localhost:1/v1", timeouts: {connect: 5s}}
targets:
  t: {provider: o, model: x, price: {input: 0.1, output: 0.2}}
routes:
  r: {targets: [t], stream_recovery: restart}
server: {listen: "127.0.0.1:0", deadline: {unary: 1m}}
"""

SEEDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "sse": (
        b"\x02data: a\n\ndata:b\r\n\r\n: c\revent: d\n\n",
        b"\x00\xef\xbb\xbfdata\n\n" + b"data: x\n" * 40,
    ),
    "streams": tuple(b"data: " + json.dumps(one).encode() + b"\n\n" for one in _CHUNKS),
    "answers": (
        json.dumps(answer()).encode(),
        json.dumps(_GEMINI).encode(),
        b'{"data": [{"index": 0, "embedding": [0.5, 1e3]}], "usage": {"prompt_tokens": 1}}',
        b'{"embeddings": [{"values": [0.5]}]}',
        b'[{"error": {"code": 400, "status": "X", "details": [{"retryDelay": "1.5s"}]}}]',
    ),
    "config": (_FILE.encode(), b"a: &x [*x]\n", b"? {a: 1}\n: !!python/object x\n", b"%YAML 1.1\n---\n"),
}
