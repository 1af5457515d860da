"""A quantised GGUF file as one of half-precision floats, one tensor in memory at a time.

Refuses to know which model it is and where the file is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

_PER_CENT = 100
_STEP = 25
"""Progress is told once for so many per cent."""


def dequantise(source: Path, target: Path, progress: Callable[[str], None]) -> None:
    """Write ``source`` to ``target`` with every quantised tensor as F16; on return it is on the disk.

    Raises:
        OSError: ``target`` cannot be written, or the disk is full.
    """
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    try:
        _copy_metadata(reader, writer)
        _announce_tensors(reader, writer)
        _write_tensors(reader, writer, progress)
    finally:
        writer.close()
    _sync(target)


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    written_by_the_writer = {"general.architecture", "general.file_type"}
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in written_by_the_writer:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _announce_tensors(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for tensor in reader.tensors:
        dtype = _wide(tensor)
        shape = [int(length) for length in reversed(tensor.shape)]
        writer.add_tensor_info(tensor.name, shape, dtype, int(tensor.n_elements) * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _write_tensors(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, progress: Callable[[str], None]) -> None:
    total = sum(int(tensor.n_elements) for tensor in reader.tensors)
    done, told = 0, 0
    for tensor in reader.tensors:
        writer.write_tensor_data(gguf.dequantize(tensor.data, tensor.tensor_type).astype(_wide(tensor)))
        done += int(tensor.n_elements)
        reached = _PER_CENT * done // total // _STEP * _STEP
        if reached > told:
            told = reached
            progress(f"{told} % converted")


def _wide(tensor: gguf.ReaderTensor) -> np.dtype[np.floating]:
    """Norms are stored as F32 and stay so; all else becomes F16."""
    return np.dtype(np.float32 if tensor.tensor_type is gguf.GGMLQuantizationType.F32 else np.float16)


def _sync(target: Path) -> None:
    with target.open("rb+") as file:
        os.fsync(file.fileno())
