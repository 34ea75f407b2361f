"""Representative rows of an import: read, checked against the model's inputs, refused if int8 cannot be calibrated.

int8 is calibrated on one half of them and compared with the source on the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.keras_tools.model_inputs import ModelInput

Rows = dict[str, NDArray[Any]]

_STEPS = 255  # of int8, from the smallest value to the largest
_MIN_TO_HALVE = 8


def read_rows(path: Path, inputs: Sequence[ModelInput]) -> Rows:
    """Rows by input name, from an .npy file for a model of one input, or an .npz file with an array for each.

    Raises:
        DataError: the file cannot be read, or its rows do not fit the inputs.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = loaded if isinstance(loaded, Mapping) else {"rows": loaded}
            found = {name: np.asarray(arrays[name]) for name in arrays}
    except MemoryError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and tokenize raise a dozen types for damaged files
        raise DataError(f"{path} is not an .npy or .npz file of numbers: {error}") from error
    if len(inputs) == 1 and len(found) == 1:
        found = {inputs[0].name: next(iter(found.values()))}
    if missing := [each.name for each in inputs if each.name not in found]:
        raise DataError(f"{path} has no rows for {', '.join(missing)}; it has {', '.join(found)}")
    for each in inputs:
        _check_shape(path, each, found[each.name])
    lengths = {each.name: len(found[each.name]) for each in inputs}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path} has different numbers of rows: {lengths}")
    return {each.name: found[each.name].astype(each.dtype) for each in inputs}


def _check_shape(path: Path, spec: ModelInput, rows: NDArray[Any]) -> None:
    if rows.dtype.kind not in "buif":
        raise DataError(
            f"{path}: {spec.name!r} holds {rows.dtype}, expected numbers; "
            "import a model with string inputs without --representative"
        )
    row, wanted = rows.shape[1:], spec.shape[1:]
    if (
        not rows.ndim
        or not len(rows)
        or len(row) != len(wanted)
        or any(size not in (None, found) for size, found in zip(wanted, row, strict=True))
    ):
        raise DataError(f"{path}: {spec.name!r} has shape {list(rows.shape)}, expected rows of {list(wanted)}")


def halves(rows: Mapping[str, NDArray[Any]], step: int = 1) -> tuple[list[int], list[int]]:
    """Split rows into those to calibrate with and those to compare on, by number; with few rows both are all of them.

    >>> halves({"x": np.zeros((9, 4))})
    ([0, 2, 4, 6, 8], [1, 3, 5, 7])


    Args:
        rows: by input name.
        step: rows that the model takes at a time.

    Raises:
        DataError: there are fewer than that.
    """
    count = len(next(iter(rows.values())))
    if count < step:
        raise DataError(f"the model takes {step} rows at a time, and there are {count} representative rows: give more")
    if count < max(_MIN_TO_HALVE, 2 * step):
        return list(range(count)), list(range(count))
    return list(range(0, count, 2)), list(range(1, count, 2))


def check_rows(rows: Mapping[str, NDArray[Any]], *, accept_loss: bool) -> list[str]:
    """Refuse rows that int8 cannot be calibrated with.

    Args:
        rows: by input name.
        accept_loss: refuse only what is not finite.

    Returns:
        Warnings about rows that are accepted all the same.

    Raises:
        DataError: values are not finite, all alike, or so far apart that int8 has one step for nearly all of them.
    """
    for name, values in rows.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
            raise DataError(
                f"the representative rows of input {name!r} hold NaN or infinity in {int(bad.sum())} of {len(values)} "
                f"rows, the first is row {int(bad.argmax())}: leave these rows out"
            )
    found = {name: list(_complaints(name, values)) for name, values in rows.items()}
    complaints = [each for some in found.values() for each in some]
    is_alike = [bool(some) and "outlier" not in some[0] for some in found.values()]
    refused = all(is_alike) or any("outlier" in each for each in complaints)
    if refused and not accept_loss:
        raise DataError(
            f"{'; '.join(complaints)}. int8 calibrated with them would answer nearly the same to every request: give "
            "rows as the model will see them, or --accept-loss to import it all the same"
        )
    return complaints


def _complaints(name: str, values: NDArray[Any]) -> Iterator[str]:
    flat = values.reshape(len(values), -1)
    if flat.size and (flat == flat.flat[0]).all():
        yield f"the representative rows of input {name!r} are constant, all values are {flat.flat[0]:g}"
        return
    if len(flat) > 1 and (flat == flat[0]).all():
        yield f"the representative rows of input {name!r} are all the same row"
        return
    if flat.dtype.kind != "f":
        return
    sizes = np.abs(flat, dtype=np.float64)
    largest = float(sizes.max())
    if float(flat.max()) - float(flat.min()) < largest / _STEPS:
        yield (
            f"the representative rows of input {name!r} are nearly constant, from {flat.min():g} to {flat.max():g}, "
            "within one step of int8"
        )
        return
    usual = float(np.quantile(sizes[sizes > 0], 0.99, method="lower"))
    if largest > usual * _STEPS:
        row = int(sizes.max(axis=1).argmax())
        yield (
            f"the representative rows of input {name!r} have an outlier, {largest:g} in row {row}, where 99 % of the "
            f"values are within {usual:g}: int8 would have one step for all of these"
        )
