"""What the configuration says of a ``litellm`` provider. Refuses to know how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from router_server.core.options import REFUSED_OPTIONS
from router_server.providers._settings import ApiKey, HttpUrl

_ROUTERS_OWN: Final = REFUSED_OPTIONS | {
    "acompletion",
    "aembedding",
    "api_base",
    "api_key",
    "base_url",
    "cache",
    "caching",
    "callbacks",
    "client",
    "context_window_fallback_dict",
    "failure_callback",
    "fallbacks",
    "logger_fn",
    "max_retries",
    "mock_response",
    "model_list",
    "num_retries",
    "shared_session",
    "stream_timeout",
    "success_callback",
    "timeout",
}
"""Arguments of litellm that other keys say, or that would do the router's work a second time."""

_ONCE: Final[Mapping[str, Any]] = {"max_retries": 0, "num_retries": 0, "caching": False}
"""One call is one request: to try again, or elsewhere, is the router's decision."""


class Settings(BaseModel):
    """What the configuration says of a ``litellm`` provider.

    What is not set, or empty, LiteLLM looks for where it always does: ``ANTHROPIC_API_KEY``, AWS's and
    Google's own credentials, and so on.

    Attributes:
        api_key: the credential, where one key is all that the provider wants.
        base_url: another address than the provider's usual one.
        parameters: further arguments of each call, in LiteLLM's words: aws_region_name, vertex_project,
            api_version, drop_params.
        credentials: further arguments likewise that nobody must see: aws_secret_access_key,
            vertex_credentials.
        max_embed_batch: texts that the provider takes at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    api_key: ApiKey | None = None
    base_url: HttpUrl | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    credentials: dict[str, SecretStr] = Field(default_factory=dict)
    max_embed_batch: int = Field(default=96, ge=1, le=2048)

    @field_validator("parameters", "credentials")
    @classmethod
    def _leave_the_routers_own(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        refused = sorted(_ROUTERS_OWN.intersection(arguments))
        if refused:
            raise ValueError(
                f"must not set {', '.join(refused)}: that is said by other keys, or the router's own matter"
            )
        return arguments

    def arguments(self) -> dict[str, Any]:
        """Return what is the same in each call, with the secrets in the open."""
        secrets = {**self.credentials, **({"api_key": self.api_key} if self.api_key else {})}
        known = {name: text for name, secret in secrets.items() if (text := secret.get_secret_value())}
        address = {"api_base": self.base_url} if self.base_url else {}
        return {**self.parameters, **known, **address, **_ONCE}
