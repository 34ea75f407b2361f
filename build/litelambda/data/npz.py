"""Reads arrays by name: the members of a .npz file, or a folder of .npy files."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from litelambda.common.archive_errors import ARCHIVE_ERRORS
from litelambda.common.errors import DataError
from litelambda.data.stored_rows import RawDataset, Split, StoredRows, file_rows, needs_streaming, open_descriptor
from litelambda.recipe.sections import ArraysData, NpyData
from litelambda_serving.scoring.formats.npy_header import read_header

_LOCAL_HEADER_BYTES = 30  # of a member of a .zip, before its name


@dataclass(frozen=True)
class _Header:
    """The header of an array.

    Attributes:
        shape: number of rows, then the shape of one.
        dtype: of the values.
        by_columns: whether they are in Fortran order.
        size: bytes before the first value.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool
    size: int


class _Arrays(Protocol):
    """Arrays by name, on disk."""

    names: set[str]

    def header(self, name: str) -> _Header:
        """Read an array's header."""

    def load(self, name: str) -> NDArray[Any]:
        """Read an array."""

    def open(self, name: str, header: _Header) -> tuple[int, int]:
        """A descriptor of a file with the uncompressed array, and its offset in that file."""


def read_array_files(path: Path, settings: ArraysData) -> RawDataset:
    """Read a data set of arrays, its rows into memory or when they are indexed.

    Raises:
        DataError: the file or folder is missing, lacks arrays, or cannot be read.
        OSError: the file cannot be read.
    """
    with _refusals(path):
        arrays: _Arrays = _Folder(path) if isinstance(settings, NpyData) else _Npz(path)
        rows = {name: arrays.header(name) for name in sorted(arrays.names) if name.split("_")[0] == "x"}
        num_bytes = sum(int(np.prod(header.shape)) * 4 for header in rows.values())
        streamed = needs_streaming(num_bytes) if settings.streaming is None else settings.streaming

        def split(part: str) -> Split | None:
            pair = [name for name in (f"x{part}", f"y{part}") if name in arrays.names]
            if not pair:
                return None
            if len(pair) == 1:
                raise DataError(f"{path} has only {pair[0]}; expected both x{part} and y{part}")
            header = rows[f"x{part}"]
            if not header.shape:
                raise DataError(f"{path}: x{part} is a single number, expected rows")
            found = _stream(arrays, f"x{part}", header, path) if streamed else StoredRows.of(arrays.load(f"x{part}"))
            return Split(found, arrays.load(f"y{part}"))

        train = split("_train" if "x_train" in arrays.names else "")
        if train is None:
            names = ", ".join(sorted(arrays.names)) or "nothing"
            raise DataError(f"{path} has {names}; expected x_train, y_train or x, y")
        return RawDataset(train, split("_validation"), split("_test"), streamed)


def _stream(arrays: _Arrays, name: str, header: _Header, path: Path) -> StoredRows:
    if header.by_columns:
        raise DataError(
            f"{path}: {name} is in Fortran order and cannot be read row by row: save numpy.ascontiguousarray of it, "
            "or set data.streaming = false"
        )
    descriptor, start = arrays.open(name, header)
    return file_rows(descriptor, start + header.size, header.shape, header.dtype, f"{path}: {name}")


class _Npz:
    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise DataError(f"{path} is a single array, expected a .npz with x_train and y_train")
        with zipfile.ZipFile(path) as archive:
            self._members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        self._path = path
        self.names = set(self._members)

    def header(self, name: str) -> _Header:
        with zipfile.ZipFile(self._path) as archive, archive.open(self._members[name]) as file:
            return _read_header(file)

    def load(self, name: str) -> NDArray[Any]:
        with np.load(self._path, allow_pickle=False) as arrays:
            array: NDArray[Any] = arrays[name]
            return array

    def open(self, name: str, header: _Header) -> tuple[int, int]:  # noqa: ARG002 - of the protocol
        member = self._members[name]
        if member.compress_type == zipfile.ZIP_STORED:
            descriptor = open_descriptor(self._path)
            local = os.pread(descriptor, _LOCAL_HEADER_BYTES, member.header_offset)
            names = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
            return descriptor, member.header_offset + _LOCAL_HEADER_BYTES + names
        # A compressed member has no random access: it is unpacked once, into a file that its last reader deletes.
        with (
            zipfile.ZipFile(self._path) as archive,
            archive.open(member) as packed,
            tempfile.TemporaryFile() as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked, 1 << 20)
            unpacked.flush()
            return os.dup(unpacked.fileno()), 0


class _Folder:
    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise DataError(f"{path} is a file; data.format = 'npy' expects a folder with x_train.npy and y_train.npy")
        self._path = path
        self.names = {file.stem for file in path.glob("*.npy")}

    def header(self, name: str) -> _Header:
        with (self._path / f"{name}.npy").open("rb") as file:
            return _read_header(file)

    def load(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self._path / f"{name}.npy", allow_pickle=False)
        return array

    def open(self, name: str, header: _Header) -> tuple[int, int]:  # noqa: ARG002 - of the protocol
        return open_descriptor(self._path / f"{name}.npy"), 0


def _read_header(file: IO[bytes]) -> _Header:
    shape, by_columns, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("object arrays are not supported")
    return _Header(shape, dtype, by_columns and len(shape) > 1, file.tell())


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Name the file that NumPy or zipfile cannot read."""
    try:
        yield
    except ARCHIVE_ERRORS as error:
        what = "readable folder of .npy files" if path.is_dir() else "readable .npz file"
        raise DataError(f"{path} is not a {what}: {error}") from error
