"""Explanations as answers have them: with our own names, or with those of Vertex AI's `Attribution`.

Source: googleapis `google/cloud/aiplatform/v1/explanation.proto`.
"""

from __future__ import annotations

import struct

from litelambda_serving.errors import PayloadTooLargeError
from litelambda_serving.http import MAX_RESPONSE_BYTES
from litelambda_serving.json_codec import dumps, number_texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from litelambda_serving.explain.attribution import Explanation
    from litelambda_serving.explain.options import Options

__all__ = ["explanation_texts", "strongest_entries"]


def explanation_texts(explanations: Sequence[Explanation], options: Options) -> list[str]:
    """The JSON of each explanation.

    Raises:
        PayloadTooLargeError: together they cannot fit a response.
    """
    write = _vertex if options.format == "vertex" else _own
    texts = []
    length = 0
    for explanation in explanations:
        texts.append(dumps(write(explanation, options.top_k)))
        length += len(texts[-1])
        if length > MAX_RESPONSE_BYTES:
            raise PayloadTooLargeError(
                f"the explanations take more than the {MAX_RESPONSE_BYTES} bytes of a synchronous response: send fewer "
                "rows at a time, or set top_k"
            )
    return texts


def strongest_entries(explanation: Explanation, count: int) -> list[dict[str, Any]]:
    """The strongest attributions, each with what it is of."""
    return [{**place, "attribution": _short(value)} for place, value in explanation.strongest(count)]


def _own(explanation: Explanation, top_k: int | None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "method": explanation.method,
        "baseline": explanation.baseline,
        "target": explanation.target,
        "label": explanation.label,
        "output": _predicted(explanation.output),
        "baseline_output": _predicted(explanation.baseline_output),
        "completeness_error": _short(explanation.completeness_error),
        "runs": explanation.runs,
    }
    found = explanation.found
    if top_k is not None:
        answer["strongest"] = strongest_entries(explanation, top_k)
        return answer
    answer["attributions"] = explanation.attributions(_all_short(found.values))
    if found.standard_errors is not None:
        answer["standard_errors"] = explanation.errors(_all_short(found.standard_errors))
    return answer


def _vertex(explanation: Explanation, top_k: int | None) -> dict[str, Any]:  # noqa: ARG001 - Vertex has no such option
    attribution: dict[str, Any] = {
        "baselineOutputValue": _predicted(explanation.baseline_output),
        "instanceOutputValue": _predicted(explanation.output),
        "featureAttributions": explanation.attributions(_all_short(explanation.found.values)),
        "outputIndex": [explanation.index],
        "approximationError": _short(explanation.completeness_error),
        "outputName": explanation.output_name,
    }
    if explanation.label is not None:
        attribution["outputDisplayName"] = explanation.label
    return {"attributions": [attribution]}


def _all_short(values: Sequence[float]) -> list[float]:
    return [_short(value) for value in values]


def _predicted(value: float) -> float:
    """A number of the model's, float32, with the digits that it has among the predictions."""
    return float(number_texts(struct.pack("<f", value), "f")[0])


def _short(value: float) -> float:
    """A number with six digits: a picture has many of them."""
    return float(f"{value:.6g}")
