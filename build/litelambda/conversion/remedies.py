"""Remedies: what to change in a model where TFLite has no int8 kernel for an operator, or no such operator.

It maps the names that the converter and the flatbuffer use to the parts of Keras that they come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_RELU = "use relu, relu6, silu or hard_silu"
_VOLUME = "only two-dimensional convolutions have integer kernels: slice the volume with TimeDistributed"
_POWER = "write x * x"
_SPECTRUM = "compute spectrograms before the model: around them int8 loses most of their range"
_LOOKUP = "look words up before the model and pass it their indices"

FLOAT_ADVICE: dict[str, str] = {
    "ELU": f"activation elu: {_RELU}",
    "NEG": "LayerNormalization, GroupNormalization, softplus: negligible cost, no change needed",
    "SQUARE": f"RMSNormalization, GroupNormalization, ops.square: use BatchNormalization, or {_POWER}",
    "CONV_3D": f"Conv3D: {_VOLUME}",
    "CONV_3D_TRANSPOSE": f"Conv3DTranspose: {_VOLUME}",
    "CAST": "whole numbers that become reals, as in CategoryEncoding: negligible cost, no change needed",
    "BUCKETIZE": "Discretization: put values into bins before the model",
    "SPLIT": "the gates of LSTM and GRU: negligible cost, no change needed",
    "NOT_EQUAL": "Masking, mask_zero of an Embedding: negligible cost, no change needed",
    "RFFT2D": _SPECTRUM,
    "REAL": _SPECTRUM,
    "IMAG": _SPECTRUM,
    "COS": "use a precomputed table",
    "SIN": "use a precomputed table",
    "EXP": "use softmax or sigmoid instead of an exponential",
    "LOG": "move the logarithm after the model",
    "POW": _POWER,
    "FLOOR": "round before the model",
    "ROUND": "round before the model",
}
"""By operator of a flatbuffer that computes in float: its origin in Keras, and the remedy."""

_MISSING_ADVICE: tuple[tuple[str, str], ...] = (
    (r"Erf$", "use gelu with approximate=True, or silu"),
    (r"(Max|Avg)Pool3D", "Conv3D with strides, or pool two dimensions at a time with TimeDistributed"),
    (r"Bincount", "CategoryEncoding: encode before the model, or feed integers to an Embedding"),
    (r"String|Unicode|Regex|Ragged", "tokenize before the model and give it the numbers of the tokens"),
    (r"(Hash|Lookup)Table", f"StringLookup, IntegerLookup, TextVectorization: {_LOOKUP}"),
    (r"R?FFT", "compute spectrograms before the model"),
    (r"TensorList", "a loop over a sequence: use a static sequence length"),
    (r"Assign|ReadVariable|VarHandle", "the model changes its own variables: make it stateless"),
    (r"Random|Stateless", "the model draws random numbers: export it with training=False"),
)


def on_float(operators: Iterable[str]) -> str | None:
    """Remedies for operators that stayed float, one clause each; None where none is known.

    >>> on_float(["ELU", "CONV_2D"])
    'ELU: activation elu: use relu, relu6, silu or hard_silu'
    """
    clauses = [f"{name}: {FLOAT_ADVICE[name]}" for name in operators if name in FLOAT_ADVICE]
    return "; ".join(clauses) or None


def on_missing(operators: Iterable[str]) -> str:
    """Remedies for TensorFlow operators that TFLite lacks.

    >>> on_missing(["Erf"])
    'use gelu with approximate=True, or silu'
    """
    found = [advice for pattern, advice in _MISSING_ADVICE if any(re.search(pattern, name) for name in operators)]
    return "; ".join(found) or "replace them in the model, or move them before or after it"


def layers_with(reason: str, operators: Iterable[str], layers: Sequence[str]) -> list[str]:
    """The layers that operators belong to, as the converter's error places them: "functional/my_layer_1/Erf".

    Args:
        reason: the text of the error.
        operators: of TensorFlow.
        layers: names to look for.
    """
    wanted = "|".join(map(re.escape, operators))
    found: dict[str, None] = {}
    for place in re.findall(rf'"(?:{wanted}):", "([^"@]+)', reason):
        owner = next((name for scope in place.split("/") if (name := _layer_of(scope, layers))), None)
        if owner is not None:
            found[owner] = None
    return list(found)


def _layer_of(scope: str, layers: Sequence[str]) -> str | None:
    """The layer that opened a scope, to which TensorFlow appends a number where it was open before."""
    without_number = re.sub(r"_\d+$", "", scope)
    return next((name for name in (scope, without_number) if name in layers), None)
