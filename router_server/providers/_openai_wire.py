"""Chat completions and embeddings as OpenAI speaks them, over one `HttpClient`.

Providers hold one and hand their calls to it. Refuses to know where the server is and how it is checked.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Take, UpstreamChat, UpstreamEmbed
from router_server.core.types import Answer, Embeddings, StreamItem
from router_server.providers._exchange import Exchange
from router_server.providers._http import MAX_ERROR_BYTES, HttpClient
from router_server.providers._openai_wire_answer import decode, read_answer
from router_server.providers._openai_wire_embed import embed_body, read_embeddings
from router_server.providers._openai_wire_request import Dialect, chat_body
from router_server.providers._openai_wire_stream import StreamedAnswer
from router_server.providers._sse import EventParser


class OpenAIWire:
    """The calls of one provider; the methods are those of `Provider`."""

    def __init__(self, http: HttpClient, dialect: Dialect) -> None:
        self._http = http
        self._dialect = dialect

    async def chat(self, call: UpstreamChat) -> Answer:
        """Return the whole answer."""
        body = chat_body(call, self._dialect, stream=False)
        return read_answer(
            await self._http.post("/chat/completions", body, _headers(call), call.connect_timeout)
        )

    async def stream(self, call: UpstreamChat) -> AsyncGenerator[Sequence[StreamItem], Take | None]:
        """Yield the answer as it arrives, one yield for each read that completed an event.

        Comments are no events: a server that only keeps its connection alive is silent.
        """
        exchange = await self._open_stream(call)
        try:
            if exchange.is_json:
                raise await _not_a_stream(exchange)
            parser, answer = EventParser(), StreamedAnswer()
            while not answer.done and (items := await _read(exchange, parser, answer)) is not None:
                take = yield items
                while take and await exchange.pour(_onwards(parser, answer, take)) and not answer.done:
                    take = yield ()
            if answer.done:
                await exchange.read_farewell()
            elif events := parser.close():
                yield answer.take(events)
            answer.end()
        finally:
            exchange.close()

    async def _open_stream(self, call: UpstreamChat) -> Exchange:
        # Apart from `stream`, whose frame would keep the body, a whole prompt, as long as the stream lasts.
        body = chat_body(call, self._dialect, stream=True)
        return await self._http.open("/chat/completions", body, _headers(call), call.connect_timeout)

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        """Return one vector per input, in order."""
        # No Idempotency-Key: one call may be several batches, and asking twice changes nothing here.
        body = embed_body(call)
        answer = await self._http.post("/embeddings", body, call.headers, call.connect_timeout)
        return read_embeddings(answer, len(call.request.inputs), call.request.dimensions)


def _onwards(parser: EventParser, answer: StreamedAnswer, take: Take) -> Callable[[bytes], bool]:
    """Return what makes of bytes what ``take`` takes."""

    def onwards(data: bytes) -> bool:
        if parser.is_between_events and (delta := answer.take_alone(data)) is not None:
            return take((delta,))
        events = parser.feed(data)
        return not events or (take(answer.take(events)) and not answer.done)

    return onwards


async def _read(
    exchange: Exchange, parser: EventParser, answer: StreamedAnswer
) -> Sequence[StreamItem] | None:
    """Return what the next events bring, None at the end; what breaks off after the finish has ended."""
    while True:
        try:
            data = await exchange.read()
        except UpstreamError:
            if not answer.finished:
                raise
            return None
        if not data:
            return None
        if events := parser.feed(data):
            return answer.take(events)


async def _not_a_stream(exchange: Exchange) -> UpstreamError:
    """Return what it means that a stream was asked for and one JSON document came."""
    try:
        decode(await exchange.read_some(MAX_ERROR_BYTES))
    except UpstreamError as error:
        return error
    return UpstreamError(Outcome.MALFORMED, "not_a_stream")


def _headers(call: UpstreamChat) -> Mapping[str, str]:
    key = call.request.idempotency_key
    # What continues a broken answer is another request, and must not be answered with the first one's.
    if not key or call.continuation is not None:
        return call.headers
    if not (key.isascii() and key.isprintable()):
        raise UpstreamError(Outcome.INVALID_REQUEST, "idempotency_key_refused")
    return {**call.headers, "Idempotency-Key": key}
