"""From a few variables to a configuration: one route, ``default``, over OpenAI-compatible endpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from router_server.config import Config, ConfigError, Problem, read

ROUTE: Final = "default"

_ORIGIN: Final = "environment"
_OFF: Final = frozenset({"off", "false", "0", "no"})


def config_from(env: Mapping[str, str]) -> Config:
    """Return what ``LLM_ENDPOINTS`` and the other variables describe; docs/library.md has their format.

    Raises:
        ConfigError: a variable is missing or says what makes no sense.
    """
    endpoints = _listed(env, "LLM_ENDPOINTS")
    if not endpoints:
        raise _wrong("LLM_ENDPOINTS", "is not set; write model@url, several separated by commas")
    keys = _listed(env, "LLM_API_KEYS") or [""]
    if len(keys) not in {1, len(endpoints)}:
        raise _wrong(
            "LLM_API_KEYS",
            f"has {len(keys)} keys for {len(endpoints)} endpoints; give one for all, or one for each",
        )
    keys = keys * len(endpoints) if len(keys) == 1 else keys
    providers, targets = {}, {}
    for number, (endpoint, key) in enumerate(zip(endpoints, keys, strict=True), 1):
        model, at, url = endpoint.partition("@")
        if not at or not model or not url:
            raise _wrong("LLM_ENDPOINTS", f"entry {number} is not model@url")
        name = f"endpoint-{number}"
        providers[name] = _provider(url, key, env)
        targets[name] = {"provider": name, "model": model}
    routes = {ROUTE: {"targets": list(targets), "strategy": env.get("LLM_STRATEGY") or "ordered"}}
    # JSON is YAML; what looks like a variable in a key is none.
    text = json.dumps({"providers": providers, "targets": targets, "routes": routes}).replace("${", "$${")
    return read(text, {}, origin=_ORIGIN)


def _provider(url: str, key: str, env: Mapping[str, str]) -> dict[str, Any]:
    provider: dict[str, Any] = {"kind": "openai", "base_url": url, "api_key": key or "none"}
    check = env.get("LLM_HEALTH_CHECK", "").strip()
    if check.lower() in _OFF and check:
        provider["health_check"] = None
    elif check:
        provider["health_check"] = {"interval": check}
    if timeout := env.get("LLM_TIMEOUT", "").strip():
        provider["timeouts"] = {"unary": timeout}
    return provider


def _listed(env: Mapping[str, str], name: str) -> list[str]:
    return [entry.strip() for entry in env.get(name, "").split(",") if entry.strip()]


def _wrong(name: str, message: str) -> ConfigError:
    return ConfigError(_ORIGIN, (Problem(0, name, message),))
