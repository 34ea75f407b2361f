"""The batch function's own environment variables, beside those of `serving.settings`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.errors import SettingsError
from serving.scoring.formats import OUTPUT_FORMATS
from serving.scoring.job import DEFAULT_TOLERATED_BAD
from serving.settings import Setting

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SCORING_SETTINGS", "ScoringSettings"]

SCORING_SETTINGS = (
    Setting(
        "SCORE_OUTPUT",
        "",
        "s3://bucket/prefix/ for the predictions of events; empty: predictions/ in the input's bucket.",
    ),
    Setting("SCORE_OUTPUT_FORMAT", "jsonl", "Format of the predictions of events: jsonl, csv or npy."),
    Setting("SCORE_TOLERATED_BAD", str(DEFAULT_TOLERATED_BAD), "Share of bad rows above which a file is refused."),
    Setting("SCORE_QUEUE_URL", "", "Queue that takes the rest of a file that one invocation could not finish."),
)


class ScoringSettings:
    """Validated settings.

    Attributes:
        output: prefix of the predictions, or "".
        output_format: one of `formats.OUTPUT_FORMATS`.
        tolerated_bad: a share.
        queue_url: or "".
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read and check the function's environment.

        Raises:
            SettingsError: a variable is impossible; the message says what it may be.
        """
        values = {each.name: environment.get(each.name) or each.default or "" for each in SCORING_SETTINGS}
        self.output = values["SCORE_OUTPUT"]
        if self.output and not (self.output.startswith("s3://") and self.output.endswith("/")):
            raise SettingsError(
                f"SCORE_OUTPUT is {self.output!r}, expected s3://bucket/prefix/ with a slash at its end"
            )
        self.output_format = values["SCORE_OUTPUT_FORMAT"]
        if self.output_format not in OUTPUT_FORMATS:
            raise SettingsError(f"SCORE_OUTPUT_FORMAT is {self.output_format!r}, expected {', '.join(OUTPUT_FORMATS)}")
        try:
            self.tolerated_bad = float(values["SCORE_TOLERATED_BAD"])
        except ValueError:
            self.tolerated_bad = -1.0
        if not 0 <= self.tolerated_bad <= 1:
            raise SettingsError(
                f"SCORE_TOLERATED_BAD is {values['SCORE_TOLERATED_BAD']!r}, expected a share from 0 to 1"
            )
        self.queue_url = values["SCORE_QUEUE_URL"]
