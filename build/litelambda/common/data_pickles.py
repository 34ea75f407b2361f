"""Reads a pickle from a process that is not trusted: of what it may name, data alone is made.

That is arrays of numpy, paths, ranges, and this project's own data classes, enumerations and errors. A pickle that
names a function, or a class that does things when it is made, is refused before it is called.
"""

from __future__ import annotations

import dataclasses
import enum
import io
import pickle
from typing import Any

from litelambda.common.errors import LitelambdaError
from litelambda_serving.errors import ServingError

_OURS = ("litelambda", "litelambda_serving")
_LIBRARIES = {
    *(("builtins", name) for name in ("bytearray", "complex", "range", "slice")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("ml_dtypes", "bfloat16"),
    ("pathlib", "PosixPath"),
    ("pathlib._local", "PosixPath"),
}


def load_data(pickled: bytes) -> Any:
    """Read a pickle that may hold data alone.

    Raises:
        pickle.UnpicklingError: it is damaged, or names what is not data.
    """
    try:
        return _DataUnpickler(io.BytesIO(pickled)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # EOFError, IndexError, what a class says of its values
        raise pickle.UnpicklingError(f"a damaged pickle ({type(error).__name__}: {error})") from error


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _LIBRARIES:
            return super().find_class(module, name)
        if module.partition(".")[0] in _OURS and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module and _is_data(found):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is not data")


def _is_data(found: type) -> bool:
    return dataclasses.is_dataclass(found) or issubclass(found, (enum.Enum, LitelambdaError, ServingError))
