"""The active check of the kind ``openai``: can the models be listed?

OpenAI itself is asked by its own package, which knows its API best. Whoever else speaks like it is asked over
the connections of the calls: that needs no package of 540 ms and 14 MiB, and sees what calls see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from router_server.providers._failure import well_if_ok
from router_server.providers._http import HttpClient
from router_server.providers._json import decoded

if TYPE_CHECKING:
    from router_server.providers._openai_models import ModelList

UNKNOWN: Final = frozenset({404, 405, 429})
"""Statuses that say nothing of the server's health: it does not know the question, or answers later."""


class Check(Protocol):
    """Asks one server for its models."""

    async def ask(self) -> bool | None:
        """Return True where the server answers; None where it has no such question, or is only busy.

        Raises:
            UpstreamError: it does not answer as it should.
        """

    async def close(self) -> None:
        """Close what it has opened."""


class CompatibleCheck:
    """Asks over ``http``, which belongs to the calls."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def ask(self) -> bool | None:
        """See `Check`."""
        status, body = await self._http.get("/models")
        if status in UNKNOWN:
            return None
        well = well_if_ok(status)
        require_model_list(body)
        return well

    async def close(self) -> None:
        """There is nothing to close."""


class OpenAICheck:
    """Asks by OpenAI's own package, which is imported on a thread when first needed: a start needs no check.

    Args:
        base_url: where it is.
        api_key: the credential; empty where it wants none.
        headers: organization and project.
    """

    def __init__(self, base_url: str, api_key: str, headers: Mapping[str, str]) -> None:
        self._account = (base_url, api_key, headers)
        self._models: ModelList | None = None

    async def ask(self) -> bool | None:
        """See `Check`."""
        if self._models is None:
            await asyncio.to_thread(_import_package)
            from router_server.providers._openai_models import ModelList  # noqa: PLC0415 - see the class

            self._models = ModelList(*self._account)
        return await self._models.ask()

    async def close(self) -> None:
        """Close its connections."""
        if self._models is not None:
            await self._models.close()


class _Models(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]


_MODELS: Final = msgspec.json.Decoder(_Models)


def require_model_list(body: bytes) -> None:
    """Look whether the body of an answer is a list of models, of whatever kind.

    Raises:
        UpstreamError: MALFORMED, ``not_json`` or ``wrong_shape``.
    """
    decoded(_MODELS, body)


def _import_package() -> None:
    import openai  # noqa: F401, PLC0415 - what takes long is to be over when the loop's thread needs it
