"""Every element of the contract says what it means: its comments are what callers in any language read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from google.protobuf import descriptor_pb2 as pb

from tests.contract.conftest import Buf

Path = tuple[int, ...]
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
"""Field numbers of FileDescriptorProto: source locations name elements by paths of them."""
_FIELDS, _NESTED, _NESTED_ENUMS, _ONEOFS = 2, 3, 4, 8
_VALUES, _METHODS = 2, 2


@pytest.fixture(scope="module")
def files(buf: Buf) -> Sequence[pb.FileDescriptorProto]:
    built = buf("build", "-o", "-")
    assert built.returncode == 0, built.stderr.decode()
    return [f for f in pb.FileDescriptorSet.FromString(built.stdout).file if f.package == "modelrouter.v1"]


def elements(file: pb.FileDescriptorProto) -> Iterator[tuple[str, Path]]:
    for i, message in enumerate(file.message_type):
        yield from in_message(message, message.name, (_MESSAGES, i))
    for i, enum in enumerate(file.enum_type):
        yield from in_enum(enum, enum.name, (_ENUMS, i))
    for i, service in enumerate(file.service):
        yield service.name, (_SERVICES, i)
        for j, method in enumerate(service.method):
            yield f"{service.name}.{method.name}", (_SERVICES, i, _METHODS, j)


def in_message(message: pb.DescriptorProto, name: str, path: Path) -> Iterator[tuple[str, Path]]:
    yield name, path
    for i, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, _FIELDS, i)
    for i, enum in enumerate(message.enum_type):
        yield from in_enum(enum, f"{name}.{enum.name}", (*path, _NESTED_ENUMS, i))
    optional = {field.oneof_index for field in message.field if field.proto3_optional}
    for i, oneof in enumerate(message.oneof_decl):
        if i not in optional:
            yield f"{name}.{oneof.name}", (*path, _ONEOFS, i)
    for i, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from in_message(nested, f"{name}.{nested.name}", (*path, _NESTED, i))


def in_enum(enum: pb.EnumDescriptorProto, name: str, path: Path) -> Iterator[tuple[str, Path]]:
    yield name, path
    for i, value in enumerate(enum.value):
        yield f"{name}.{value.name}", (*path, _VALUES, i)


def uncommented(file: pb.FileDescriptorProto) -> list[str]:
    comments = {tuple(at.path): at.leading_comments.strip() for at in file.source_code_info.location}
    return [
        f"{file.name}: {name}"
        for name, path in elements(file)
        if not comments.get(path, "").endswith(SENTENCE)
    ]


SENTENCE = (".", "buf:lint:ignore RPC_REQUEST_STANDARD_NAME")


def test_every_element_has_a_comment_in_full_sentences(files: Sequence[pb.FileDescriptorProto]) -> None:
    assert [problem for file in files for problem in uncommented(file)] == []


def test_the_whole_contract_is_looked_at(files: Sequence[pb.FileDescriptorProto]) -> None:
    names = {name for file in files for name, _ in elements(file)}

    assert {
        "ChatRequest.model",
        "ContentPart.part",
        "ToolChoice.Mode.MODE_AUTO",
        "Attempt.Outcome",
        "StreamRecovery.STREAM_RECOVERY_NONE",
        "ModelRouterService.Embed",
    } <= names


def test_a_missing_comment_is_found(files: Sequence[pb.FileDescriptorProto]) -> None:
    file = pb.FileDescriptorProto()
    file.CopyFrom(next(f for f in files if f.name.endswith("models.proto")))
    silenced = (_MESSAGES, 2, _FIELDS, 0)
    for location in file.source_code_info.location:
        if tuple(location.path) == silenced:
            location.ClearField("leading_comments")

    assert uncommented(file) == ["modelrouter/v1/models.proto: Model.name"]
