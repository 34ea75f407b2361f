"""Refuses models whose weights or outputs are not finite, before they are converted.

The converter turns such weights into NaN scales, and the Interpreter crashes on the flatbuffer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import TrainError
from litelambda.keras_tools.layers import read

DIVERGED = "training diverged: lower train.optimizer.learning_rate, or normalize the data (data.normalize)"


def check_weights(model: Any, reason: str) -> None:
    """Refuse a model with weights that are NaN or infinite.

    Args:
        model: the Keras model.
        reason: the likely cause, and what to do, for the message.

    Raises:
        TrainError: it has such weights; the message says how many, and in which variables.
    """
    found = {variable.path: read(variable) for variable in model.weights if "float" in variable.dtype}
    bad = {path: int((~np.isfinite(values.astype(np.float32))).sum()) for path, values in found.items()}
    where = [path for path, count in bad.items() if count]
    if where:
        total = sum(values.size for values in found.values())
        raise TrainError(
            f"{sum(bad.values()):,} of {total:,} weights are NaN or infinite, in {', '.join(where[:5])}"
            f"{', …' if len(where) > 5 else ''}: {reason}"
        )


def check_outputs(outputs: NDArray[Any], rows: str) -> None:
    """Refuse a float model whose outputs are NaN or infinite.

    Args:
        outputs: the model's, (rows, …).
        rows: the name of the split, for the message.

    Raises:
        TrainError: it does.
    """
    bad = count_not_finite(outputs)
    if bad:
        raise TrainError(
            f"the float model answers {bad:,} of {len(outputs):,} {rows} rows with NaN or infinity, though its weights "
            f"are numbers: {DIVERGED}"
        )


def count_not_finite(outputs: NDArray[Any]) -> int:
    """Count the rows with a value that is NaN or infinite.

    Example:
        >>> count_not_finite(np.array([[1.0, 2.0], [np.nan, 2.0]]))
        1
    """
    return int((~np.isfinite(outputs)).reshape(len(outputs), -1).any(axis=1).sum())
