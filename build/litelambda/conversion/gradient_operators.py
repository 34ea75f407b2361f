"""Gradients of TensorFlow's operators in operators that TFLite has: for many, such as poolings, it has none of its own.

Each rule takes an operator and the gradient of its output, and gives those of its inputs, as TensorFlow's own do.
Shapes are static: the graph that is exported has a fixed number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from litelambda.common.errors import ConversionError
from litelambda.keras_tools.backend import load_tensorflow

_HUGE = 3e38
"""Times this, any number that float32 holds in full precision is above 1: a step without a comparison, which XNNPACK
lacks."""

_SLICE_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")

_Pair = tuple[int, int]


@contextmanager
def gradients_for_tflite() -> Iterator[None]:
    """Let operators that are recorded in the block have gradients that convert."""
    with load_tensorflow().compat.v1.get_default_graph().gradient_override_map(_registered()):
        yield


@cache
def _registered() -> dict[str, str]:
    tf = load_tensorflow()
    names = {}
    for operator, rule in _RULES.items():
        names[operator] = f"Litelambda{operator}"
        tf.RegisterGradient(names[operator])(rule)
    return names


def gelu(original: Callable[[Any], Any], x: Any) -> Any:
    """A GELU whose gradient converts: TFLite has the activation whole, but not the error function in it."""
    tf = load_tensorflow()

    def with_gradient(x: Any) -> Any:
        y = original(x)

        def backward(gradient: Any) -> Any:
            density = 0.3989422804014327 * tf.exp(-0.5 * x * x)
            is_small = abs(x) < 1e-3
            below = tf.where(is_small, 0.5 + 0.3989422804014327 * x, y / tf.where(is_small, 1.0, x))
            return gradient * (below + x * density)

        return y, backward

    return tf.custom_gradient(with_gradient)(x)


def _elementwise(rule: Callable[[Any, Any, Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The rule of an activation: of the operator, the gradient of its output, its input and its output."""
    return lambda op, gradient: rule(op, gradient, op.inputs[0], op.outputs[0])


def _is_positive(x: Any) -> Any:
    """1 where a number that is not negative is above 0, else 0."""
    return load_tensorflow().minimum(x * _HUGE, 1.0)


def _where(condition: Any, this: Any, that: Any) -> Any:
    return load_tensorflow().where(condition, this, that)


def _relu6(_: Any, gradient: Any, _x: Any, y: Any) -> Any:
    return gradient * _is_positive(y) * _is_positive(6.0 - y)


def _selu(_: Any, gradient: Any, _x: Any, y: Any) -> Any:
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return gradient * _where(y < 0, y + scale * alpha, scale)


def _leaky_relu(op: Any, gradient: Any, x: Any, _y: Any) -> Any:
    return gradient * _where(x > 0, 1.0, op.get_attr("alpha"))


def _softmax(_: Any, gradient: Any, _x: Any, y: Any) -> Any:
    tf = load_tensorflow()
    return (gradient - tf.reduce_sum(gradient * y, -1, keepdims=True)) * y


def _strided_slice(op: Any, gradient: Any) -> list[Any]:
    """Zeros around a slice, and between its values where it steps over some."""
    tf, source = load_tensorflow(), op.inputs[0]
    limits = [tf.get_static_value(each) for each in op.inputs[1:]]
    masks = {name: op.get_attr(name) for name in _SLICE_MASKS}
    with tf.init_scope():  # of the places of all values, those that it takes
        taken = tf.strided_slice(np.arange(int(np.prod(source.shape))).reshape(source.shape), *limits, **masks).numpy()
    places = [np.unique(axis) for axis in np.unravel_index(taken.ravel(), tuple(source.shape))]
    if np.any(np.asarray(limits[2]) < 0):
        raise ConversionError("a slice that runs backwards has no gradient that is exported")
    values = tf.reshape(gradient, [len(kept) for kept in places])
    for axis, (kept, size) in enumerate(zip(places, source.shape, strict=True)):
        if len(kept) != size:
            step = int(kept[1] - kept[0]) if len(kept) > 1 else 1
            values = _placed(values, axis, int(kept[0]), step, size)
    return [values, None, None, None]


