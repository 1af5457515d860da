"""What is allowed but unwise: warnings for whoever starts the server.

Refuses to forbid anything; `references` does that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, SecretStr

from router_server.config.tree import Config
from router_server.config.values import host_and_port


def warnings_of(config: Config) -> tuple[str, ...]:
    """Return one sentence for each setting that is allowed and unwise."""
    return (
        *_open_to_all(config),
        *_keys_in_plaintext(config),
        *_arms_mixed(config),
        *_names_of_nothing(config),
    )


def _arms_mixed(config: Config) -> Iterator[str]:
    for name, route in config.routes.items():
        if route.experiment is not None and route.cache is not None:
            yield (
                f"routes.{name} has an experiment and a cache: an answer that is kept is given to both arms, "
                "whoever made it. Take the cache away for as long as the arms are compared."
            )


def _names_of_nothing(config: Config) -> Iterator[str]:
    """Yield what callers may name that there is not, for they would be refused without a word of why."""
    aliases = {alias: name for name, route in config.routes.items() for alias in route.aliases}
    for place, callers in config.auth.callers if config.auth else ():
        for pattern in callers.routes or ():
            direct = config.server.allow_direct and "/" in pattern
            if direct or any(fnmatchcase(route, pattern) for route in config.routes):
                continue
            meant = sorted({route for alias, route in aliases.items() if fnmatchcase(alias, pattern)})
            why = f"an alias; name its route {' or '.join(meant)}" if meant else "not there"
            yield f"{place}.routes names {pattern}, a route that is {why}. Nobody is let in by it."


def _keys_in_plaintext(config: Config) -> Iterator[str]:
    auth, listen = config.auth, config.server.listen
    if auth is None or config.server.tls is not None or not _is_reachable(listen):
        return
    yield (
        f"server.listen {listen} is reachable from other machines in plaintext: whoever is between can read "
        "the keys and tokens that callers show, and use them. Set server.tls, or leave TLS to a proxy or a "
        "mesh in front of it."
    )


def _open_to_all(config: Config) -> Iterator[str]:
    listen = config.server.listen
    guarded = config.auth is not None or (config.server.tls is not None and config.server.tls.client_ca)
    if guarded or not _is_reachable(listen):
        return
    how = "with TLS but no client_ca" if config.server.tls else "in plaintext"
    keys = [name for name, provider in config.providers.items() if _holds_key(provider.settings)]
    spends = f", and spends the key of {', '.join(keys)}: an open relay" if keys else ""
    yield (
        f"server.listen {listen} is reachable from other machines {how}: whoever reaches it can call "
        f"every model{spends}. Set auth, listen on 127.0.0.1, set server.tls with client_ca, or keep "
        "others out with a firewall."
    )


def _is_reachable(address: str) -> bool:
    parts = host_and_port(address)
    if parts is None or parts[0] == "localhost":
        return False
    try:
        return not ipaddress.ip_address(parts[0].partition("%")[0]).is_loopback
    except ValueError:
        return True


def _holds_key(settings: Any) -> bool:
    if not isinstance(settings, BaseModel):
        return False
    values = [getattr(settings, name) for name in type(settings).model_fields]
    return any(isinstance(value, SecretStr) and value.get_secret_value() for value in values)
