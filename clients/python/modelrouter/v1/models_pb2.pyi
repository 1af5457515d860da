from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "operations", "targets", "available")
    class Operation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OPERATION_UNSPECIFIED: _ClassVar[Model.Operation]
        OPERATION_CHAT: _ClassVar[Model.Operation]
        OPERATION_EMBED: _ClassVar[Model.Operation]
    OPERATION_UNSPECIFIED: Model.Operation
    OPERATION_CHAT: Model.Operation
    OPERATION_EMBED: Model.Operation
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    operations: _containers.RepeatedScalarFieldContainer[Model.Operation]
    targets: _containers.RepeatedScalarFieldContainer[str]
    available: bool
    def __init__(self, name: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[Model.Operation, str]]] = ..., targets: _Optional[_Iterable[str]] = ..., available: _Optional[bool] = ...) -> None: ...
