"""Documents from a store or a queue, broken at random: each is read or refused in its own words, and nothing else.

Digests and signatures keep strangers from changing them; a writer of another version, or a bug, may still.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from litelambda_serving.aliases import Aliases
from litelambda_serving.artifact import Artifact
from litelambda_serving.errors import ArtifactError, ManifestError, ServingError
from litelambda_serving.manifest import Manifest
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.events import jobs_of_event
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.settings import ScoringSettings
from litelambda_serving.servable import Servable
from support.golden_store import golden, make_manifest
from support.mutations import mutated

EVENTS = Path(__file__).parents[2] / "events"
SETTINGS = ScoringSettings({})
JOB = {
    "input": "s3://data/in/x.csv",
    "output": "s3://data/predictions/",
    "model": "m@3",
    "span": [0, 100],
    "passthrough": ["id"],
    "tolerated_bad": 0.1,
    "output_format": "jsonl",
}
NOTIFICATIONS = [
    json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("s3_put", "eventbridge_object_created")
]
ALIASES = {
    "latest": 7,
    "versions": {str(number): {"manifest_sha256": "0" * 64, "artifact": "model.tflite"} for number in (7, 8, 9)},
    "canary": {"latest": {"8": 10}},
    "shadow": {"latest": 9},
}


MANIFESTS = [
    make_manifest("tiny_int8", 3, golden("tiny_int8"), labels=["a", "b", "c"], warm_up={"x": [1, 2, 3, 4]}),
    make_manifest("strings", 1, golden("strings")),
    make_manifest("image_2x3", 1, golden("image_2x3"), preprocessing={"image": {"scale": 0.5, "offset": -1}}),
]
"""Each with its flatbuffer, by the model's name."""


@settings(max_examples=500)
@given(mutated(MANIFESTS))
def test_manifests(document: Any) -> None:
    """A manifest that is read describes a model that is opened and warmed up, or refused."""
    with suppress(ManifestError):
        manifest = Manifest.from_json(json.dumps(document).encode())
        data = golden(manifest.model) if manifest.model in {each["model"] for each in MANIFESTS} else b""
        with suppress(ServingError):
            Servable(Artifact(manifest, data), 1, min_batch=1).warm_up()


@settings(max_examples=500)
@given(mutated([ALIASES]))
def test_aliases(document: Any) -> None:
    """Aliases that are read choose a version whose digest they have."""
    with suppress(ArtifactError):
        aliases = Aliases.from_json(json.dumps(document).encode())
        for alias in aliases.targets:
            assert aliases.choose("m", alias) in aliases.pins


@settings(max_examples=500)
@given(mutated([*NOTIFICATIONS, JOB]) | st.text())
def test_events_and_jobs(event: Any) -> None:
    """What is read is a job; what is not says so, for the dead-letter queue or the caller."""
    with suppress(JobError):
        for job in jobs_of_event(event, SETTINGS, "m@latest"):
            assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
