"""An upstream over TLS, as all outside the house are: the server reads it as it reads others."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.client.certificates import Authority
from tests.e2e.process import served
from tests.e2e.serving import chat
from tests.providers.openai_talk import text_chunks
from tests.upstream import LAST_CHUNK, SSE_HEAD, End, Step, Upstream, event, sse_reply

PARTS = """
    providers:
      far: {{kind: openai, api_key: sk-far, base_url: "{url}", health_check: null}}
    targets:
      a: {{provider: far, model: m}}
    routes:
      chat: {{targets: [a]}}
"""
TEXTS = [f"word{number} " for number in range(30)]
EVENTS = [event(chunk) for chunk in text_chunks(*TEXTS)]


def vouched(authority: Authority, folder: Path) -> ssl.SSLContext:
    signed = authority.sign("localhost")
    for name, content in (("ca", authority.pem), ("cert", signed.certificate), ("key", signed.key)):
        (folder / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


@pytest.mark.parametrize(("ends", "connections"), [((), 1), ((End.CLOSE,), 2)])
async def test_streams_over_tls_arrive_as_they_come_and_whole(
    tmp_path: Path, ends: Sequence[Step], connections: int
) -> None:
    context = vouched(Authority.create(), tmp_path)
    go = asyncio.Event()
    slow = (*SSE_HEAD, *EVENTS[:6], go, *EVENTS[6:], event("[DONE]"), LAST_CHUNK, *ends)
    async with Upstream(tls=context) as upstream:
        upstream.then(slow, sse_reply(text_chunks(*TEXTS)))
        url = upstream.base_url.replace("127.0.0.1", "localhost")
        with tempfile.TemporaryDirectory(prefix="mr") as folder:
            environment = {"SSL_CERT_FILE": str(tmp_path / "ca")}
            async with served(Path(folder), PARTS.format(url=url), env=environment) as server:
                read = ""
                async for one in server.stub.StreamChat(chat()):
                    read += one.delta.text
                    if read == "".join(TEXTS[:5]):
                        go.set()
                assert read == "".join(TEXTS)
                again = [one.delta.text async for one in server.stub.StreamChat(chat())]
                assert "".join(again) == read
        assert len(upstream.connections) == connections
