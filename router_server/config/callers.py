"""The part of the tree that says who may call, and how much.

Refuses to check any credential, and to read any file.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, ValidationInfo, model_validator

from router_server.config.budgets import BudgetConfig
from router_server.config.section import PARTIAL, Section
from router_server.config.values import Count, Duration, File, Name, Timeout, from_folder
from router_server.core.principal import Quota

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
KEPT_IN_REDIS: Final = "redis"
"""In place of a file's name: keys are kept in the Redis that replicas share."""


def _sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError("is not a SHA-256 in hexadecimal; `router-server keys add` makes a key and its hash")
    return text


def _moment(value: Any) -> datetime:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("is not a moment with its time zone; write one as 2027-01-31T00:00:00Z")
    return moment


KeyHash = Annotated[str, AfterValidator(_sha256)]
"""The SHA-256 of an API key, 64 hexadecimal digits."""

Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
"""A point in time with its zone."""


def _jwk_set(text: str, info: ValidationInfo) -> str:
    if "://" not in text:
        return str(from_folder(Path(text), info))
    url = urlsplit(text)
    if url.scheme == "https" or (url.scheme == "http" and url.hostname in _THIS_MACHINE):
        return text
    raise ValueError("is not https://…; whoever can change what is read there can sign tokens")


JwkSet = Annotated[str, Field(min_length=1), AfterValidator(_jwk_set)]
"""Where a JWK set is: a URL with TLS (without it on this machine alone), or a file."""

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""How tokens are signed: every one has a public key, none a secret that both sides know."""


class RatesConfig(Section):
    """How much may be used in any 60 seconds."""

    requests_per_minute: Count | None = Field(default=None, description="calls; null: any number")
    tokens_per_minute: Count | None = Field(
        default=None, description="tokens, prompts and answers together; null: any number"
    )

    @property
    def quota(self) -> Quota:
        """The same for the core."""
        return Quota(self.requests_per_minute, self.tokens_per_minute)


class CallerLimitsConfig(RatesConfig):
    """How much one caller may use."""

    max_concurrency: Count | None = Field(default=None, description="calls at once; null: any number")

    @property
    def quota(self) -> Quota:
        """The same for the core."""
        return Quota(self.requests_per_minute, self.tokens_per_minute, self.max_concurrency)


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("is empty; name at least one, or remove the key")
    return values


Routes = Annotated[tuple[str, ...], AfterValidator(_not_empty)]


class CallersConfig(Section):
    """What callers of one sort may do."""

    routes: Routes | None = Field(
        default=None, description="routes that they may name; * and ? are wildcards; null: every route"
    )
    limits: CallerLimitsConfig | None = Field(
        default=None, description="of each of them; null: those of `limits.caller`"
    )
    budget: BudgetConfig | None = Field(
        default=None, description="what each of them may spend; null: any sum, see docs/budgets.md"
    )


class LimitsConfig(Section):
    """How much callers may use, whichever routes they name."""

    caller: CallerLimitsConfig | None = Field(
        default=None, description="each caller who has no limits of its own; needs auth"
    )
    user: CallerLimitsConfig | None = Field(
        default=None, description="each user of a caller, where the call names one in user_id"
    )


class KeyConfig(CallersConfig):
    """One API key; two with the same name are one caller, as while a key is being replaced."""

    name: Name = Field(description="who it belongs to, in logs, metrics and limits")
    sha256: KeyHash = Field(description="SHA-256 of the key, in hexadecimal; the key itself is kept nowhere")
    expires: Moment | None = Field(
        default=None, description="from then on it is refused, 2027-01-31T00:00:00Z for example; null: never"
    )
    created: Moment | None = Field(default=None, description="when it was made; says nothing to the router")
    labels: dict[str, str] = Field(
        default_factory=dict, description="what logs and spans say of the caller beside its name"
    )


class ApiKeysConfig(Section):
    """Where API keys are known from; all of the places together."""

    file: File | None = Field(
        default=None, description="that `router-server keys` writes; read again when it changes"
    )
    redis: bool = Field(default=False, description="they are kept in the Redis that replicas share")
    keys: tuple[KeyConfig, ...] = Field(default=(), description="here in this file")

    @model_validator(mode="before")
    @classmethod
    def _one_place_alone(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"redis": True} if data == KEPT_IN_REDIS else {"file": data}
        return {"keys": data} if isinstance(data, list) else data


class JwtConfig(CallersConfig):
    """Signed tokens of an identity provider."""

    jwks: JwkSet = Field(description="its public keys: https://…, or the path of a file with a JWK set")
    issuer: str = Field(min_length=1, description="what `iss` has to be")
    audience: str = Field(min_length=1, description="what `aud` has to be or to hold")
    required_claims: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="claims that a token must have, each with one of these values"
    )
    tenant_claim: str = Field(
        default="sub", min_length=1, description="the claim that names the caller, in logs and limits"
    )
    algorithms: Annotated[tuple[Algorithm, ...], AfterValidator(_not_empty)] = Field(
        default=("RS256", "ES256", "EdDSA"),
        description="signatures that are accepted; only those of public keys can be",
    )
    leeway: Duration = Field(default=30.0, description="by which clocks may differ")
    refresh: Timeout = Field(default=300.0, description="how old its public keys may become")


class MtlsConfig(CallersConfig):
    """Client certificates, which `server.tls.client_ca` has signed."""

    allow: Routes | None = Field(
        default=None,
        description="names of callers: the first URI, else the first DNS name, else the common name of their "
        "certificates; * and ? are wildcards; null: every one",
    )


class AuthConfig(Section):
    """Who may call; what is set is accepted, whichever of them a caller shows."""

    api_keys: ApiKeysConfig | None = Field(
        default=None,
        description="the name of a file, `redis`, a list of keys, or the keys below; null: none are accepted",
    )
    jwt: JwtConfig | None = Field(default=None, description="tokens as `authorization: Bearer`; null: none")
    mtls: MtlsConfig | None = Field(
        default=None, description="client certificates; {} accepts every verified one; null: none"
    )

    @model_validator(mode="before")
    @classmethod
    def _something(cls, data: Any, info: ValidationInfo) -> Any:
        whole = not (info.context or {}).get(PARTIAL)
        if whole and isinstance(data, dict) and all(value is None for value in data.values()):
            raise ValueError("accepts nobody; set api_keys, jwt or mtls, or remove auth")
        return data

    @property
    def callers(self) -> tuple[tuple[str, CallersConfig], ...]:
        """Who may call, by where that is written; keys that are kept outside of the configuration are not."""
        keys = () if self.api_keys is None else self.api_keys.keys
        found = [(f"auth.api_keys.keys[{i}]", key) for i, key in enumerate(keys)]
        others = (("auth.jwt", self.jwt), ("auth.mtls", self.mtls))
        return (*found, *((place, one) for place, one in others if one is not None))
