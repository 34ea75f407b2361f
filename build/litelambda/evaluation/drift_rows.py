"""The rows that a version's drift is measured from: a build's test rows, an import's representative rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import FlatbufferSignature
from litelambda.artifact.reference import Reference, to_codes
from litelambda.common.arrays import Arrays
from litelambda.data.dataset import Dataset
from litelambda.evaluation.drift_baseline import make_baseline

_MAX_ROWS = 10_000  # more make neither the test more powerful nor the bins finer
_MAX_RUN_ROWS = 4_000  # of those that the reference Interpreter has yet to run, one by one


def baseline_of_test_rows(
    signature: FlatbufferSignature, data: Dataset, outputs: NDArray[Any], artifact: bytes, seed: int
) -> dict[str, Any]:
    """The manifest's `drift` of a build, from rows that the model was not trained on.

    Args:
        signature: the manifest's.
        data: of the build.
        outputs: what the artifact answered to its test rows, as real values; empty where there are several outputs.
        artifact: that answers where there are no `outputs`.
        seed: of the rows that are chosen where there are many.
    """
    preprocessing = data.preprocessing and {each.name: data.preprocessing.to_json() for each in signature.inputs}
    chosen = _sample(len(data.test), _MAX_ROWS if len(outputs) else _MAX_RUN_ROWS, seed)
    inputs = {each.name: to_codes(data.test.x[chosen], each) for each in signature.inputs}
    if len(outputs):
        answers = {each.name: to_codes(outputs[chosen], each) for each in signature.outputs}
    else:
        answers = Reference(artifact, signature.key).run(inputs, 1)
    assets = data.preprocessing.assets if data.preprocessing else {}
    return make_baseline(
        signature, inputs, answers, preprocessing=preprocessing or {}, assets=assets, labels=data.labels
    )


def baseline_of_representative_rows(
    signature: FlatbufferSignature,
    rows: Arrays | None,
    artifact: bytes,
    preprocessing: Mapping[str, Any],
    assets: Mapping[str, bytes],
    labels: list[str] | None,
) -> dict[str, Any]:
    """The manifest's `drift` of an import; empty without rows, or where a run has no rows.

    Args:
        signature: the manifest's.
        rows: by input, as real values.
        artifact: what answers to them.
        preprocessing: the manifest's.
        assets: contents of the files that it names.
        labels: names of the classes.
    """
    if rows is None or any(tensor.shape[:1] != (-1,) for tensor in signature.inputs):
        return {}
    chosen = _sample(len(next(iter(rows.values()))), _MAX_RUN_ROWS, seed=0)
    inputs = {each.name: to_codes(rows[each.name][chosen], each) for each in signature.inputs}
    outputs = Reference(artifact, signature.key).run(inputs, 1)
    return make_baseline(signature, inputs, outputs, preprocessing=preprocessing, assets=assets, labels=labels)


def _sample(count: int, most: int, seed: int) -> NDArray[np.intp]:
    """Which of so many rows are taken, ascending: all, or a seeded sample."""
    chosen: NDArray[np.intp] = np.sort(np.random.default_rng(seed).permutation(count)[:most])
    return chosen
