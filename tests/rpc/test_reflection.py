"""A client that has no protos learns the contract from the server, and calls it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2

from router_server.rpc.settings import ServerSettings
from tests.rpc.scripted import serving

SERVICE = "modelrouter.v1.ModelRouterService"
VERSIONS = ["grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"]


class Curious:
    """Knows nothing but the reflection protocol."""

    def __init__(self, channel: aio.Channel, version: str) -> None:
        self._method = channel.stream_stream(
            f"/{version}/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        self._pool = descriptor_pool.DescriptorPool()

    def open(self) -> Any:
        method: Any = self._method
        return method()

    async def services(self) -> list[str]:
        answer = await self._ask(list_services="*")
        return [service.name for service in answer.list_services_response.service]

    async def learn(self, symbol: str) -> None:
        answer = await self._ask(file_containing_symbol=symbol)
        await self._add(answer.file_descriptor_response.file_descriptor_proto[0])

    def message(self, name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    async def _add(self, data: bytes) -> None:
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        for needed in self._unknown(file):
            answer = await self._ask(file_by_filename=needed)
            await self._add(answer.file_descriptor_response.file_descriptor_proto[0])
        self._pool.Add(file)

    def _unknown(self, file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
        for name in file.dependency:
            try:
                self._pool.FindFileByName(name)
            except KeyError:
                yield name

    async def _ask(self, **question: str) -> Any:
        request: Any = reflection_pb2.ServerReflectionRequest(**question)
        call: Any = self._method(iter([request]))
        (answer,) = [answer async for answer in call]
        return answer


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_without_protos_can_chat(version: str) -> None:
    async with serving() as it:
        curious = Curious(it.channel, version)
        assert SERVICE in await curious.services()
        await curious.learn(SERVICE)
        request, response = (
            curious.message("modelrouter.v1.ChatRequest"),
            curious.message("modelrouter.v1.ChatResponse"),
        )
        asked = json_format.ParseDict(
            {"model": "chat", "messages": [{"role": "ROLE_USER", "content": [{"text": "hi"}]}]}, request()
        )
        chat = it.channel.unary_unary(f"/{SERVICE}/Chat", request.SerializeToString, response.FromString)
        answer = json_format.MessageToDict(await chat(asked))
    assert answer["message"] == {"role": "ROLE_ASSISTANT", "content": [{"text": "hi"}]}


async def test_reflection_can_be_switched_off() -> None:
    async with serving(settings=ServerSettings(listen="127.0.0.1:0", reflection=False)) as it:
        for version in VERSIONS:
            # Nothing is sent: a message that the refusal overtakes fails in the client, as INTERNAL.
            call = Curious(it.channel, version).open()
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
