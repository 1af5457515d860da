from __future__ import annotations

import pytest

from router_server.core.provider import Capability
from router_server.providers import load_kind


def able(kind: str, model: str, **settings: str) -> frozenset[Capability]:
    found = load_kind(kind)
    return found.capabilities_of(found.settings(**settings), model)


@pytest.mark.parametrize(
    ("kind", "model", "settings", "chats", "embeds"),
    [
        ("openai", "gpt-4o-mini", {"api_key": "k"}, True, False),
        ("openai", "text-embedding-3-small", {"api_key": "k"}, False, True),
        ("openai", "all-MiniLM-L6-v2", {"base_url": "http://127.0.0.1:1/v1"}, True, True),
        ("openai", "nomic-embed-text", {"base_url": "http://127.0.0.1:1/v1"}, False, True),
        ("gemini", "gemini-2.5-flash", {"api_key": "k"}, True, False),
        ("gemini", "gemini-embedding-001", {"api_key": "k"}, False, True),
        ("vllm", "BAAI/bge-m3", {"base_url": "http://127.0.0.1:1/v1"}, True, True),
        ("vllm", "Qwen/Qwen3-Embedding-0.6B", {"base_url": "http://127.0.0.1:1/v1"}, False, True),
        ("embedded", "smollm2-135m-instruct", {}, True, False),
        ("embedded", "wordllama-256", {}, False, True),
    ],
)
def test_a_models_name_tells_what_it_can_do(
    kind: str, model: str, settings: dict[str, str], *, chats: bool, embeds: bool
) -> None:
    found = able(kind, model, **settings)
    assert (Capability.CHAT in found, Capability.EMBED in found) == (chats, embeds)
    assert found <= load_kind(kind).capabilities
