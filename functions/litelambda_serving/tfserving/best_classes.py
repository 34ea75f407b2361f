"""`top_k` and `threshold` of a `:predict` request: the best classes by name, in place of a value for each.

Imported with the first such request.
"""

from __future__ import annotations

from litelambda_serving.errors import MalformedRequestError, RequestError
from litelambda_serving.json_codec import dumps
from litelambda_serving.tensor import json_text, unpack_flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from litelambda_serving.manifest import Manifest, SignatureSpec
    from litelambda_serving.tensor import Tensor, TensorSpec

__all__ = ["BestClasses", "scores_of"]

_LARGEST = 3.4e38  # of float32


class BestClasses:
    """What a request asks for, in place of an output that has a value for each class.

    Attributes:
        output: the output; the others are answered as ever.
        row_values: at most so many classes of a row are named.
    """

    def __init__(self, fields: Mapping[str, Any], signature: SignatureSpec, manifest: Manifest) -> None:
        """Read the request's `top_k` (the most classes for a row) and `threshold` (the least score of one).

        Args:
            fields: the request's JSON, with one of them or both.
            signature: that it asks for.
            manifest: of the model.

        Raises:
            MalformedRequestError: they are not a positive number of classes, and a finite number.
            RequestError: no output of the model has a value for each class.
        """
        count, threshold = fields.get("top_k"), fields.get("threshold")
        if count is not None and (type(count) is not int or count < 1):
            raise MalformedRequestError(f"'top_k' is {dumps(count)[:40]}: expected a number of classes from 1")
        if threshold is not None and (type(threshold) not in (int, float) or not -_LARGEST <= threshold <= _LARGEST):
            raise MalformedRequestError(f"'threshold' is {dumps(threshold)[:40]}: expected a finite number")
        spec = scores_of(signature, manifest)
        if spec is None:
            raise RequestError(
                "'top_k' and 'threshold' are for classes, and no output of this model has a score for each class: "
                f"{', '.join(map(repr, signature.outputs))}"
            )
        num_classes = spec.shape[1]
        self.output = spec.name
        self.row_values = min(count or num_classes, num_classes)
        self._threshold = threshold
        labels = manifest.labels
        named = labels or [f"{index}" for index in range(num_classes)]
        self._labels = [f'{{"label":{dumps(label)},"score":' for label in named]

    def row_texts(self, tensor: Tensor) -> list[str]:
        """The best classes of each row as JSON, the best first; of equal ones, that with the smaller index."""
        values = unpack_flat(tensor)
        texts = json_text(tensor.data, tensor.dtype, (len(values),)).split(",")
        width = len(self._labels)
        return [
            self._row_text(values[start : start + width], texts[start : start + width])
            for start in range(0, len(values), width)
        ]

    def _row_text(self, row: Sequence[float], texts: Sequence[str]) -> str:
        least, labels = self._threshold, self._labels
        # NaN is not a score: such a class comes last, and reaches no threshold.
        order = sorted(range(len(row)), key=lambda index: (row[index] == row[index], row[index]), reverse=True)
        named = [
            f"{labels[index]}{texts[index]}}}"
            for index in order[: self.row_values]
            if least is None or row[index] >= least
        ]
        return f"[{','.join(named)}]"


def scores_of(signature: SignatureSpec, manifest: Manifest) -> TensorSpec | None:
    """The output with a score for each label; of a model without labels, the first with several values for each row."""
    if manifest.task == "regression" or manifest.vocabularies:
        return None
    count = len(manifest.labels or ())
    for spec in signature.outputs:
        width = spec.shape[1] if len(spec.shape) == 2 and spec.dtype.kind in ("float", "int") else 0
        if width == count if count else width > 1:
            return spec
    return None
