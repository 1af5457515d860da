"""One embedding call on one target: batches that the provider takes, and the culprit where one is refused.

All or nothing: every input has its vector, or the call has an error that names the input.
"""

from __future__ import annotations

from collections.abc import Sequence

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Provider, UpstreamEmbed
from router_server.core.record import replace
from router_server.core.types import Embeddings, EmbedRequest, Usage, Vectors

_INPUT_REFUSED = frozenset({Outcome.INVALID_REQUEST, Outcome.CONTEXT_LENGTH, Outcome.CONTENT_FILTER})


async def embed_all(provider: Provider, call: UpstreamEmbed) -> Embeddings:
    """Return one vector per input, in order.

    Raises:
        UpstreamError: with ``input_index`` where one input alone is refused; MALFORMED where the upstream
            gives another number of vectors, or of other dimensions, than it was asked for.
    """
    size = provider.max_embed_batch
    inputs = call.request.inputs
    pieces: list[Embeddings] = []
    for start in range(0, len(inputs), size):
        pieces.extend(await _batch(provider, call, start, inputs[start : start + size]))
    return _joined(pieces, len(inputs))


async def _batch(
    provider: Provider, call: UpstreamEmbed, start: int, inputs: Sequence[str]
) -> list[Embeddings]:
    try:
        return [await _ask(provider, call, inputs)]
    except UpstreamError as error:
        if error.outcome not in _INPUT_REFUSED:
            raise
        if len(inputs) == 1:
            raise _naming(error, start) from None
    return [await _one(provider, call, start + i, text) for i, text in enumerate(inputs)]


async def _one(provider: Provider, call: UpstreamEmbed, index: int, text: str) -> Embeddings:
    try:
        return await _ask(provider, call, (text,))
    except UpstreamError as error:
        if error.outcome not in _INPUT_REFUSED:
            raise
        raise _naming(error, index) from None


async def _ask(provider: Provider, call: UpstreamEmbed, inputs: Sequence[str]) -> Embeddings:
    request: EmbedRequest = replace(call.request, inputs=tuple(inputs))
    answer = await provider.embed(replace(call, request=request))
    if answer.vectors.rows != len(inputs):
        raise UpstreamError(Outcome.MALFORMED, "wrong_number_of_vectors")
    return answer


def _naming(error: UpstreamError, index: int) -> UpstreamError:
    return UpstreamError(error.outcome, error.reason, status=error.status, input_index=index)


def _joined(pieces: Sequence[Embeddings], count: int) -> Embeddings:
    dimensions = {piece.vectors.dimensions for piece in pieces}
    if len(dimensions) != 1:
        raise UpstreamError(Outcome.MALFORMED, "mixed_dimensions")
    vectors = Vectors(dimensions.pop(), b"".join(piece.vectors.data for piece in pieces))
    if vectors.rows != count:
        raise UpstreamError(Outcome.MALFORMED, "wrong_number_of_vectors")
    usages = [piece.usage for piece in pieces if piece.usage is not None]
    usage = sum(usages, Usage()) if len(usages) == len(pieces) else None
    return Embeddings(vectors, usage, pieces[0].reported_model)
