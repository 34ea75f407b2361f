"""TensorFlow Serving's predictions in parts: rows, columns, or a line for each row."""

from __future__ import annotations

from litelambda_serving.json_codec import dumps
from litelambda_serving.streaming import JSON_LINES, Prediction, in_parts, is_large
from litelambda_serving.streaming.encodings import columns, lines, rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from litelambda_serving.http import Request, Response
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.servable import Servable
    from litelambda_serving.tensor import Tensor

    Outputs = dict[str, Tensor]

__all__ = ["Form", "predict"]


class Form:
    """How TensorFlow Serving's protocol writes an answer.

    Attributes:
        in_rows: whether it has the row format.
        obstacle: why it cannot be made row by row; "" where it can.
        shortened: the output of which a row has its best classes alone; "" without one.
        named: puts names in place of numbers.
        documents: the JSON of each row.
        texts: the JSON of each entry of a tensor.
    """

    __slots__ = ("documents", "in_rows", "named", "obstacle", "shortened", "texts")

    def __init__(
        self,
        named: Callable[[Outputs], Outputs],
        documents: Callable[[Outputs], list[str]],
        texts: Callable[[str, Tensor], list[str]],
        *,
        in_rows: bool,
        obstacle: str = "",
        shortened: str = "",
    ) -> None:
        self.in_rows = in_rows
        self.obstacle = obstacle
        self.shortened = shortened
        self.named = named
        self.documents = documents
        self.texts = texts


def predict(
    request: Request,
    servable: Servable | Shadowed,
    key: str,
    inputs: Mapping[str, Tensor],
    began_ns: int,
    form: Form,
) -> Response | None:
    """Answer a request in parts, where it asks for that or its answer may be large; None where it is to be buffered.

    Args:
        request: the request.
        servable: that answers it.
        key: of the signature.
        inputs: its tensors.
        began_ns: `time.perf_counter_ns()` of the request's beginning.
        form: of the answer.
    """
    signature = servable.manifest.signatures[key]
    as_lines, may_stream = in_parts(request, signature, form.obstacle)
    names = [spec.name for spec in signature.outputs]
    if not as_lines:
        long = [name for name in names if name != form.shortened]
        large = may_stream and is_large(signature, signature.count_rows(inputs), long)
        if not large or (form.shortened and not form.in_rows):
            return None
    prediction = Prediction(request, servable, key, inputs, began_ns)
    texts = None if form.shortened else form.texts
    if as_lines:
        return prediction.answer(
            lambda blocks: lines(map(form.named, blocks), form.documents, texts), "predict", JSON_LINES
        )
    if form.in_rows:
        return prediction.answer(lambda blocks: rows(map(form.named, blocks), form.documents, texts), "predict")
    several = len(names) > 1

    def opening(name: str, _: Tensor) -> str:
        start = '{"outputs":' + ("{" if several else "") if name == names[0] else "],"
        return start + (dumps(name) + ":[" if several else "[")

    ending = "]}}" if several else "]}"
    return prediction.answer(
        lambda blocks: columns(map(form.named, blocks), names, opening, ending, form.texts), "predict"
    )
