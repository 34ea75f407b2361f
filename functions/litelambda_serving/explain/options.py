"""What a request may say about its explanation: its `parameters`."""

from __future__ import annotations

from litelambda_serving.errors import MalformedRequestError
from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["BASELINES", "FORMATS", "MAX_RUNS", "METHODS", "Options"]

METHODS = ("integrated_gradients", "shapley", "occlusion", "rise", "leave_one_out")
"""What shares an output among features."""

BASELINES = ("mean", "missing", "zeros", "blurred")
"""Rows to compare with that have a name.

The training rows' mean, a table's row with all values missing, zeros, and the row's own picture without its details."""

FORMATS = ("litelambda", "vertex")
"""Of the answer: with our own names, or with those of Vertex AI."""

MAX_RUNS = 10_000
"""The most runs of the model that a row may take."""

_MAX_SEED = 1 << 63
_NAMES = ("method", "target", "output", "baseline", "max_runs", "seed", "top_k", "format")


class Options:
    """What a caller wants of an explanation.

    Attributes:
        method: one of `METHODS`; "" for the model's default.
        target: index or label of the class that is explained; None for the row's best.
        output: name of the output that is explained; "" for the first that has scores or values.
        baseline: one of `BASELINES`; "" for the model's default, or where `instance` is given.
        instance: a row of the caller's as the baseline; None without one.
        max_runs: the most runs of the model for a row; None for the method's default.
        seed: of everything that is drawn at random.
        top_k: only the strongest so many attributions are answered; None for all.
        format: one of `FORMATS`.
    """

    def __init__(self, parameters: Mapping[str, Any] | None = None, ignored: tuple[str, ...] = ()) -> None:
        """Read a request's parameters.

        Args:
            parameters: by name; None for none.
            ignored: names that are the protocol's.

        Raises:
            MalformedRequestError: unknown ones, or values that they do not take.
        """
        if type(parameters) not in (dict, type(None)):
            raise MalformedRequestError("'parameters' must be an object")
        found = {name: value for name, value in (parameters or {}).items() if value is not None and name not in ignored}
        if unknown := [str(name)[:40] for name in found if name not in _NAMES]:
            raise MalformedRequestError(
                f"parameter {unknown[0]!r} is not known for an explanation: expected {', '.join(_NAMES)}"
            )
        self.method = _one_of(found, "method", METHODS)
        self.format = _one_of(found, "format", FORMATS) or FORMATS[0]
        self.max_runs = _number(found, "max_runs", 2, MAX_RUNS)
        self.seed = _number(found, "seed", 0, _MAX_SEED) or 0
        self.top_k = _number(found, "top_k", 1, _MAX_SEED)
        self.target: int | str | None = found.get("target")
        if type(self.target) not in (int, str, type(None)):
            raise _wrong("target", self.target, "the index of a class, or its label")
        self.output: str = found.get("output", "")
        if type(self.output) is not str:
            raise _wrong("output", self.output, "the name of an output")
        self.instance: Any = None
        self.baseline = ""
        self._read_baseline(found.get("baseline"))

    def _read_baseline(self, value: Any) -> None:
        if type(value) is dict and value.keys() == {"instance"} and value["instance"] is not None:
            self.instance = value["instance"]
        elif type(value) is str and value in BASELINES:
            self.baseline = value
        elif value is not None:
            raise _wrong("baseline", value, f'{", ".join(BASELINES)}, or {{"instance": …}} with a row')


def _one_of(found: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    if name not in found:
        return ""
    value = found[name]
    if type(value) is not str or value not in known:
        raise _wrong(name, value, f"one of {', '.join(known)}")
    return value


def _number(found: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = found.get(name)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise _wrong(name, value, f"a whole number from {least} to {most}")
    return value


def _wrong(name: str, value: Any, expected: str) -> MalformedRequestError:
    return MalformedRequestError(f"parameter {name!r} is {dumps(value)[:40]}: expected {expected}")
