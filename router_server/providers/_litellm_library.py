"""The package litellm in this process: imported late, quiet, and with connections that are ours to close.

As it comes it fetches price lists, reads ``.env`` files, prints, logs every call on a task of its own, and
keeps its connections for ever. Refuses to know requests and answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from threading import Lock
from typing import Any, Final
from weakref import WeakSet

from router_server.providers import SetupError

_ENVIRONMENT: Final = {
    "LITELLM_MODE": "PRODUCTION",  # else it reads .env files
    "LITELLM_OFFLINE_MODE": "true",  # no list, check or tokenizer is fetched
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "CRITICAL",
}
_CONNECT_STEPS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 30.0, 60.0)
"""Seconds that connecting may take are rounded up to one of these: litellm keeps a pool for each timeout."""

_LOGGERS: Final = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")

_owner: ContextVar[Connections | None] = ContextVar("litellm_connections", default=None)
_importing = Lock()


class Connections:
    """The clients that litellm makes for the calls of one provider; it keeps them for the next call."""

    _numbers = itertools.count()

    def __init__(self) -> None:
        self.number = next(self._numbers)
        """Of this one alone, as long as the process lives; litellm may know clients for longer than we do."""
        self._clients: WeakSet[Any] = WeakSet()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the calls in this block use these connections, and log nothing."""
        token = _owner.set(self)
        try:
            with _unlogged():
                yield
        finally:
            _owner.reset(token)

    def keep(self, client: Any) -> None:
        """Remember a client, and have it follow no redirect: those would be sent our credentials."""
        inner = getattr(client, "_client", None)
        if inner is not None and hasattr(inner, "follow_redirects"):
            inner.follow_redirects = False
        with contextlib.suppress(TypeError):  # what is no object of a class cannot be referred to, nor closed
            self._clients.add(client)

    async def close(self) -> None:
        """Close every connection, also those in use."""
        for client in tuple(self._clients):
            closed = client.close() if hasattr(client, "close") else None
            if asyncio.iscoroutine(closed):
                await closed
        self._clients.clear()


def library() -> Any:
    """Return the package, imported when first asked for: some seconds, on whatever thread asks."""
    with _importing:
        return _imported()


def connect_limit(seconds: float) -> Any:
    """Return a timeout for connecting and for nothing else: the other timers are the core's."""
    import httpx  # noqa: PLC0415 - comes with the extra

    at = bisect_left(_CONNECT_STEPS, seconds)
    return httpx.Timeout(None, connect=_CONNECT_STEPS[at] if at < len(_CONNECT_STEPS) else seconds)


def require_provider_names(models: tuple[str, ...], provider: str) -> None:
    """Look whether litellm knows whose each model is.

    Raises:
        SetupError: one is nobody's.
    """
    litellm = library()
    for model in models:
        try:
            litellm.get_llm_provider(model)
        except litellm.BadRequestError:
            raise SetupError(
                f"the provider {provider} has a model {model}, and LiteLLM does not know whose it is; "
                "write it as LiteLLM does: bedrock/…, vertex_ai/…, cohere/…, openai/… for compatible servers"
            ) from None


@cache
def _imported() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import litellm  # noqa: PLC0415 - an extra, and 4 s of computing

    # A thread prepares each request and hands back a coroutine: a call that was cancelled never awaits it.
    warnings.filterwarnings(
        "ignore", "coroutine '.*(acompletion|aembedding).*' was never awaited", RuntimeWarning
    )
    _give_owners_their_clients(litellm)
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.disable_token_counter = True
    litellm.redact_messages_in_exceptions = True
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.disabled = True
    return litellm


def _give_owners_their_clients(litellm: Any) -> None:
    """Replace the two places where litellm finds clients by such as ask whose call it is."""
    from litellm.caching.llm_caching_handler import LLMClientCache  # noqa: PLC0415 - an extra
    from litellm.llms.custom_httpx.http_handler import (  # noqa: PLC0415 - an extra
        AsyncHTTPHandler,
        get_async_httpx_client,
    )

    class OwnedClients(LLMClientCache):  # type: ignore[misc]  # Any where it is not installed
        """Keeps the clients of each owner apart, and tells the owner of them."""

        def get_cache(self, key: str, *args: Any, **kwargs: Any) -> Any:
            return super().get_cache(_owned(key), *args, **kwargs)

        def set_cache(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
            owner = _owner.get()
            if owner is not None:
                owner.keep(value)
            return super().set_cache(_owned(key), value, *args, **kwargs)

    class SharedClient(AsyncHTTPHandler):  # type: ignore[misc]  # as above
        """What some providers' calls share: here only those of one owner do."""

        @property
        def client(self) -> Any:
            return super().client if _owner.get() is None else get_async_httpx_client("shared").client

    litellm.in_memory_llm_clients_cache = OwnedClients()
    litellm.module_level_aclient = SharedClient()


def _owned(key: str) -> str:
    owner = _owner.get()
    return key if owner is None else f"{owner.number}-{key}"


def _unlogged() -> contextlib.AbstractContextManager[None]:
    try:
        from litellm._internal_context import internal_sub_call  # noqa: PLC0415 - an extra
    except (
        ImportError
    ):  # a name of its own use: without it calls are logged to nobody, which only takes longer
        return contextlib.nullcontext()
    unlogged: contextlib.AbstractContextManager[None] = internal_sub_call()
    return unlogged
