"""Who runs in a benchmark: a table of handlers, each a package, an entry point and its settings.

To add one, add a line to `contenders_for`; the cold and the warm benchmark take it from there. Peers are in the same
table, but take part only when they are asked for: they take seconds to start, or an environment of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from litelambda.bench.peers import HERE
from litelambda.bench.subject import Subject
from litelambda.common.errors import UsageError

BUCKET = "litelambda-bench"
PREFIX, SEALED_PREFIX = "models", "sealed"
FLOOR, OURS, USUAL = "hello", "litelambda", "usual"
OURS_LEAN, OURS_BUNDLED = "litelambda_lean", "litelambda_bundled"
FLATBUFFER_KEY, ONNX_KEY, TOKENIZER_KEY = "peers/model.tflite", "peers/model.onnx", "peers/tokenizer.json"
"""Where the loopback S3 has the model for those who read no manifest; as ONNX only when a contender wants it."""

LEAN = "lean-bootstrap"
"""The package's own wrapper of the runtime."""

TASK_ROOT = "{task_root}"
"""Stands, in a setting, for where the package will be unpacked."""


@dataclass(frozen=True)
class Contender:
    """One handler in the benchmark.

    Attributes:
        name: its key in the results.
        title: what it is, in a few words for the table.
        package: which package it runs from: `functions` (ours), `bundled` (ours with the model inside) or the name of
            a module in `bench/handlers`.
        handler: dotted name of its entry point.
        settings: the environment variables that are its own.
        wrapper: an executable of the package that starts the runtime, as `AWS_LAMBDA_EXEC_WRAPPER` names one.
        environment: lock and Python version of an environment of its own, see `peers`; None for this one.
        peer: whether it takes part only when asked for.
        sealed: whether it serves the model signed and encrypted, see `sealed`.
    """

    name: str
    title: str
    package: str
    handler: str
    settings: Mapping[str, str] = field(default_factory=dict)
    wrapper: str | None = None
    environment: tuple[str, str] | None = None
    peer: bool = False
    sealed: bool = False


def contenders_for(subject: Subject) -> list[Contender]:
    """The table, with settings that serve `subject`."""
    manifest = subject.manifest
    s3 = {"MODEL_STORE": f"s3://{BUCKET}/{PREFIX}", "MODEL_NAME": manifest.model}
    pin = {"MODEL_VERSION": str(manifest.version), "MODEL_MANIFEST_SHA256": subject.manifest_sha256}
    disk = {**s3, **pin, "MODEL_STORE": f"file://{TASK_ROOT}/models"}
    usual = {
        "MODEL_BUCKET": BUCKET,
        "MODEL_KEY": FLATBUFFER_KEY,
        "INTERPRETER": "ai_edge_litert.interpreter",
        "POWERTOOLS_SERVICE_NAME": "bench",
        "POWERTOOLS_METRICS_NAMESPACE": "bench",
    }
    if text := subject.text:
        usual |= {"TOKENIZER_KEY": TOKENIZER_KEY, "TEXT_LENGTH": str(text["length"])}
    others = "boto3, numpy, LiteRT, Powertools"
    if subject.reads_pictures:
        usual["DECODER"], others = "PIL.Image", "boto3, numpy, Pillow, LiteRT, Powertools"
    tflite_runtime = {**usual, "INTERPRETER": "tflite_runtime.interpreter"}
    tensorflow = {**usual, "INTERPRETER": "tensorflow.lite.python.interpreter"}
    onnx = {**usual, "MODEL_KEY": ONNX_KEY}
    package, entry = "functions", "predict.handler"
    return [
        Contender(FLOOR, "hello world: the floor", "hello", "hello.handler"),
        Contender(OURS, "ours, S3 through an alias", package, entry, s3),
        Contender("litelambda_pinned", "ours, S3, version pinned", package, entry, {**s3, **pin}),
        Contender(OURS_LEAN, "ours, lean bootstrap, S3 through an alias", package, entry, s3, LEAN),
        Contender("litelambda_lean_pinned", "lean, S3, version pinned", package, entry, {**s3, **pin}, LEAN),
        Contender(OURS_BUNDLED, "lean, model in the package", "bundled", entry, disk, LEAN),
        Contender(USUAL, others, "usual", "usual.handler", usual),
        Contender(
            "litelambda_lean_sealed", "lean, pinned, signed and encrypted", package, entry,
            {**s3, **pin, "MODEL_STORE": f"s3://{BUCKET}/{SEALED_PREFIX}"}, LEAN, peer=True, sealed=True,
        ),
        Contender(
            "usual_tflite_runtime", "the usual one on tflite-runtime 2.14, Python 3.11", "usual", "usual.handler",
            tflite_runtime, environment=("tflite-runtime", "3.11"), peer=True,
        ),
        Contender(
            "onnxruntime", "boto3, numpy, ONNX Runtime, Powertools", "onnx_runtime", "onnx_runtime.handler",
            onnx, environment=("onnxruntime", HERE), peer=True,
        ),
        Contender(
            "tensorflow", "the usual one on all of TensorFlow", "usual", "usual.handler", tensorflow, peer=True
        ),
    ]  # fmt: skip


def choose(contenders: Sequence[Contender], names: str | None, *, peers: bool = False) -> list[Contender]:
    """The contenders of a comma-separated list of names, in its order.

    Args:
        contenders: the table.
        names: the list; without one, all but the peers.
        peers: whether a choice without a list has the peers too.

    Raises:
        UsageError: a name is unknown; the message lists the valid ones.
    """
    by_name = {contender.name: contender for contender in contenders}
    wanted = names.split(",") if names else [each.name for each in contenders if peers or not each.peer]
    for name in wanted:
        if name not in by_name:
            raise UsageError(f"unknown handler {name!r}: choose from {', '.join(by_name)}")
    return [by_name[name] for name in wanted]