def _tile(op: Any, gradient: Any) -> list[Any]:
    tf, sizes = load_tensorflow(), op.inputs[0].shape.as_list()
    repeats = tf.get_static_value(op.inputs[1])
    apart = tf.reshape(gradient, [size for pair in zip(repeats, sizes, strict=True) for size in pair])
    return [tf.reduce_sum(apart, list(range(0, 2 * len(sizes), 2))), None]


def _broadcast(op: Any, gradient: Any) -> list[Any]:
    tf, sizes = load_tensorflow(), op.inputs[0].shape.as_list()
    wide = [*[1] * (gradient.shape.rank - len(sizes)), *sizes]
    axes = [axis for axis, size in enumerate(wide) if size != gradient.shape[axis]]
    return [tf.reshape(tf.reduce_sum(gradient, axes), sizes) if axes else tf.reshape(gradient, sizes), None]


def _resize(op: Any, gradient: Any) -> list[Any]:
    """Resizing is a product with one matrix for the rows and one for the columns: those of resized unit vectors."""
    tf, source = load_tensorflow(), op.inputs[0]
    for axis in (1, 2):
        with tf.init_scope():
            unit = np.eye(source.shape[axis], dtype=np.float32)[:, :, None, None]
            if axis == 2:
                unit = unit.transpose(0, 2, 1, 3)
            size = [gradient.shape[axis] if each == axis else 1 for each in (1, 2)]
            settings = {name: op.get_attr(name) for name in ("align_corners", "half_pixel_centers")}
            resized = getattr(tf.raw_ops, op.type)(images=unit, size=size, **settings).numpy()
        matrix = resized.reshape(source.shape[axis], gradient.shape[axis]).T
        order = [0, 3, 3 - axis, axis]
        turned = tf.transpose(gradient, order)
        product = tf.matmul(tf.reshape(turned, [-1, matrix.shape[0]]), matrix)
        product = tf.reshape(product, [*turned.shape.as_list()[:3], matrix.shape[1]])
        gradient = tf.transpose(product, np.argsort(order))
    return [gradient, None]


def _placed(values: Any, axis: int, start: int, step: int, size: int) -> Any:
    """Values along an axis of `size` zeros, from `start` on, `step` apart."""
    tf = load_tensorflow()
    values = _spread(values, axis, step)
    after = size - start - values.shape[axis]
    return tf.pad(values, [(start, after) if each == axis else (0, 0) for each in range(values.shape.rank)])


def _spread(values: Any, axis: int, step: int) -> Any:
    """Values with `step - 1` zeros between them."""
    if step == 1 or values.shape[axis] == 1:
        return values
    tf, shape = load_tensorflow(), values.shape.as_list()
    count = shape[axis]
    # Three dimensions are enough for any axis: TFLite pads five at most.
    flat = tf.reshape(values, [int(np.prod(shape[: axis + 1])), 1, int(np.prod(shape[axis + 1 :]))])
    wide = tf.reshape(tf.pad(flat, [(0, 0), (0, step - 1), (0, 0)]), [*shape[:axis], count * step, *shape[axis + 1 :]])
    return tf.slice(wide, [0] * len(shape), [*shape[:axis], (count - 1) * step + 1, *shape[axis + 1 :]])


