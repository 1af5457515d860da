"""Tokens of an identity provider through the whole server: the good, the forged, and keys that change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from grpc import aio

from tests.auth.issuer import AUDIENCE, ISSUER, Issuer, SigningKey, issuing
from tests.auth.test_tokens import forged, pem
from tests.e2e.serving import Served, chat, failure_of, serving
from tests.e2e.test_auth import bearer, refused, with_auth

KEY = SigningKey("k1", "RS256")


@asynccontextmanager
async def accepting(*keys: SigningKey, **changes: Any) -> AsyncIterator[tuple[Served, Issuer]]:
    async with issuing(*keys) as issuer:
        settings = {"jwks": issuer.url, "issuer": ISSUER, "audience": AUDIENCE, **changes}
        async with serving(with_auth(jwt=settings)) as served:
            yield served, issuer


async def is_let_in(served: Served, token: str) -> bool:
    try:
        await served.stub.Chat(chat(), metadata=bearer(token))
    except aio.AioRpcError as error:
        failure = failure_of(error)
        assert (failure.reason, failure.pushback) == ("UNAUTHENTICATED", None)
        return False
    return True


def bad_tokens() -> dict[str, str]:
    now = int(time.time())
    return {
        "no signature": jwt.encode({"sub": "alice"}, "", "none", headers={"kid": "k1"}),
        "the public key as a secret": forged({"alg": "HS256", "kid": "k1"}, pem(KEY)),
        "another algorithm than the key's": forged({"alg": "PS256", "kid": "k1"}, pem(KEY)),
        "nobody's key": SigningKey("k2", "RS256").token(),
        "another key under that id": SigningKey("k1", "RS256").token(),
        "too old": KEY.token(exp=now - 120),
        "too young": KEY.token(nbf=now + 120),
        "another audience": KEY.token(aud=["other", "another"]),
        "another issuer": KEY.token(iss="https://evil.example"),
        "no end": KEY.token(exp=None),
        "no name": KEY.token(sub=None),
        "an id that is no text": forged({"alg": "RS256", "kid": ["k1"]}, pem(KEY)),
    }


async def test_every_bad_token_is_refused_and_said_nothing_of() -> None:
    async with accepting(KEY) as (served, _issuer):
        for what, token in bad_tokens().items():
            failure = await refused(served, *bearer(token))
            assert (what, failure.code) == (what, "UNAUTHENTICATED")
            problem = "expired" if what == "too old" else "invalid"
            assert (what, failure.metadata) == (what, {"problem": problem})
        assert await is_let_in(served, KEY.token())


async def test_good_tokens_within_the_leeway_and_for_several_audiences() -> None:
    now = int(time.time())
    async with accepting(KEY, leeway="30s") as (served, _issuer):
        for token in (
            KEY.token(aud=["other", AUDIENCE]),
            KEY.token(exp=now - 5),
            KEY.token(nbf=now + 15),
            KEY.token(iat=now + 15),
        ):
            assert await is_let_in(served, token)


async def test_a_key_that_is_withdrawn_is_refused_while_the_server_runs() -> None:
    old, new = SigningKey("old"), SigningKey("new")
    async with accepting(old, refresh="100ms") as (served, issuer):
        assert await is_let_in(served, old.token())
        issuer.keys = [new]
        async with asyncio.timeout(20):
            while await is_let_in(served, old.token()):
                pass
        assert await is_let_in(served, new.token())


@pytest.mark.parametrize("metadata", [(), (("x-api-key", KEY.token()),), (("authorization", "Basic eA=="),)])
async def test_a_token_is_shown_as_bearer_or_not_at_all(metadata: tuple[tuple[str, str], ...]) -> None:
    async with accepting(KEY) as (served, _issuer):
        failure = await refused(served, *metadata)
        shown = bool(metadata) and metadata[0][0] == "authorization"
        assert failure.metadata == {"problem": "invalid" if shown else "missing"}
