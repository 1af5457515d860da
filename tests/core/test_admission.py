"""The door before the router, whichever edge a call came by."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from router_server.core.admission import Admission, Limits
from router_server.core.errors import Reason, RouterError
from router_server.core.principal import Principal, Quota
from router_server.core.results import (
    ChatResult,
    EmbedResult,
    Heartbeat,
    Invocation,
    ModelInfo,
    StreamEvent,
    Trail,
)
from router_server.core.types import (
    Answer,
    ChatRequest,
    EmbedRequest,
    FinishReason,
    Message,
    Role,
    Text,
    Usage,
    Vectors,
)
from router_server.state.opening import open_state
from router_server.state.windows import SharedQuotas

CHAT = ChatRequest("alias", (Message(Role.USER, (Text("hi"),)),), user_id="u")
TRAIL = Trail("chat", "t", "p", "m")
REPLY = Answer(Message(Role.ASSISTANT, (Text("hello"),)), FinishReason.STOP, None)


class Inside:
    """What is behind the door: it counts who came in."""

    def __init__(self) -> None:
        self.calls = 0

    async def chat(self, request: ChatRequest, invocation: Invocation) -> ChatResult:
        self.calls += 1
        return ChatResult(invocation.call_id, request.model, REPLY, Usage(), TRAIL)

    async def stream(self, request: ChatRequest, invocation: Invocation) -> AsyncGenerator[StreamEvent, None]:
        del request, invocation
        self.calls += 1
        yield Heartbeat()

    async def embed(self, request: EmbedRequest, invocation: Invocation) -> EmbedResult:
        self.calls += 1
        return EmbedResult(invocation.call_id, request.model, Vectors(1, b""), Usage(), TRAIL)

    def models(self) -> tuple[ModelInfo, ...]:
        return ()


def door(inside: Inside, limits: Limits | None = None, *, authenticated: bool = True) -> Admission:
    quotas = SharedQuotas(open_state(None))
    return Admission(inside, lambda _name: "chat", quotas, limits or Limits(), authenticated=authenticated)


async def ask_all(admission: Admission, invocation: Invocation) -> list[Reason | None]:
    """Return the reasons for which the three sorts of calls were refused, None where one was not."""
    return [None if one is None else one.reason for one in await refusals(admission, invocation)]


async def refusals(admission: Admission, invocation: Invocation) -> list[RouterError | None]:

    async def stream() -> None:
        async for _event in admission.stream(CHAT, invocation):
            pass

    errors: list[RouterError | None] = []
    for call in (
        admission.chat(CHAT, invocation),
        stream(),
        admission.embed(EmbedRequest("x", ("a",)), invocation),
    ):
        try:
            await call
            errors.append(None)
        except RouterError as error:
            errors.append(error)
    return errors


async def test_an_edge_that_asks_nobody_who_calls_lets_nobody_in() -> None:
    inside = Inside()
    errors = await refusals(door(inside), Invocation("c"))
    assert [error is not None and error.reason for error in errors] == [Reason.UNAUTHENTICATED] * 3
    assert [error is not None and error.metadata for error in errors] == [{"problem": "missing"}] * 3
    assert inside.calls == 0


@pytest.mark.parametrize(("routes", "refused"), [(("chat",), None), (("alias",), Reason.PERMISSION_DENIED)])
async def test_it_is_the_routes_own_name_that_counts(routes: tuple[str, ...], refused: Reason | None) -> None:
    inside = Inside()
    invocation = Invocation("c", principal=Principal("key", "a", routes))
    assert await ask_all(door(inside), invocation) == [refused] * 3
    assert inside.calls == (0 if refused else 3)


async def test_where_nobody_has_to_be_known_users_and_routes_are_limited_all_the_same() -> None:
    inside = Inside()
    limits = Limits(user=Quota(max_concurrency=1), routes={"chat": Quota(tokens_per_minute=10)})
    admission = door(inside, limits, authenticated=False)
    long = ChatRequest("chat", (Message(Role.USER, (Text("x" * 100),)),))
    with pytest.raises(RouterError) as raised:
        await admission.chat(long, Invocation("c"))
    assert raised.value.metadata == {"resource": "route tokens_per_minute"}
    assert await ask_all(admission, Invocation("c")) == [None] * 3
    assert inside.calls == 3
