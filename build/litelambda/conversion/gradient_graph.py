"""Integrated gradients as a graph: the whole path from a baseline to a row in one run.

Sundararajan, Taly and Yan (2017), "Axiomatic Attribution for Deep Networks". The integral along the path is a sum over
Gauss-Legendre points, all of them, the row and the baseline being one batch.

Numbers of tokens have no gradient. For an input of these the path leads through the embeddings: from those of the
baseline to those of the row, while whatever else the model reads of the tokens, such as where the padding begins, stays
the row's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import ConversionError
from litelambda.conversion.export import rewrites_for
from litelambda.conversion.gradient_operators import gelu, gradients_for_tflite
from litelambda.conversion.rewrites import Rewrite, proven, rewritten
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from litelambda.keras_tools.graph import call, overridden
from litelambda.keras_tools.output_names import output_names


def gauss_legendre(points: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where between 0 and 1 to take the gradient, and the share of each point.

    >>> places, shares = gauss_legendre(2)
    >>> [round(place, 3) for place in places.tolist()], shares.tolist()
    ([0.211, 0.789], [0.5, 0.5])
    """
    places, shares = np.polynomial.legendre.leggauss(points)
    return ((places + 1) / 2).astype(np.float32), (shares / 2).astype(np.float32)


class PathGradients:
    """A Keras model and the paths through it."""

    def __init__(self, model: Any) -> None:
        """Look at a model.

        Raises:
            ConversionError: none of its outputs, or one of its inputs, has a gradient.
        """
        self._model = model
        self._rewrites = [*proven(model, rewrites_for(model)), *_exact_gelus(model)]
        kinds = [np.dtype(each.dtype).kind if each.dtype != "string" else "S" for each in model.inputs]
        self._tokens = [kind in "iu" for kind in kinds]
        for tensor, kind in zip(model.inputs, kinds, strict=True):
            if kind not in "fiu":
                raise ConversionError(f"input {tensor.name!r} of {tensor.dtype} has no gradient")
            if None in tensor.shape[1:] or tensor.shape[:1] not in ((None,), (1,)):
                raise ConversionError(f"input {tensor.name!r} is not a row of a known shape: {list(tensor.shape)}")
        self.outputs = [
            name
            for name, tensor in zip(output_names(model), model.outputs, strict=True)
            if np.dtype(tensor.dtype if tensor.dtype != "bfloat16" else "float32").kind == "f"
        ]
        if not self.outputs:
            raise ConversionError("none of the outputs is of floating point")
        self.num_outputs = sum(
            int(np.prod([*tensor.shape[1:]])) for tensor in model.outputs if "float" in str(tensor.dtype)
        )

    def specs(self) -> list[Any]:
        """What `attributions` takes after the points: rows, baselines, the span and the target."""
        tf, inputs = load_tensorflow(), self._model.inputs
        tensors = [
            tf.TensorSpec((1, *tensor.shape[1:]), "int32" if is_ids else "float32", name=f"{kind}_{index}")
            for kind in ("row", "baseline")
            for index, (tensor, is_ids) in enumerate(zip(inputs, self._tokens, strict=True))
        ]
        span = tf.TensorSpec((1, 2), "float32", name="span")
        return [*tensors, span, tf.TensorSpec((1, self.num_outputs), "float32", name="target")]

    def over(self, points: int) -> Callable[..., dict[str, Any]]:
        """A function for a graph, of what `specs` names: `attributions` at so many points."""
        return partial(self.attributions, *gauss_legendre(points))

    def attributions(self, places: Any, shares: Any, *tensors: Any) -> dict[str, Any]:
        """Attribute the difference that a row makes, compared with its baseline, in some output.

        Args:
            places: of the points on the path, (points,).
            shares: of the integral, (points,).
            tensors: the inputs of the row, and those of the baseline; the span, which part of the path is meant, 0 to 1
                for all of it; and the target, how much each output counts, 1 for the one that is explained.

        Returns:
            `attributions_0`, … by input, each in the shape of a row, of tokens one each; the `output` at the end of the
            span, and the `baseline_output` at its beginning.
        """
        tf, count = load_tensorflow(), len(self._model.inputs)
        rows, baselines, (span, target) = tensors[:count], tensors[count:-2], tensors[-2:]
        places, shares = (tf.concat([each, end], 0) for each, end in ((places, [1.0, 0.0]), (shares, [0.0, 0.0])))
        batch, length = places.shape[0], span[:, 1] - span[:, 0]
        places = span[:, 0] + length * places
        with ExitStack() as stack:
            stack.enter_context(rewritten(self._rewrites))
            stack.enter_context(gradients_for_tflite())
            starts, ends = self._ends(rows, baselines)
            paths = [
                start + tf.reshape(places, [batch, *[1] * (start.shape.rank - 1)]) * (end - start)
                for start, end in zip(starts, ends, strict=True)
            ]
            outputs = self._run(paths, rows, batch)
            gradients = tf.gradients(outputs, paths, tf.reshape(length * shares, [batch, 1]) * target)
        found = {}
        for index, (start, end, gradient) in enumerate(zip(starts, ends, gradients, strict=True)):
            if gradient is None:
                raise ConversionError(f"the answer does not depend on input {self._model.inputs[index].name!r}")
            total = (end - start) * tf.reduce_sum(gradient, 0, keepdims=True)
            found[f"attributions_{index}"] = tf.reduce_sum(total, -1) if self._tokens[index] else total
        last = tf.reduce_sum(outputs[-2:] * target, 1, keepdims=True)
        return {**found, "output": last[:1], "baseline_output": last[1:]}

    def _ends(self, rows: Sequence[Any], baselines: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Where each input's path begins and ends: at its values, or at the embeddings of its tokens."""
        if not any(self._tokens):
            return list(baselines), list(rows)
        sides = []
        for tensors in (baselines, rows):
            with self._embeddings(tensors, None) as found:
                call(self._model, tensors)
            sides.append([found.get(at, tensor) for at, tensor in enumerate(tensors)])
            for at, is_ids in enumerate(self._tokens):
                if is_ids and at not in found:
                    name = self._model.inputs[at].name
                    raise ConversionError(
                        f"input {name!r} has whole numbers, which no Embedding layer reads as they are"
                    )
        return sides[0], sides[1]

    def _run(self, paths: Sequence[Any], rows: Sequence[Any], batch: int) -> Any:
        tf = load_tensorflow()
        given = [
            tf.tile(row, [batch, *[1] * (row.shape.rank - 1)]) if is_ids else path
            for row, path, is_ids in zip(rows, paths, self._tokens, strict=True)
        ]
        with self._embeddings(given, paths):
            outputs = call(self._model, given)
        flat = [tf.reshape(each, [batch, -1]) for each in outputs if each.dtype.is_floating]
        return tf.concat(flat, 1) if len(flat) > 1 else flat[0]

    @contextmanager
    def _embeddings(self, tensors: Sequence[Any], paths: Sequence[Any] | None) -> Iterator[dict[int, Any]]:
        """Note what Embedding layers make of an input, by its place; with `paths`, let them make these."""
        keras, found, owners = load_keras(), {}, {}

        def embed(layer: Any, original: Callable[..., Any], ids: Any, *arguments: Any, **settings: Any) -> Any:
            place = next((at for at, each in enumerate(tensors) if _is_same(ids, each)), None)
            if place is None:
                if any(_depends(ids, each) for each, is_ids in zip(tensors, self._tokens, strict=True) if is_ids):
                    raise ConversionError(f"layer {layer.name!r} embeds a part of an input")
                return original(ids, *arguments, **settings)
            if place in owners:
                raise ConversionError(f"input {self._model.inputs[place].name!r} is embedded twice")
            owners[place] = layer
            found[place] = original(ids, *arguments, **settings) if paths is None else paths[place]
            return found[place]

        with ExitStack() as stack:
            for layer in self._model._flatten_layers():
                if isinstance(layer, keras.layers.Embedding):
                    stack.enter_context(
                        overridden(layer, "call", lambda *given, layer=layer, **more: embed(layer, *given, **more))
                    )
            yield found


def _exact_gelus(model: Any) -> Iterator[Rewrite]:
    for layer in model._flatten_layers():
        if getattr(layer, "activation", None) is load_keras().activations.gelu:
            yield Rewrite("with a gradient", layer, "activation", gelu)


def _is_same(tensor: Any, source: Any) -> bool:
    """Whether a tensor is another one, converted or not."""
    while tensor is not source and tensor.op.type in ("Cast", "Identity"):
        tensor = tensor.op.inputs[0]
    return tensor is source


def _depends(tensor: Any, source: Any) -> bool:
    seen, waiting = set(), [tensor]
    while waiting:
        each = waiting.pop()
        if each is source:
            return True
        if id(each.op) not in seen:
            seen.add(id(each.op))
            waiting += each.op.inputs
    return False
