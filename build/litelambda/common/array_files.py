"""Files of named arrays, strings included, to exchange with child processes; nothing is unpickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda_serving.tensor.strings import from_wire, to_wire

Arrays = dict[str, NDArray[Any]]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of numbers, or of bytes objects, as an .npz file.

    Args:
        path: the file; it must end with .npz.
        arrays: by name, which may be any text.
    """
    strings = {name: list(values.shape) for name, values in arrays.items() if values.dtype.kind == "O"}
    header = json.dumps({"names": list(arrays), "strings": strings}).encode()
    plain = [
        np.frombuffer(to_wire(values.ravel().tolist()), np.uint8) if name in strings else values
        for name, values in arrays.items()
    ]
    np.savez(path, np.frombuffer(header, np.uint8), *plain)


def read_arrays(path: Path) -> Arrays:
    """Read what `write_arrays` wrote."""
    with np.load(path, allow_pickle=False) as found:
        header = json.loads(found["arr_0"].tobytes())
        arrays = {name: found[f"arr_{index}"] for index, name in enumerate(header["names"], start=1)}
    for name, shape in header["strings"].items():
        flat = np.empty(math.prod(shape), object)
        flat[:] = from_wire(memoryview(arrays[name].tobytes()), name, math.prod(shape))
        arrays[name] = flat.reshape(shape)
    return arrays
