"""The batch function's own environment variables, besides those of `litelambda_serving.settings`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litelambda_serving.errors import SettingsError
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.format_names import OUTPUT_FORMATS
from litelambda_serving.scoring.job import DEFAULT_TOLERATED_BAD
from litelambda_serving.settings import Setting

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
    Setting(
        "SCORE_INPUT_BUCKETS",
        "",
        "Buckets that jobs may read, names or ARNs, separated by commas; empty: all that the function's role may read.",
    ),
    Setting(
        "SCORE_OUTPUT_BUCKETS", "", "Buckets that jobs may write to, likewise; empty: all that the role may write to."
    ),
)
_ARN = "arn:"


class ScoringSettings:
    """Validated settings.

    Attributes:
        output: prefix of the predictions, or "".
        output_format: one of `formats.OUTPUT_FORMATS`.
        tolerated_bad: a share.
        queue_url: or "".
        input_buckets, output_buckets: names of the buckets that jobs may use; empty for any.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read and check the function's environment.

        Raises:
            SettingsError: a variable is impossible; the message says what it may be.
        """
        values = {each.name: environment.get(each.name) or each.default or "" for each in SCORING_SETTINGS}
        self.output = values["SCORE_OUTPUT"]
        bucket, _, prefix = self.output.removeprefix("s3://").partition("/")
        is_prefix = self.output.startswith("s3://") and bucket and prefix.strip("/") and prefix.endswith("/")
        if self.output and not is_prefix:
            raise SettingsError(
                f"SCORE_OUTPUT is {self.output!r}, expected s3://bucket/prefix/ with a slash at its end. A prefix is "
                "needed: what lies below it starts no job, so that predictions are never scored"
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
        self.input_buckets = _buckets(values["SCORE_INPUT_BUCKETS"])
        self.output_buckets = _buckets(values["SCORE_OUTPUT_BUCKETS"])

    def check_input(self, url: str) -> None:
        """Whether a job may read what is at a URL.

        Raises:
            JobError: it is not in S3, or not in one of the buckets that jobs may read.
        """
        _check_place("input", url, self.input_buckets, "SCORE_INPUT_BUCKETS")

    def check_output(self, url: str) -> None:
        """Whether a job may write to a URL.

        Raises:
            JobError: it is not in S3, or not in one of the buckets that jobs may write to.
        """
        _check_place("output", url, self.output_buckets, "SCORE_OUTPUT_BUCKETS")


def _buckets(value: str) -> frozenset[str]:
    names = (each.strip() for each in value.split(","))
    return frozenset(name.rpartition(":")[2] if name.startswith(_ARN) else name for name in names if name)


def _check_place(name: str, url: str, buckets: frozenset[str], setting: str) -> None:
    bucket = url.removeprefix("s3://").partition("/")[0]
    if not url.startswith("s3://") or not bucket:
        raise JobError(f"{name} {url!r}: the function scores what is in S3, expected s3://bucket/key")
    if buckets and bucket not in buckets:
        raise JobError(f"{name} {url!r}: bucket {bucket} is not one of {', '.join(sorted(buckets))} ({setting})")
