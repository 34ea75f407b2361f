"""Named arrays: the rows of a model's inputs, or the values of its outputs."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
