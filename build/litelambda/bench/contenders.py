"""Who runs in a benchmark: a table of handlers, each a package, an entry point and its settings.

To add one, add a line to `contenders_for`; the cold and the warm benchmark take it from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from litelambda.bench.subject import Subject
from litelambda.errors import UsageError

BUCKET = "litelambda-bench"
PREFIX = "models"
FLOOR, OURS, USUAL = "hello", "litelambda", "usual"
LEAN = "lean-bootstrap"
"""The package's own wrapper of the runtime."""

TASK_ROOT = "{task_root}"
"""Stands, in a setting, for where the package will be unpacked."""


@dataclass(frozen=True)
class Contender:
    """One handler in the benchmark.

    Attributes:
        name: Its key in the results.
        title: What it is, in a few words for the table.
        package: Which package it runs from: `functions` (ours), `bundled` (ours with the model inside) or the name of
            a module in `bench/handlers`.
        handler: Dotted name of its entry point.
        settings: The environment variables that are its own.
        wrapper: An executable of the package that starts the runtime, as `AWS_LAMBDA_EXEC_WRAPPER` names one.
    """

    name: str
    title: str
    package: str
    handler: str
    settings: Mapping[str, str] = field(default_factory=dict)
    wrapper: str | None = None


def contenders_for(subject: Subject) -> list[Contender]:
    """The table, with settings that serve `subject`."""
    manifest = subject.manifest
    s3 = {"MODEL_STORE": f"s3://{BUCKET}/{PREFIX}", "MODEL_NAME": manifest.model}
    pin = {"MODEL_VERSION": str(manifest.version), "MODEL_MANIFEST_SHA256": subject.manifest_sha256}
    disk = {**s3, **pin, "MODEL_STORE": f"file://{TASK_ROOT}/models"}
    usual = {
        "MODEL_BUCKET": BUCKET,
        "MODEL_KEY": f"{PREFIX}/{subject.artifact_key}",
        "POWERTOOLS_SERVICE_NAME": "bench",
        "POWERTOOLS_METRICS_NAMESPACE": "bench",
    }
    return [
        Contender(FLOOR, "hello world: the floor", "hello", "hello.handler"),
        Contender(OURS, "ours, S3 through an alias", "functions", "predict.handler", s3),
        Contender("litelambda_pinned", "ours, S3, version pinned", "functions", "predict.handler", {**s3, **pin}),
        Contender(
            "litelambda_lean", "ours, lean bootstrap, S3 through an alias", "functions", "predict.handler", s3, LEAN
        ),
        Contender(
            "litelambda_lean_pinned", "lean, S3, version pinned", "functions", "predict.handler", {**s3, **pin}, LEAN
        ),
        Contender("litelambda_bundled", "lean, model in the package", "bundled", "predict.handler", disk, LEAN),
        Contender(USUAL, "boto3, numpy, LiteRT, Powertools", "usual", "usual.handler", usual),
    ]


def choose(contenders: Sequence[Contender], names: str | None) -> list[Contender]:
    """The contenders of a comma-separated list of names, in its order; all of them without a list.

    Raises:
        UsageError: A name is unknown; the message lists the valid ones.
    """
    by_name = {contender.name: contender for contender in contenders}
    wanted = names.split(",") if names else list(by_name)
    for name in wanted:
        if name not in by_name:
            raise UsageError(f"unknown handler {name!r}: choose from {', '.join(by_name)}")
    return [by_name[name] for name in wanted]
