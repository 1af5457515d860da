"""Mistakes between the keys of `auth` and what they need elsewhere: files, TLS, Redis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from router_server.config.callers import ApiKeysConfig, AuthConfig
from router_server.config.problems import Finding
from router_server.config.tree import Config


def check_auth(config: Config) -> Iterator[Finding]:
    """Yield what ``auth`` asks for and does not get."""
    auth = config.auth
    if auth is None:
        if config.limits is not None and config.limits.caller is not None:
            yield Finding(("limits", "caller"), "needs auth, which says who calls; set it, or limit routes")
        return
    if auth.api_keys is not None:
        yield from _api_keys(config, auth.api_keys)
    yield from _jwt(auth)
    if auth.mtls is not None and (config.server.tls is None or config.server.tls.client_ca is None):
        yield Finding(
            ("auth", "mtls"), "needs server.tls.client_ca, which says whose certificates are accepted; set it"
        )


def _api_keys(config: Config, keys: ApiKeysConfig) -> Iterator[Finding]:
    path = ("auth", "api_keys")
    if keys.redis and config.redis is None:
        yield Finding(path, "are kept in Redis, but redis is not set; set it, or name a file")
    if keys.file is not None:
        yield from _readable(path, keys.file, "make it with `router-server keys add NAME --file …`")
    seen: set[str] = set()
    for index, key in enumerate(keys.keys):
        if key.sha256 in seen:
            yield Finding((*path, index, "sha256"), "is that of another key above; each has its own")
        seen.add(key.sha256)


def _jwt(auth: AuthConfig) -> Iterator[Finding]:
    if auth.jwt is not None and "://" not in auth.jwt.jwks:
        yield from _readable(("auth", "jwt", "jwks"), Path(auth.jwt.jwks), "correct the path")


def _readable(path: tuple[str, ...], file: Path, advice: str) -> Iterator[Finding]:
    if not file.is_file():
        yield Finding(path, f"no such file; {advice}")
    elif not os.access(file, os.R_OK):
        yield Finding(path, "the file may not be read; change its owner or its mode")
