from modelrouter.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmbeddingTask(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMBEDDING_TASK_UNSPECIFIED: _ClassVar[EmbeddingTask]
    EMBEDDING_TASK_QUERY: _ClassVar[EmbeddingTask]
    EMBEDDING_TASK_DOCUMENT: _ClassVar[EmbeddingTask]

class EmbeddingEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMBEDDING_ENCODING_UNSPECIFIED: _ClassVar[EmbeddingEncoding]
    EMBEDDING_ENCODING_FLOAT32: _ClassVar[EmbeddingEncoding]
    EMBEDDING_ENCODING_FLOAT32_BYTES: _ClassVar[EmbeddingEncoding]
EMBEDDING_TASK_UNSPECIFIED: EmbeddingTask
EMBEDDING_TASK_QUERY: EmbeddingTask
EMBEDDING_TASK_DOCUMENT: EmbeddingTask
EMBEDDING_ENCODING_UNSPECIFIED: EmbeddingEncoding
EMBEDDING_ENCODING_FLOAT32: EmbeddingEncoding
EMBEDDING_ENCODING_FLOAT32_BYTES: EmbeddingEncoding

class EmbedRequest(_message.Message):
    __slots__ = ("model", "inputs", "dimensions", "task", "encoding", "routing", "labels", "user_id", "idempotency_key", "provider_options_json")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ProviderOptionsJsonEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_OPTIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[EmbedInput]
    dimensions: int
    task: EmbeddingTask
    encoding: EmbeddingEncoding
    routing: _common_pb2.RoutingOptions
    labels: _containers.ScalarMap[str, str]
    user_id: str
    idempotency_key: str
    provider_options_json: _containers.ScalarMap[str, str]
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[EmbedInput, _Mapping]]] = ..., dimensions: _Optional[int] = ..., task: _Optional[_Union[EmbeddingTask, str]] = ..., encoding: _Optional[_Union[EmbeddingEncoding, str]] = ..., routing: _Optional[_Union[_common_pb2.RoutingOptions, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., user_id: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., provider_options_json: _Optional[_Mapping[str, str]] = ...) -> None: ...

class EmbedInput(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("id", "model", "dimensions", "embeddings", "matrix_le_f32", "usage", "route")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    MATRIX_LE_F32_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    dimensions: int
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    matrix_le_f32: bytes
    usage: _common_pb2.Usage
    route: _common_pb2.RouteInfo
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., dimensions: _Optional[int] = ..., embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ..., matrix_le_f32: _Optional[bytes] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., route: _Optional[_Union[_common_pb2.RouteInfo, _Mapping]] = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...
