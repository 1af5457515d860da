"""What the configuration says of a ``vllm`` provider. Refuses to know how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from router_server.providers._endpoint import parse_endpoint
from router_server.providers._settings import ApiKey, Seconds, Url
from router_server.providers._vllm_serve import ServeSettings

API: Final = "/v1"
_ORDINARY_PORTS: Final = frozenset({80, 443})


class Settings(BaseModel):
    """What the configuration says of a ``vllm`` provider.

    Attributes:
        base_url: ``http://host:port/v1`` or ``unix:///path/to.sock``; without a path, /v1 is understood.
        base_urls: several servers of the same models in place of one; each has the limits, the breaker and
            the health of a provider of its own, and a call goes to the least loaded.
        prefix_affinity: of several servers, ask the one that has lately had the beginning of the prompt, as
            long as it is not much busier than the others.
        api_key: the credential, where the servers were started with one.
        serve: instead of an address: the router starts the server itself, as its child.
        load_interval: how often ``/metrics`` is read while calls flow; null: never.
        load_idle_interval: the same while there are none.
        crowded_waiting: with more requests waiting in it than this a server is passed over for others.
        crowded_cache: with this share of its KV cache in use likewise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: Url | None = None
    base_urls: tuple[Url, ...] = ()
    prefix_affinity: bool = True
    api_key: ApiKey | None = None
    serve: ServeSettings | None = None
    load_interval: Seconds | None = 1.0
    load_idle_interval: Seconds = 15.0
    crowded_waiting: int = Field(default=4, ge=0)
    crowded_cache: float = Field(default=0.95, gt=0, le=1)

    @field_validator("base_urls")
    @classmethod
    def _each_once(cls, urls: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if urls and info.data.get("base_url") is not None:
            raise ValueError("stands beside base_url; keep one of the two")
        if len({endpoint_name(url) for url in urls}) < len(urls):
            raise ValueError("names a server twice; remove it")
        return urls

    @field_validator("serve")
    @classmethod
    def _stands_alone(cls, serve: ServeSettings | None, info: ValidationInfo) -> ServeSettings | None:
        for key in ("base_url", "base_urls"):
            if serve is not None and info.data.get(key):
                raise ValueError(f"stands beside {key}; keep one of the two")
        return serve

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.base_url is None and not self.base_urls and self.serve is None:
            raise ValueError(
                "says neither where a server is nor that one is to be started; add base_url or serve"
            )
        return self

    @property
    def servers(self) -> Mapping[str, Settings]:
        """The settings of each server alone, by a name that is short and unique; none where there is one."""
        if len(self.base_urls) < 2:  # noqa: PLR2004 - several are two or more
            return {}
        return {
            endpoint_name(url): self.model_copy(update={"base_url": url, "base_urls": ()})
            for url in self.base_urls
        }

    @property
    def server(self) -> str:
        """The address, where there is one; empty where the router starts the server."""
        return self.base_url or next(iter(self.base_urls), "")


def endpoint_name(url: str) -> str:
    """Return what a server is called in metrics and logs: host, port and path, or a socket."""
    endpoint = parse_endpoint(url)
    if endpoint.socket:
        return endpoint.socket
    base = endpoint.base
    port = "" if base.port in _ORDINARY_PORTS else f":{base.port}"
    return f"{base.host}{port}{base.raw_path.rstrip('/').removesuffix(API)}"
