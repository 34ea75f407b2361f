"""Runs of many shards: planned, and put together again."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from PIL import Image

from litelambda_serving.scoring import errors
from litelambda_serving.scoring.format_names import is_image
from litelambda_serving.scoring.job import Job, Outputs
from litelambda_serving.scoring.running.engine import run_job
from litelambda_serving.scoring.running.shards import merge, plan
from support.scoring_files import make_store, read_jsonl

STEP_FUNCTIONS_BYTES = 256 * 1024  # what a state may hand on


@pytest.fixture
def planned(tmp_path):
    """A run of 5,000 files with a row each."""
    models = make_store(tmp_path / "store")
    (tmp_path / "in").mkdir()
    for number in range(5000):
        (tmp_path / "in" / f"{number:04d}.jsonl").write_bytes(b"[1,2,3,4]\n")
    folder = tmp_path.as_uri()
    return plan(Job(f"{folder}/in/", f"{folder}/out/", model="tiny_int8"), models)


def path_of(url):
    return Path(url.removeprefix("file://"))


def finish(shard, digest, fields):
    """What a shard leaves behind."""
    outputs = Outputs(shard, digest)
    for url, data in ((outputs.summary, orjson.dumps(fields)), (outputs.predictions, b"")):
        path_of(url).write_bytes(data)


def test_five_thousand_shards_are_merged(planned):
    """Each is counted once, and what the state machine is told fits what a state may hand on, whatever the classes."""
    shards = [Job.from_dict(fields) for fields in orjson.loads(path_of(planned["run"] + "shards.json").read_bytes())]
    assert planned["num_shards"] == len(shards) == 5000
    classes = {f"class {number}": 1 for number in range(20_000)}
    for shard in shards:
        if shard.shard != 17:
            tally = {"probabilities": {"classes": classes if not shard.shard else {}}}
            fields = {"rows_in": 3, "rows_out": 2, "rows_bad": 1, "worker_seconds": 0.5, "cost_usd": None}
            finish(shard, planned["model"]["digest"], {**fields, "predictions": tally})
    told = merge(planned)
    assert (told["rows_in"], told["rows_out"], told["rows_bad"]) == (3 * 4999, 2 * 4999, 4999)
    assert (told["parts"], told["failed"]) == (4999, 1)
    assert len(orjson.dumps(told)) < STEP_FUNCTIONS_BYTES / 10
    assert len(orjson.dumps(planned)) < STEP_FUNCTIONS_BYTES / 10
    summary = orjson.loads(path_of(told["summary"]).read_bytes())
    assert [part["shard"] for part in summary["parts"]] == [number for number in range(5000) if number != 17]
    assert [(each["shard"], each["error"]) for each in summary["failed"]] == [(17, "unfinished")]
    assert len(summary["predictions"]["probabilities"]["classes"]) == 20_000


def test_shards_beyond_a_run_are_refused(tmp_path, monkeypatch):
    """More shards than a state machine can hold are an error that says what to do, before any is scored."""
    monkeypatch.setattr("litelambda_serving.scoring.running.shards._MAX_SHARDS", 2)
    models = make_store(tmp_path / "store")
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_bytes(b"[1,2,3,4]\n")
    folder = tmp_path.as_uri()
    with pytest.raises(errors.JobError, match="3 shards are more than the 2 of one run: start a run for each folder"):
        plan(Job(f"{folder}/", f"{folder}/out/", model="tiny_int8"), models)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("input_format", ["", "images"])
def test_each_image_is_in_one_shard(tmp_path, monkeypatch, input_format):
    """Empty images are bad rows, other files and folders are none, and images below the output are rows as well."""
    monkeypatch.setattr("litelambda_serving.scoring.running.shards._IMAGES_PER_SHARD", 2)
    models = make_store(tmp_path / "store", preprocessing={"x": {"scale": 1 / 255, "offset": 0.0}})
    folder = tmp_path / "in"
    (folder / "out").mkdir(parents=True)
    names = [f"{letter}.png" for letter in "abcfg"] + ["out/h.png", "z.PNG"]
    for name in names:
        Image.new("L", (2, 2)).save(folder / name, "PNG")
    for name in ("b0.png", "d.png", "e.jpg"):
        (folder / name).write_bytes(b"")
    for name in ("a.txt", "c.notes", "f0"):
        (folder / name).write_bytes(b"not an image")
    job = Job(
        f"{folder.as_uri()}/", f"{folder.as_uri()}/out/", model="tiny_int8", tolerated_bad=1, input_format=input_format
    )
    assert not is_image("s3://bucket/in/folder.png/")
    planned = plan(job, models)
    scored, bad = [], []
    for fields in orjson.loads(path_of(planned["run"] + "shards.json").read_bytes()):
        outcome = run_job(Job.from_dict(fields), models)
        scored += [row["file"] for row in read_jsonl(path_of(outcome.outputs.predictions).read_bytes())]
        errors_path = path_of(outcome.outputs.errors)
        bad += [row["file"] for row in read_jsonl(errors_path.read_bytes())] if errors_path.exists() else []
    assert sorted(scored) == sorted(names)
    assert sorted(bad) == ["b0.png", "d.png", "e.jpg"]
    told = merge(planned)
    assert (told["rows_in"], told["rows_bad"], told["failed"]) == (10, 3, 0)
