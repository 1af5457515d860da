"""The committed Python stubs, on whichever protobuf and grpcio is installed."""

from __future__ import annotations

import re
import tomllib
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2 as pb
from google.protobuf.json_format import MessageToDict

from modelrouter.v1 import chat_pb2, common_pb2, embed_pb2, models_pb2, service_pb2, service_pb2_grpc
from tests.contract.conftest import ROOT, Buf

MODULES = [chat_pb2, common_pb2, embed_pb2, models_pb2, service_pb2]
STUBS = ROOT / "clients/python/modelrouter/v1"


def test_the_stubs_are_those_of_the_protos(buf: Buf) -> None:
    built = pb.FileDescriptorSet.FromString(buf("build", "--exclude-source-info", "-o", "-").stdout)
    protos = {file.name: file for file in built.file if file.package == "modelrouter.v1"}

    for module in MODULES:
        stub = pb.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(stub)
        assert MessageToDict(stub) == MessageToDict(without_json_names(protos.pop(stub.name)))
    assert protos == {}


def without_json_names(file: pb.FileDescriptorProto) -> pb.FileDescriptorProto:
    """Buf writes the default JSON name of every field; protoc leaves it to the reader."""
    plain = pb.FileDescriptorProto.FromString(file.SerializeToString())
    plain.ClearField("syntax")
    plain.syntax = "proto3"
    for message in plain.message_type:
        strip(message)
    return plain


def strip(message: pb.DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        strip(nested)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.DESCRIPTOR.name)
def test_every_language_has_its_package(module: ModuleType) -> None:
    options = module.DESCRIPTOR.GetOptions()

    assert options.go_package == "modelrouter/clients/go/modelrouter/v1;modelrouterv1"
    assert options.java_package == "modelrouter.v1"
    assert options.java_multiple_files


def test_the_stubs_load_on_the_oldest_protobuf_allowed() -> None:
    """Generated code refuses a runtime older than its generator; this fails before a user finds out."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = dict(requirement.split(",")[0].split(">=") for requirement in requirements)

    assert generated_by(r"Protobuf Python Version: (\S+)") == {bounds["protobuf"]}
    assert generated_by(r"GRPC_GENERATED_VERSION = '(\S+)'") == {bounds["grpcio"]}


def generated_by(pattern: str) -> set[str]:
    return {version for path in STUBS.glob("*.py") for version in re.findall(pattern, path.read_text())}


def test_only_the_service_has_a_grpc_stub() -> None:
    assert [path.name for path in STUBS.glob("*_pb2_grpc.py")] == ["service_pb2_grpc.py"]
    assert {path.stem for path in STUBS.glob("*.pyi")} == {path.stem for path in STUBS.glob("*_pb2*.py")}


def test_the_service_offers_its_four_calls() -> None:
    service = service_pb2.DESCRIPTOR.services_by_name["ModelRouterService"]

    calls = {method.name: method.server_streaming for method in service.methods}

    assert calls == {"Chat": False, "StreamChat": True, "Embed": False, "ListModels": False}
    assert all(hasattr(service_pb2_grpc.ModelRouterServiceServicer, name) for name in calls)


def test_a_message_survives_the_wire() -> None:
    request = chat_pb2.ChatRequest(
        model="chat",
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="größer")])],
        generation=chat_pb2.GenerationConfig(temperature=0.0),
        labels={"team": "search"},
    )

    received = chat_pb2.ChatRequest.FromString(request.SerializeToString())

    assert received == request
    assert received.generation.HasField("temperature")
    assert not received.generation.HasField("top_p")
