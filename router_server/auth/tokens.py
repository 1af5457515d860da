"""Signed tokens (JWT) of an identity provider as callers.

A token's algorithm is the one that its key was made for, never what the token says of itself: a public key
used as the secret of an HMAC, or no signature at all, is refused. Refuses to know where keys come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jwt
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from router_server.auth.jwks import KeySet
from router_server.auth.refusals import unauthenticated
from router_server.config.callers import JwtConfig
from router_server.core.errors import Reason, RouterError
from router_server.core.principal import Principal

_LONGEST_NAME: Final = 128
_INVALID: Final = "The token is not one that this server accepts: {why}."


class TokenVerifier:
    """Knows the callers whose tokens one provider has signed.

    Args:
        settings: issuer, audience and the like.
        keys: the provider's.
    """

    def __init__(self, settings: JwtConfig, keys: KeySet) -> None:
        self._settings = settings
        self._keys = keys
        self._quota = None if settings.limits is None else settings.limits.quota
        self._budget = None if settings.budget is None else settings.budget.terms

    async def verify(self, token: str) -> Principal:
        """Return whose token it is.

        Raises:
            RouterError: UNAUTHENTICATED where it is not good, PERMISSION_DENIED where it lacks a claim.
        """
        claims = await self._claims(token)
        self._check_required(claims)
        name = claims.get(self._settings.tenant_claim)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
            raise _refused("the claim that names the caller is missing, or no text of 1 to 128 characters")
        return Principal("jwt", name, self._settings.routes, self._quota, budget=self._budget)

    async def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            kid = jwt.get_unverified_header(token).get("kid", "")
        except PyJWTError:
            raise _refused("it is not a signed token") from None
        key = await self._keys.key(kid) if isinstance(kid, str) else None
        if key is None:
            raise _refused("nobody known here has signed it")
        settings = self._settings
        try:
            return jwt.decode(
                token,
                key,
                algorithms=settings.algorithms,
                issuer=settings.issuer,
                audience=settings.audience,
                leeway=settings.leeway,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except ExpiredSignatureError:
            raise unauthenticated("The token has expired; get a new one.", "expired") from None
        except PyJWTError as error:
            raise _refused(_WHY.get(type(error), "its signature is not good")) from None

    def _check_required(self, claims: Mapping[str, Any]) -> None:
        for name, wanted in self._settings.required_claims.items():
            if not _holds(claims.get(name), (wanted,) if isinstance(wanted, str) else wanted):
                raise RouterError(
                    Reason.PERMISSION_DENIED,
                    f"The token's claim {name} is not one of those that may call here.",
                    metadata={"claim": name},
                )


_WHY: Final[Mapping[type[PyJWTError], str]] = {
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "another issuer made it",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidIssuedAtError: "it was made in the future",
    jwt.MissingRequiredClaimError: "it lacks exp, iss or aud",
    jwt.InvalidAlgorithmError: "its algorithm is not that of its key, or not accepted",
    jwt.DecodeError: "it is not a signed token",
}


def _refused(why: str) -> RouterError:
    return unauthenticated(_INVALID.format(why=why), "invalid")


def _holds(claim: Any, wanted: tuple[str, ...]) -> bool:
    """Tell whether a claim is, or holds, one of the values; a scope is words in one text."""
    if isinstance(claim, bool):
        return str(claim).lower() in wanted
    if isinstance(claim, str):
        return claim in wanted or bool(set(claim.split()) & set(wanted))
    if isinstance(claim, list):
        return any(one in wanted for one in claim if isinstance(one, str))
    return False
