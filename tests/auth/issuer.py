"""An identity provider: keys, tokens signed with them, and a server that gives the public halves."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://id.example"
AUDIENCE = "modelrouter"


class SigningKey:
    """One key of a provider."""

    def __init__(self, kid: str, algorithm: str = "ES256") -> None:
        self.kid, self.algorithm = kid, algorithm
        self.private: Any
        if algorithm == "ES256":
            self.private = ec.generate_private_key(ec.SECP256R1())
            self._public = ECAlgorithm.to_jwk(self.private.public_key())
        elif algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
            self._public = OKPAlgorithm.to_jwk(self.private.public_key())
        else:
            self.private = rsa.generate_private_key(65_537, 2048)
            self._public = RSAAlgorithm.to_jwk(self.private.public_key())

    @property
    def jwk(self) -> dict[str, Any]:
        return {**json.loads(self._public), "kid": self.kid, "use": "sig"}

    def token(self, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a token that is good, but for what is changed; None leaves a claim out."""
        now = int(time.time())
        good = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 300, "iat": now, "sub": "alice"}
        said = {name: value for name, value in {**good, **claims}.items() if value is not None}
        return jwt.encode(said, self.private, self.algorithm, headers={"kid": self.kid, **(headers or {})})


class Issuer:
    """A server of keys, whose answer can be changed."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.status = 200
        self.body: bytes | None = None
        self.asked = 0
        self.url = ""

    async def answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        body = self.body or json.dumps({"keys": [key.jwk for key in self.keys]}).encode()
        headers = {"location": self.url} if 300 <= self.status < 400 else None
        return web.Response(body=body, status=self.status, headers=headers)


@asynccontextmanager
async def issuing(*keys: SigningKey) -> AsyncIterator[Issuer]:
    issuer = Issuer(*keys)
    app = web.Application()
    app.router.add_get("/keys", issuer.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    try:
        yield issuer
    finally:
        await runner.cleanup()
