"""Models whose weights or answers are not finite are refused before anything else opens them.

A converter turns them into scales that are NaN, and the Interpreter of such a flatbuffer takes its process down.
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
        reason: how it came to this, and what to do, for the message.

    Raises:
        TrainError: it has such weights; the message says how many, and where.
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
    """Refuse a float model that answers with NaN or infinity.

    Args:
        outputs: its answers, (rows, …).
        rows: what they are answers to, for the message.

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
    """How many rows hold a value that is NaN or infinite."""
    return int((~np.isfinite(outputs)).reshape(len(outputs), -1).any(axis=1).sum())
