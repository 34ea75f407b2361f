"""What a .npy file says of itself, and whether it is true: files come from anywhere."""

from __future__ import annotations

import io
import warnings
from typing import IO, Any

import numpy as np

from litelambda_serving.scoring.errors import SchemaError, UnreadableInputError

__all__ = ["MAX_HEADER_BYTES", "check_end", "parse_header", "read_header"]

MAX_HEADER_BYTES = 16 * 1024
"""More than numpy itself takes."""

_MAX_SHOWN = 200  # characters of another's message, which may hold all that it read


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in Fortran order, and dtype; the stream is then at the first value.

    Raises:
        ValueError: not a .npy file; its parser raises nearly anything else for a damaged header.
    """
    version = np.lib.format.read_magic(stream)
    if version > (3, 0):
        raise ValueError(f"a .npy file of format version {version}, expected 1 to 3")
    # Of the third, numpy has no function of its own: it differs from the second in the text's encoding.
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Python 2 wrote is read all the same
        header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(stream)
    return header


def parse_header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype and length of a .npy header.

    Raises:
        UnreadableInputError: not a .npy file, or of Python objects.
        SchemaError: in Fortran's order, whose rows are scattered over the file, or without rows.
    """
    stream = io.BytesIO(data)
    try:
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # a damaged header is not a Python literal, and its parser raises nearly anything
        raise UnreadableInputError(f"not a .npy array: {type(error).__name__}: {str(error)[:_MAX_SHOWN]}") from error
    if min(shape, default=0) < 0:
        raise UnreadableInputError(f"not a .npy array: its shape is {shape}")
    if dtype.hasobject or dtype.kind not in "biuf":
        raise UnreadableInputError(f"the array has dtype {dtype}, expected numbers")
    if fortran and len(shape) > 1:
        raise SchemaError("the array is in Fortran order: save it with numpy.ascontiguousarray")
    if not shape:
        raise SchemaError("the array is a single value: expected rows along the first axis")
    return shape, dtype, stream.tell()


def check_end(size: int, promised: int) -> None:
    """Whether a file ends with the rows that its header promises.

    Raises:
        UnreadableInputError: before or after.
    """
    if size < promised:
        raise UnreadableInputError(f"the file is too short for the rows that its header promises: {size} bytes")
    if size > promised:
        raise UnreadableInputError("more bytes follow the rows that the header promises: save one array to a file")