def _conv(op: Any, gradient: Any) -> list[Any]:
    tf = load_tensorflow()
    image, kernel = op.inputs
    groups = image.shape[3] // kernel.shape[2]
    strides, dilations = _sizes(op, "strides"), _sizes(op, "dilations")
    if strides != (1, 1) and groups == 1 and dilations == (1, 1):
        explicit = op.get_attr("padding") == b"EXPLICIT"
        if not explicit:
            padding = op.get_attr("padding").decode()
            return [tf.nn.conv2d_transpose(gradient, kernel, image.shape, strides, padding), None]
    height, width, each, outputs = kernel.shape
    turned = tf.reshape(tf.reverse(kernel, [0, 1]), [height, width, each, groups, outputs // groups])
    turned = tf.reshape(tf.transpose(turned, [0, 1, 4, 3, 2]), [height, width, outputs // groups, groups * each])
    padded = _padded_for(op, gradient, image, (height, width))
    return [tf.nn.conv2d(padded, turned, 1, "VALID", dilations=dilations), None]


def _depthwise(op: Any, gradient: Any) -> list[Any]:
    tf = load_tensorflow()
    image, kernel = op.inputs
    height, width, channels, multiplier = kernel.shape
    padded = _padded_for(op, gradient, image, (height, width))
    turned, dilations = tf.reverse(kernel, [0, 1]), _sizes(op, "dilations")
    if multiplier == 1:
        return [tf.nn.depthwise_conv2d(padded, turned, [1] * 4, "VALID", dilations=dilations), None]
    turned = tf.reshape(tf.transpose(turned, [0, 1, 3, 2]), [height, width, multiplier, channels])
    return [tf.nn.conv2d(padded, turned, 1, "VALID", dilations=dilations), None]


def _padded_for(op: Any, gradient: Any, image: Any, kernel: _Pair) -> Any:
    """A gradient, spread and padded so that a convolution with the turned kernel gives that of the image."""
    tf = load_tensorflow()
    pads = [(0, 0)]
    for axis in (1, 2):
        stride, dilation = _sizes(op, "strides")[axis - 1], _sizes(op, "dilations")[axis - 1]
        reach = (kernel[axis - 1] - 1) * dilation
        before = reach - _before(op, axis, image.shape[axis], gradient.shape[axis], stride, reach + 1)
        gradient = _spread(gradient, axis, stride)
        pads.append((before, image.shape[axis] + reach - gradient.shape[axis] - before))
    return tf.pad(gradient, [*pads, (0, 0)])


def _before(op: Any, axis: int, size: int, windows: int, stride: int, window: int) -> int:
    """Rows or columns that an operator adds before an image."""
    padding = op.get_attr("padding")
    if padding == b"EXPLICIT":
        return int(op.get_attr("explicit_paddings")[2 * axis])
    return max((windows - 1) * stride + window - size, 0) // 2 if padding == b"SAME" else 0


def _sizes(op: Any, name: str) -> _Pair:
    if op.get_attr("data_format") != b"NHWC":
        raise ConversionError(f"{op.type} with its channels first has no gradient that is exported")
    return tuple(op.get_attr(name)[1:3])


def _max_pool(op: Any, gradient: Any) -> Any:
    """The gradient of a window goes to the first of its largest values."""
    tf = load_tensorflow()
    candidates = _in_windows(op, op.inputs[0], -_HUGE)
    below = tf.concat([op.outputs[0]] * len(candidates), -1) - tf.concat(candidates, -1)
    parts = tf.split(tf.nn.relu(1.0 - below * _HUGE), len(candidates), -1)
    left = 1.0 - parts[0]
    for number, part in enumerate(parts[1:], start=1):
        parts[number] = part * left
        left -= parts[number]
    return _out_of_windows(op, [part * gradient for part in parts])


def _average_pool(op: Any, gradient: Any) -> Any:
    tf = load_tensorflow()
    counts = sum(_in_windows(op, tf.ones([1, *op.inputs[0].shape[1:]]), 0.0))
    shared = gradient / counts
    return _out_of_windows(op, [shared] * int(np.prod(_sizes(op, "ksize"))))


def _window_pads(op: Any) -> tuple[_Pair, _Pair]:
    """What is added before and after each side of an image so that its windows cover it; less than 0: what is cut."""
    shape, windows, pads = op.inputs[0].shape, op.outputs[0].shape, []
    for axis in (1, 2):
        size, stride = _sizes(op, "ksize")[axis - 1], _sizes(op, "strides")[axis - 1]
        before = _before(op, axis, shape[axis], windows[axis], stride, size)
        pads.append((before, (windows[axis] - 1) * stride + size - shape[axis] - before))
    return pads[0], pads[1]


def _in_windows(op: Any, image: Any, filler: float) -> list[Any]:
    """The first value of every window of a pooling, the second, and so on: each of the shape of its output."""
    tf, windows = load_tensorflow(), op.outputs[0].shape
    (top, bottom), (left, right) = _window_pads(op)
    if min(bottom, right) < 0:
        image = image[:, : image.shape[1] + min(bottom, 0), : image.shape[2] + min(right, 0)]
    pads = [(0, 0), (top, max(bottom, 0)), (left, max(right, 0)), (0, 0)]
    image = tf.pad(image, pads, constant_values=filler) if any(map(any, pads)) else image
    (height, width), (down, across) = _sizes(op, "ksize"), _sizes(op, "strides")
    if height == width == down == across:
        return list(tf.split(tf.nn.space_to_depth(image, height), height * width, -1)) if height > 1 else [image]
    ends = [(windows[1] - 1) * down + 1, (windows[2] - 1) * across + 1]
    return [
        image[:, row : row + ends[0] : down, column : column + ends[1] : across]
        for row in range(height)
        for column in range(width)
    ]


def _out_of_windows(op: Any, parts: list[Any]) -> Any:
    """The reverse of `_in_windows`: the sum of what windows that overlap have for a place."""
    tf, shape = load_tensorflow(), op.inputs[0].shape
    pads = _window_pads(op)
    (height, width), (down, across) = _sizes(op, "ksize"), _sizes(op, "strides")
    covered = [shape[1] + sum(pads[0]), shape[2] + sum(pads[1])]
    if height == width == down == across:
        whole = tf.nn.depth_to_space(tf.concat(parts, -1), height) if height > 1 else parts[0]
    else:
        places = [(row, column) for row in range(height) for column in range(width)]
        placed = (
            _placed(_placed(part, 1, row, down, covered[0]), 2, column, across, covered[1])
            for part, (row, column) in zip(parts, places, strict=True)
        )
        whole = tf.add_n(list(placed))
    kept = [slice(before, size - max(after, 0)) for (before, after), size in zip(pads, covered, strict=True)]
    if kept != [slice(0, size) for size in covered]:
        whole = whole[:, kept[0], kept[1]]
    missing = [(0, max(-after, 0)) for _before, after in pads]
    return tf.pad(whole, [(0, 0), *missing, (0, 0)]) if any(map(any, missing)) else whole


_RULES: dict[str, Callable[[Any, Any], Any]] = {
    "Relu": _elementwise(lambda _op, gradient, _x, y: gradient * _is_positive(y)),
    "Relu6": _elementwise(_relu6),
    "LeakyRelu": _elementwise(_leaky_relu),
    "Elu": _elementwise(lambda _op, gradient, _x, y: gradient * _where(y < 0, y + 1.0, 1.0)),
    "Selu": _elementwise(_selu),
    "Softplus": _elementwise(lambda _op, gradient, x, _y: gradient * load_tensorflow().sigmoid(x)),
    "Softsign": _elementwise(lambda _op, gradient, x, _y: gradient / (1.0 + abs(x)) ** 2),
    "Sigmoid": _elementwise(lambda _op, gradient, _x, y: gradient * y * (1.0 - y)),
    "Tanh": _elementwise(lambda _op, gradient, _x, y: gradient * (1.0 - y * y)),
    "Sqrt": _elementwise(lambda _op, gradient, _x, y: gradient * 0.5 / y),
    "Rsqrt": _elementwise(lambda _op, gradient, _x, y: gradient * -0.5 * y * y * y),
    "Reciprocal": _elementwise(lambda _op, gradient, _x, y: -gradient * y * y),
    "Softmax": _elementwise(_softmax),
    "StridedSlice": _strided_slice,
    "Tile": _tile,
    "BroadcastTo": _broadcast,
    "ResizeNearestNeighbor": _resize,
    "ResizeBilinear": _resize,
    "Conv2D": _conv,
    "DepthwiseConv2dNative": _depthwise,
    "MaxPool": _max_pool,
    "AvgPool": _average_pool,
}
