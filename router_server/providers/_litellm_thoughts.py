"""The signed blocks of a model's thinking: Anthropic's models want them back after a tool call, unchanged.

A caller gets them as the opaque state of the reasoning, and echoes them with it. Pure. Refuses to know what
is in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.opaque import seal, unseal
from router_server.core.types import Answer, Message, Reasoning

KIND_NAME: Final = "litellm"
"""Who seals the blocks; also the name of the kind."""

Block = Mapping[str, Any]


class Thoughts:
    """The blocks of one answer as they come in; ``model`` is the one that was asked."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._blocks: dict[int, dict[str, Any]] = {}

    def take(self, pieces: Iterable[Block]) -> bytes:
        """Add ``pieces``; return all blocks so far, sealed, where a piece completes one, else nothing."""
        complete = False
        for piece in pieces:
            at = piece.get("index", len(self._blocks))
            block = self._blocks.setdefault(at, {"type": piece.get("type")})
            if "thinking" in piece:
                block["thinking"] = block.get("thinking", "") + piece["thinking"]
            kept = {name: piece[name] for name in ("signature", "data") if piece.get(name)}
            block.update(kept)
            complete = complete or bool(kept)
        if not complete:
            return b""
        return seal(KIND_NAME, self._model, json.dumps(list(self._blocks.values())).encode())


def with_state(answer: Answer, pieces: Sequence[Block], model: str) -> Answer:
    """Return a whole answer with its blocks, where it has any, on its reasoning."""
    state = Thoughts(model).take(pieces)
    if not state:
        return answer
    parts = answer.message.content
    shown = next((part for part in parts if isinstance(part, Reasoning)), Reasoning(""))
    others = tuple(part for part in parts if part is not shown)
    message = Message(answer.message.role, (Reasoning(shown.text, state), *others))
    return Answer(message, answer.finish_reason, answer.usage, answer.reported_model, answer.logprobs)


def blocks_of(message: Message, model: str) -> list[Block]:
    """Return the blocks that a turn of ``model`` came with; none where another kind or model sealed them.

    Raises:
        UpstreamError: INVALID_REQUEST, ``opaque_state_tampered``.
    """
    envelopes = [unseal(part.opaque_state) for part in message.content if isinstance(part, Reasoning)]
    blocks: list[Block] = []
    for envelope in envelopes:
        if envelope is None or (envelope.kind, envelope.model) != (KIND_NAME, model):
            continue
        try:
            found = json.loads(envelope.payload)
        except ValueError:
            raise UpstreamError(Outcome.INVALID_REQUEST, "opaque_state_tampered") from None
        if not isinstance(found, list) or not all(isinstance(block, dict) for block in found):
            raise UpstreamError(Outcome.INVALID_REQUEST, "opaque_state_tampered")
        blocks += found
    return blocks
