"""Tokens: the good ones, and every way in which one can be bad."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from router_server.auth.jwks import SOONEST, FromFile, FromUrl, JwksError, KeySet, keys_in
from router_server.auth.tokens import TokenVerifier
from router_server.config.callers import JwtConfig
from router_server.core.errors import Reason, RouterError
from router_server.core.principal import Principal, Quota
from tests.auth.issuer import AUDIENCE, ISSUER, Issuer, SigningKey, issuing

KEY = SigningKey("k1")


def settings(**changes: Any) -> JwtConfig:
    return JwtConfig.model_validate({"jwks": "keys", "issuer": ISSUER, "audience": AUDIENCE, **changes})


async def verifier(tmp_path: Path, *keys: SigningKey, **changes: Any) -> TokenVerifier:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [key.jwk for key in keys or (KEY,)]}))
    known = KeySet(FromFile(path), 300)
    assert await known.fetch()
    return TokenVerifier(settings(**changes), known)


async def refusal(tokens: TokenVerifier, token: str) -> RouterError:
    with pytest.raises(RouterError) as raised:
        await tokens.verify(token)
    assert token not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_a_good_token(tmp_path: Path, algorithm: str) -> None:
    key = SigningKey("k", algorithm)
    tokens = await verifier(tmp_path, key, routes=["chat"], limits={"requests_per_minute": 5})
    assert await tokens.verify(key.token()) == Principal("jwt", "alice", ("chat",), Quota(5))


async def test_the_claim_that_names_the_caller(tmp_path: Path) -> None:
    tokens = await verifier(tmp_path, tenant_claim="tenant")
    assert (await tokens.verify(KEY.token(tenant="acme"))).subject == "jwt/acme"
    for bad in (None, "", 5, "x" * 129, "a\nb", ["acme"]):
        error = await refusal(tokens, KEY.token(tenant=bad))
        assert error.reason is Reason.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp": 1}, "has expired"),
        ({"exp": None}, "lacks exp"),
        ({"aud": "other"}, "another audience"),
        ({"aud": None}, "lacks exp, iss or aud"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "lacks"),
        ({"nbf": 4_102_444_800}, "not valid yet"),
    ],
)
async def test_a_token_with_a_wrong_claim(tmp_path: Path, claims: dict[str, Any], words: str) -> None:
    error = await refusal(await verifier(tmp_path), KEY.token(headers=None, **claims))
    assert error.reason is Reason.UNAUTHENTICATED
    assert words in error.message


async def test_clocks_may_differ_by_the_leeway(tmp_path: Path) -> None:
    tokens = await verifier(tmp_path, leeway="30s")
    now = int(time.time())
    assert await tokens.verify(KEY.token(exp=now - 5, nbf=now - 60))
    assert (await refusal(tokens, KEY.token(exp=now - 120))).metadata == {"problem": "expired"}


async def test_required_claims(tmp_path: Path) -> None:
    tokens = await verifier(
        tmp_path, required_claims={"scope": "models:call", "groups": ["ml", "ops"], "email_verified": "true"}
    )
    good: dict[str, Any] = {"scope": "openid models:call", "groups": ["x", "ops"], "email_verified": True}
    assert await tokens.verify(KEY.token(headers=None, **good))
    for bad in (
        {"scope": "models:callx"},
        {"groups": ["x"]},
        {"groups": None},
        {"groups": "mlops"},
        {"email_verified": False},
        {"groups": {"ml": 1}},
    ):
        error = await refusal(tokens, KEY.token(headers=None, **{**good, **bad}))
        assert error.reason is Reason.PERMISSION_DENIED


def pem(key: SigningKey) -> bytes:
    data: bytes = key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


def forged(header: dict[str, Any], secret: bytes) -> str:
    """Return a token signed with HMAC, without the library that would refuse to make it."""
    import base64  # noqa: PLC0415 - for this alone
    import hashlib  # noqa: PLC0415
    import hmac  # noqa: PLC0415

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 300, "sub": "alice"}
    signed = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


async def test_the_token_does_not_choose_its_algorithm(tmp_path: Path) -> None:
    key = SigningKey("k1", "RS256")
    tokens = await verifier(tmp_path, key)
    public = pem(key)
    for token in (
        forged({"alg": "HS256", "kid": "k1"}, public),
        forged({"alg": "HS256"}, public),
        forged({"alg": "RS256", "kid": "k1"}, public),
        jwt.encode({"sub": "alice"}, "", "none", headers={"kid": "k1"}),
        forged({"alg": "PS256", "kid": "k1"}, public),
        forged({"kid": "k1"}, public),
        forged({"alg": ["RS256"], "kid": "k1"}, public),
        forged({"alg": "RS256", "kid": ["k1"]}, public),
        forged({"alg": "RS256", "kid": "k1", "crit": ["x"], "x": 1}, public),
    ):
        assert (await refusal(tokens, token)).reason is Reason.UNAUTHENTICATED
    assert await tokens.verify(key.token())


@pytest.mark.parametrize("token", ["", "a.b.c", "..", "\u00e4.\u00e4.\u00e4", "e30.e30.e30", "x" * 9_000])
async def test_what_is_no_token(tmp_path: Path, token: str) -> None:
    error = await refusal(await verifier(tmp_path), token) if token else None
    assert error is None or error.reason is Reason.UNAUTHENTICATED


async def test_a_token_of_someone_elses_key(tmp_path: Path) -> None:
    tokens = await verifier(tmp_path)
    assert "signature" in (await refusal(tokens, SigningKey("k1").token())).message
    assert "nobody known here" in (await refusal(tokens, SigningKey("k2").token())).message


async def test_an_algorithm_that_is_not_accepted(tmp_path: Path) -> None:
    tokens = await verifier(tmp_path, algorithms=["RS256"])
    assert "algorithm" in (await refusal(tokens, KEY.token())).message


async def test_a_set_with_one_key_needs_no_id(tmp_path: Path) -> None:
    one, other = SigningKey("k1"), SigningKey("k2")
    token = jwt.encode(
        {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 60, "sub": "alice"}, one.private, "ES256"
    )
    assert await (await verifier(tmp_path, one)).verify(token)
    assert await refusal(await verifier(tmp_path, one, other), token)


def test_a_set_gives_public_keys_for_signatures_only() -> None:
    secret = {"kty": "oct", "kid": "s", "k": "c2VjcmV0"}
    others = [secret, {**KEY.jwk, "use": "enc", "kid": "e"}, {"kty": "EC", "kid": "b"}, "x", {"kty": "RSA"}]
    assert keys_in(json.dumps({"keys": [*others, KEY.jwk]}).encode()).keys() == {"k1"}
    for bad in (b"", b"[]", b"{}", b'{"keys": 1}', json.dumps({"keys": others}).encode()):
        with pytest.raises(JwksError):
            keys_in(bad)


async def test_a_key_that_is_new_is_fetched_once() -> None:
    now = 0.0
    new = SigningKey("k2")
    async with issuing(KEY) as issuer:
        keys = KeySet(FromUrl(issuer.url), 300, lambda: now)
        tokens = TokenVerifier(settings(), keys)
        assert await tokens.verify(KEY.token())
        issuer.keys = [KEY, new]
        await refusal(tokens, new.token())
        assert issuer.asked == 1
        now = SOONEST
        results = await asyncio.gather(*(tokens.verify(new.token()) for _ in range(5)))
        assert len(results) == 5
        assert issuer.asked == 2
        for number in range(5):
            await refusal(tokens, SigningKey(f"unknown-{number}").token())
        assert issuer.asked == 2


async def test_a_key_that_is_withdrawn_is_refused_after_the_next_fetch() -> None:
    async with issuing(KEY) as issuer:
        keys = KeySet(FromUrl(issuer.url), 300)
        assert await keys.fetch()
        issuer.keys = [SigningKey("k2")]
        assert await keys.fetch()
        await refusal(TokenVerifier(settings(), keys), KEY.token())


def failing(issuer: Issuer, how: str) -> None:
    if how == "large":
        issuer.body = b" " * (1 << 20) + b"{}"
    elif how == "no set":
        issuer.body = b"<html>"
    else:
        issuer.status = int(how)


@pytest.mark.parametrize("how", ["500", "302", "404", "large", "no set"])
async def test_what_is_known_stays_while_the_provider_fails(how: str) -> None:
    async with issuing(KEY) as issuer:
        keys = KeySet(FromUrl(issuer.url), 300)
        assert await keys.fetch()
        failing(issuer, how)
        assert not await keys.fetch()
        assert await TokenVerifier(settings(), keys).verify(KEY.token())


async def test_nobody_is_known_while_there_is_no_provider(tmp_path: Path) -> None:
    keys = KeySet(FromUrl("http://127.0.0.1:1/keys"), 300)
    assert not await keys.fetch()
    await refusal(TokenVerifier(settings(), keys), KEY.token())
    assert not await KeySet(FromFile(tmp_path / "none"), 300).fetch()
