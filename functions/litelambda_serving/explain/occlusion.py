"""Occlusion: a window is moved over a picture, and the output without what it covers is compared with that with it.

A window is two cells high and wide and moves by one; a cell's attribution is the mean over the windows that cover it,
in which its share is a quarter. Features that lie on no grid are left out one by one.

Source: Zeiler and Fergus 2013, Visualizing and understanding convolutional networks.
"""

from __future__ import annotations

from litelambda_serving.explain.attribution import Attribution
from litelambda_serving.explain.leave_one_out import check_runs, most_cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from litelambda_serving.explain.options import Options
    from litelambda_serving.explain.subject import Subject

__all__ = ["attribute", "most_cells"]


def attribute(subject: Subject, options: Options) -> Attribution:
    """See `litelambda_serving.explain`.

    Raises:
        RequestError: there are more windows than runs.
    """
    windows = _windows(subject)
    check_runs(len(windows) + 2, subject.size, options.max_runs)
    coalitions = [bytes(subject.size)]
    for window in windows:
        coalition = bytearray(b"\1" * subject.size)
        for place in window:
            coalition[place] = 0
        coalitions.append(bytes(coalition))
    baseline, *others = subject.outputs(coalitions)
    output = subject.output()
    sums, counts = [0.0] * subject.size, [0] * subject.size
    for window, other in zip(windows, others, strict=True):
        for place in window:
            sums[place] += (output - other) / len(window)
            counts[place] += 1
    values = [total / count for total, count in zip(sums, counts, strict=True)]
    return Attribution(values, output, baseline, subject.runs)


def _windows(subject: Subject) -> list[list[int]]:
    """The features under the window, for each of its places."""
    windows: list[list[int]] = []
    start = 0
    for part in subject.parts:
        rows, columns = part.grid or (part.size, 1)
        high, wide = (min(2, rows), min(2, columns)) if part.grid else (1, 1)
        windows += [
            [start + (top + down) * columns + left + right for down in range(high) for right in range(wide)]
            for top in range(rows - high + 1)
            for left in range(columns - wide + 1)
        ]
        start += part.size
    return windows
