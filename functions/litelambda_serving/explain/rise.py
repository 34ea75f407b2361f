"""RISE: the model is run with random halves of the row.

A feature's attribution is the mean output with it, less that without it. A picture's halves are of patches of two cells
by two, shifted by a cell at random. This ranks features as RISE does, whose own figure is the mean output with a
feature present; the difference is zero for what does not matter.

Source: Petsiuk, Das and Saenko 2018, RISE: randomized input sampling for explanation of black-box models.
"""

from __future__ import annotations

from _random import Random
from math import sqrt

from litelambda_serving.explain.attribution import Attribution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.explain.options import Options
    from litelambda_serving.explain.subject import Subject

__all__ = ["attribute", "most_cells"]

_RUNS = 1024
_CELLS = 196


def most_cells(options: Options) -> int:
    """See `litelambda_serving.explain`."""
    return max(1, min(_CELLS, (options.max_runs or _RUNS) // 4))


def attribute(subject: Subject, options: Options) -> Attribution:
    """See `litelambda_serving.explain`."""
    random = Random(options.seed)
    count = max((options.max_runs or _RUNS) - 2, 2)
    masks: list[bytes] = []
    for _ in range((count + 1) // 2):  # each with its opposite: every feature is present in half of them
        mask = _mask(subject, random)
        masks += [mask, mask.translate(_OPPOSITE)]
    masks = masks[: count // 2 * 2]
    baseline, *outputs = subject.outputs([bytes(subject.size), *masks])
    values, errors = [], []
    for place in range(subject.size):
        present = [output for output, mask in zip(outputs, masks, strict=True) if mask[place]]
        absent = [output for output, mask in zip(outputs, masks, strict=True) if not mask[place]]
        values.append(sum(present) / len(present) - sum(absent) / len(absent))
        errors.append(sqrt(_variance(present) / len(present) + _variance(absent) / len(absent)))
    return Attribution(values, subject.output(), baseline, subject.runs, errors)


_OPPOSITE = bytes([1, 0]) + bytes(254)


def _mask(subject: Subject, random: Random) -> bytes:
    """Which features are present: a fair coin for each, or for each patch of cells."""
    mask = bytearray()
    for part in subject.parts:
        if part.grid is None:
            mask += bytes([random.getrandbits(1) for _ in range(part.size)])
            continue
        rows, columns = part.grid
        down, right = random.getrandbits(1), random.getrandbits(1)
        coarse = [[random.getrandbits(1) for _ in range(columns // 2 + 1)] for _ in range(rows // 2 + 1)]
        mask += bytes([coarse[(row + down) // 2][(at + right) // 2] for row in range(rows) for at in range(columns)])
    return bytes(mask)


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
