"""Types for the settings that HTTP providers share. Refuses to know any provider."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from router_server.core.duration import parse_duration
from router_server.providers._endpoint import parse_endpoint


def _http_url(text: str) -> str:
    if parse_endpoint(text).socket:
        raise ValueError("must begin with http:// or https://")
    return text.strip()


def _url(text: str) -> str:
    parse_endpoint(text)
    return text.strip()


def _seconds(value: Any) -> float:
    try:
        return parse_duration(value)
    except (TypeError, ValueError):
        raise ValueError("is not a duration; write 500ms, 5s, 2m or 1h30m") from None


def _header_safe(secret: SecretStr) -> SecretStr:
    """Take away white space around a key: a file that it was read from ends with a newline."""
    text = secret.get_secret_value().strip()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("has characters that no HTTP header can carry; copy the key again")
    return SecretStr(text)


HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""``http://host[:port][/path]`` or https, without credentials, query and fragment."""

Url = Annotated[str, AfterValidator(_url)]
"""As `HttpUrl`, or ``unix:///path/to.sock``."""

ApiKey = Annotated[SecretStr, AfterValidator(_header_safe)]
"""A credential that is sent in a header; empty means that none is sent."""

Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
"""A duration that is not 0, written as ``500ms``, ``5s``, ``1h30m`` or a bare number."""


def bearer(api_key: SecretStr | None) -> dict[str, str]:
    """Return the Authorization header of a key, nothing for none."""
    key = api_key.get_secret_value() if api_key else ""
    return {"Authorization": f"Bearer {key}"} if key else {}
