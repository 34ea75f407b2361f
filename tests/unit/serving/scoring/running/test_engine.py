"""The engine on local files: chunks, resuming, tolerance, what is left behind, and what is counted."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from litelambda.common.paths import FUNCTIONS
from litelambda_serving.errors import ArtifactError, DigestError, ModelNotFoundError
from litelambda_serving.objects import objects_for, to_url
from litelambda_serving.objects.base import part_bytes_for
from litelambda_serving.objects.file_upload import FileUpload
from litelambda_serving.scoring.errors import (
    InputNotFoundError,
    InputReplacedError,
    JobError,
    SchemaError,
    TooManyBadRowsError,
)
from litelambda_serving.scoring.formats import open_reader
from litelambda_serving.scoring.formats.base import RowSchema
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.models import ModelSource, Pin
from litelambda_serving.scoring.running import engine
from litelambda_serving.scoring.running.summary import cost_usd
from litelambda_serving.scoring.running.tally import PredictionHistogram, add_tallies
from litelambda_serving.tensor import DTYPES, TensorSpec
from support.scoring_files import as_jsonl, expected, job_of, make_rows, make_store, read_jsonl


@pytest.fixture
def models(tmp_path):
    return make_store(tmp_path / "store")


@pytest.mark.parametrize(("seconds_per_row", "largest"), [(1e-7, 524_288), (1e-5, 32_768), (0.1, 512)])
def test_chunks_grow_while_they_are_fast(models, tmp_path, monkeypatch, seconds_per_row, largest):
    """Progress is told twice a second or more often, and a fast model is not held up by doing so."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.npy._FIRST_CHUNK_BYTES", 512 * 16)
    monkeypatch.setattr("litelambda_serving.scoring.formats.npy._MAX_CHUNK_BYTES", 524_288 * 16)
    rows = np.zeros((2_000_000, 4), np.float32)
    np.save(tmp_path / "rows.npy", rows)
    info = objects_for((tmp_path / "rows.npy").as_uri()).head((tmp_path / "rows.npy").as_uri())
    manifest = models.load(models.pin("tiny_int8")).manifest
    reader = open_reader(job_of(tmp_path / "rows.npy", tmp_path / "out.npy"), info, RowSchema.of(manifest))
    counts = []
    for chunk in reader.chunks(None):
        counts.append(chunk.payload.shape[0])
        chunk.payload.sizer.note(counts[-1], counts[-1] * seconds_per_row)
    reader.close()
    assert sum(counts) == len(rows)
    assert counts[0] == 512
    assert max(counts) == largest


def test_progress_of_a_gzipped_file(models, tmp_path, monkeypatch):
    """It is counted in the bytes that the file has, and comes bit by bit."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 4000)
    monkeypatch.setattr("litelambda_serving.scoring.formats.text._PACKED_BYTES", 1000)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(as_jsonl(make_rows(1000))))
    size = (tmp_path / "rows.jsonl.gz").stat().st_size
    told = []
    engine.run_job(
        job_of(tmp_path / "rows.jsonl.gz", tmp_path / "out.jsonl"), models, progress=lambda *now: told.append(now)
    )
    assert [told[0], told[-1]] == [(0, size, 0), (size, size, 1000)]
    done = [each[0] for each in told]
    assert max(np.diff(done)) <= 1000


def test_resuming_from_a_checkpoint(models, tmp_path, monkeypatch):
    """A job that stops every few chunks ends with the bytes of one that did not, and with its counts."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 2000)
    lines = as_jsonl(make_rows(700)).splitlines(keepends=True)
    lines[100:100] = [b"bad\n"]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines))
    whole = engine.run_job(job_of(tmp_path / "rows.jsonl", tmp_path / "whole.jsonl"), models).summary
    job = job_of(tmp_path / "rows.jsonl", tmp_path / "parts.jsonl")
    monkeypatch.setattr(engine._Run, "_must_stop", lambda run, limit: run._counts.rows_in % 3 == 0)
    statuses = []
    while not statuses or statuses[-1] == "continues":
        outcome = engine.run_job(job, models, time_left=lambda: 900.0)
        statuses.append(outcome.status)
        job = Job.from_dict(json.loads(json.dumps(outcome.job.to_dict())))
    assert len(statuses) > 2
    assert outcome.summary["invocations"] == len(statuses)
    for name in ("rows_in", "rows_out", "rows_bad", "predictions"):
        assert outcome.summary[name] == whole[name]
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert (tmp_path / "parts.errors.jsonl").read_bytes() == (tmp_path / "whole.errors.jsonl").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.suffix in {".part", ".checkpoint"}]


@pytest.mark.parametrize("change", ["model", "job", "input"])
def test_a_checkpoint_that_another_job_left_at_a_named_output_is_not_gone_on_with(
    models, tmp_path, monkeypatch, change
):
    """With another model, other options or another input it begins at the first row, and can be stopped again."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 2000)
    source = tmp_path / "rows.jsonl"
    rows = make_rows(300)
    source.write_bytes(as_jsonl(rows, "x", id=[f"r{row}" for row in range(300)]))
    job = job_of(source, tmp_path / "out.jsonl")
    must_stop = engine._Run._must_stop
    monkeypatch.setattr(engine._Run, "_must_stop", lambda run, limit: True)
    assert engine.run_job(job, models, time_left=lambda: 900.0).status == "continues"
    if change == "model":
        make_store(tmp_path / "store", version=2, preprocessing={"x": {"scale": 1 / 255, "offset": 0.0}})
        job = replace(job, model="tiny_int8:2")
    elif change == "job":
        job = replace(job, passthrough=())
    else:
        rows = make_rows(300, seed=1)
        source.write_bytes(as_jsonl(rows, "x", id=[f"r{row}" for row in range(300)]))
    sequences = []
    for _ in range(2):
        assert engine.run_job(job, models, time_left=lambda: 900.0).status == "continues"
        sequences.append(json.loads((tmp_path / "out.checkpoint").read_bytes().partition(b"\n")[0])["sequence"])
    assert sequences == [1, 2]
    monkeypatch.setattr(engine._Run, "_must_stop", must_stop)
    summary = engine.run_job(job, models, time_left=lambda: 900.0).summary
    assert (summary["rows_in"], summary["model"]["version"]) == (300, 2 if change == "model" else 1)
    output = read_jsonl((tmp_path / "out.jsonl").read_bytes())
    assert [line.get("id") for line in output] == [None if change == "job" else f"r{row}" for row in range(300)]
    np.testing.assert_array_equal([line["prediction"] for line in output], expected(rows))
    assert not (tmp_path / "out.checkpoint").exists()


def test_the_deadline_leaves_room_for_what_is_in_flight(models, tmp_path):
    """It stops while there is time for the slowest chunk so far, for each that is on its way, and a margin."""
    (tmp_path / "rows.jsonl").write_bytes(b"")
    job = job_of(tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    info = engine.find_input(job)
    left = [100.0]
    means = engine._RunOptions(1, lambda: left[0], None, replace=False)
    run = engine._Run(job, info, models.load(models.pin("tiny_int8")), engine.Outputs(job, "d"), means)
    run._slowest = 10.0
    assert not run._must_stop(2)
    left[0] = 44.0
    assert run._must_stop(2)


def test_ranges_of_text_share_no_line(models, tmp_path):
    """Cut anywhere, the ranges of a file have each line once: a line belongs to the range that it starts in."""
    rows = make_rows(60)
    data = as_jsonl(rows)
    (tmp_path / "rows.jsonl").write_bytes(data)
    for step in (1, 64, 65, 1000, len(data), len(data) + 5):
        starts = range(0, 150 if step == 1 else len(data), step)
        found = []
        for start in starts:
            output = tmp_path / "out.npy"
            job = job_of(tmp_path / "rows.jsonl", output, span=(start, min(start + step, len(data))))
            engine.run_job(job, models, replace=True)
            found.append(np.load(output))
        wanted = expected(rows[: data.count(b"\n", 0, 149) + 1] if step == 1 else rows)
        np.testing.assert_array_equal(np.concatenate(found), wanted)


def test_too_many_bad_rows(models, tmp_path):
    """Above the tolerated share the file is refused; its bad rows are told all the same."""
    (tmp_path / "rows.jsonl").write_bytes(b"bad\n" * 3 + as_jsonl(make_rows(7)))
    job = job_of(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", tolerated_bad=0.29)
    with pytest.raises(TooManyBadRowsError, match="3 of 10 rows are bad"):
        engine.run_job(job, models)
    assert not (tmp_path / "out.jsonl").exists()
    assert len(read_jsonl((tmp_path / "out.errors.jsonl").read_bytes())) == 3
    job = job_of(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", tolerated_bad=0.3)
    assert engine.run_job(job, models).summary["rows_bad"] == 3


def test_a_hopeless_file_is_not_read_to_its_end(models, tmp_path, monkeypatch):
    """Once no rest could make the share tolerable, the job ends."""
    monkeypatch.setattr(engine, "_SURELY_TOO_MANY", 100)
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 1000)
    (tmp_path / "rows.jsonl").write_bytes(b"bad\n" * 100_000)
    with pytest.raises(TooManyBadRowsError, match=r"of [0-9]{3,4} rows are bad"):
        engine.run_job(job_of(tmp_path / "rows.jsonl", tmp_path / "out.jsonl"), models)


def test_outputs_are_written_once(models, tmp_path):
    """An output that is there is left alone, unless the caller says so."""
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(5)))
    (tmp_path / "out.jsonl").write_bytes(b"mine")
    job = job_of(tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    assert engine.run_job(job, models).status == "already_done"
    assert (tmp_path / "out.jsonl").read_bytes() == b"mine"
    assert engine.run_job(job, models, replace=True).status == "done"
    assert len(read_jsonl((tmp_path / "out.jsonl").read_bytes())) == 5


def test_inputs_that_are_not_what_was_asked_for(models, tmp_path):
    """A missing file, a changed one, an empty prefix and a job without a model are told apart."""
    path, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    with pytest.raises(InputNotFoundError):
        engine.run_job(job_of(path, output), models)
    path.write_bytes(as_jsonl(make_rows(5)))
    with pytest.raises(InputReplacedError):
        engine.run_job(job_of(path, output, etag="old"), models)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputNotFoundError, match="no images under"):
        engine.run_job(Job(to_url(f"{tmp_path}/empty/"), output.as_uri(), model="tiny_int8"), models)
    with pytest.raises(JobError, match="names no model"):
        engine.run_job(Job(path.as_uri(), output.as_uri()), models)
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(b"")
    with pytest.raises(JobError, match="cannot be split"):
        engine.run_job(job_of(packed, output, span=(0, 5)), models)


def test_a_file_that_changes_while_it_is_read(models, tmp_path, monkeypatch):
    """Rows of two versions of a local file are never mixed."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.npy.CHUNK_BYTES", 1000)
    path = tmp_path / "rows.npy"
    np.save(path, make_rows(1000))
    with pytest.raises(InputReplacedError, match="changed while it was read"):
        engine.run_job(
            job_of(path, tmp_path / "out.npy"), models, progress=lambda done, total, rows: os.utime(path, (1, 1))
        )


@pytest.mark.parametrize("bad", [None, 0, 11_999, 19_999])
def test_a_local_array_goes_straight_to_the_model(tmp_path, bad):
    """Rows read where the model reads them have the predictions of single rows; NaN among them is found."""
    models = make_store(tmp_path / "store", quantization={"scheme": "int8"})
    rows = make_rows(20_000)
    if bad is not None:
        rows[bad, 1] = np.nan
    path, output = tmp_path / "rows.npy", tmp_path / "out.npy"
    np.save(path, rows)
    summary = engine.run_job(job_of(path, output), models).summary
    assert summary is not None
    assert summary["rows_bad"] == (bad is not None)
    scored, good = np.load(output), np.arange(20_000) != bad
    np.testing.assert_array_equal(scored[good], expected(rows[good]))
    assert np.isnan(scored[~good]).all()


def test_a_local_array_that_is_cut_while_it_is_scored(models, tmp_path, monkeypatch):
    """The job ends with a clear error, and nothing is written."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.npy._FIRST_CHUNK_BYTES", 16_000)
    path = tmp_path / "rows.npy"
    np.save(path, make_rows(20_000))
    with pytest.raises(InputReplacedError, match="became shorter while it was read"):
        engine.run_job(
            job_of(path, tmp_path / "out.npy"),
            models,
            progress=lambda done, total, rows: rows and os.truncate(path, 4096),
        )
    assert list(tmp_path.glob("*out*")) == []


def test_models_that_are_not_there(models, tmp_path):
    """A model, version or alias that the store lacks is an error of its own; a pinned digest must hold."""
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(5)))
    for model in ("other", "tiny_int8:9", "tiny_int8@nope"):
        job = Job((tmp_path / "rows.jsonl").as_uri(), (tmp_path / "out.jsonl").as_uri(), model=model)
        with pytest.raises(ModelNotFoundError):
            engine.run_job(job, models)
    pinned = ModelSource(models.url, digests={"tiny_int8:1": "0" * 64})
    job = Job((tmp_path / "rows.jsonl").as_uri(), (tmp_path / "out.jsonl").as_uri(), model="tiny_int8:1")
    with pytest.raises(DigestError):
        engine.run_job(job, pinned)


def test_a_manifest_that_is_replaced_after_it_was_pinned_is_refused(models, tmp_path, monkeypatch):
    """Labels and preprocessing come from the bytes that were pinned, also where the model is read again in between."""
    pin = models.pin("tiny_int8")
    manifest = tmp_path / "store/tiny_int8/1/manifest.json"
    document = manifest.read_bytes()
    manifest.write_bytes(document + b" ")

    fetch = models._store.fetch

    def fetch_and_restore(key, max_bytes):
        found = fetch(key, max_bytes)
        manifest.write_bytes(document)
        return found

    monkeypatch.setattr(models._store, "fetch", fetch_and_restore)
    with pytest.raises(DigestError, match=r"tiny_int8/1/manifest\.json has SHA-256 \w{64}, pinned was"):
        models.load(pin)
    assert models.load(pin).manifest.sha256 == hashlib.sha256(document).hexdigest()


def test_a_pinned_source_scores_with_one_version_alone(models, tmp_path):
    """With a digest no other version, alias or model is scored with, nor the same one under another digest."""
    digest = models.pin("tiny_int8").digest
    pinned = ModelSource(models.url, digests={"tiny_int8:1": digest})
    assert pinned.load(pinned.pin("tiny_int8:1")).pin == Pin("tiny_int8", 1, digest)
    for reference in ("tiny_int8", "tiny_int8@latest", "tiny_int8:2", "other:1"):
        with pytest.raises(ModelNotFoundError, match="scores with tiny_int8:1 alone"):
            pinned.pin(reference)
    with pytest.raises(ArtifactError, match="another digest"):
        pinned.load(Pin("tiny_int8", 1, "0" * 64))


@pytest.mark.parametrize("name", ["strings", "labelled"])
def test_models_with_strings_are_refused(tmp_path, name):
    """Batch scoring takes numbers only: it says so before it reads or writes a row, and for good."""
    models = make_store(tmp_path / "store", name)
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(3)))
    output = tmp_path / "out.jsonl"
    job = Job((tmp_path / "rows.jsonl").as_uri(), output.as_uri(), model=name, output_format="jsonl")
    with pytest.raises(
        SchemaError, match=f"{name} has string tensors .* not scored in batch: ask the predict function"
    ):
        engine.run_job(job, models)
    assert not output.exists()


def test_compare_and_swap_of_small_objects(tmp_path):
    """A checkpoint is replaced only over the one that was read."""
    url = (tmp_path / "x").as_uri()
    objects = objects_for(url)
    assert objects.put(url, b"1", tag="")
    assert not objects.put(url, b"2", tag="")
    _, tag = objects.get(url)
    assert objects.put(url, b"33", tag=tag)
    assert not objects.put(url, b"4", tag=tag)
    assert objects.get(url)[0] == b"33"
    objects.delete(url)
    assert not objects.put(url, b"5", tag=tag)
    assert objects.get(url) is None


def test_tallies_add_up():
    """Counts are added, extremes kept, classes seen by one side only are not lost."""
    total = {
        "a": {"classes": {"x": 1}},
        "b": {"count": 1, "sum": 2.0, "min": 2.0, "max": 2.0, "powers_of_two": {"2": 1}},
    }
    more = {
        "a": {"classes": {"x": 2, "y": 1}},
        "b": {"count": 2, "sum": 1.0, "min": -1.0, "max": 2.5, "powers_of_two": {}},
    }
    add_tallies(total, more)
    assert total == {
        "a": {"classes": {"x": 3, "y": 1}},
        "b": {"count": 3, "sum": 3.0, "min": -1.0, "max": 2.5, "powers_of_two": {"2": 1}},
    }


def test_cost_is_estimated_where_it_is_billed(monkeypatch):
    """A gigabyte for 1,000 seconds costs about two cents; on a machine of one's own nothing is estimated."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024")
    assert 0.013 < cost_usd(1000.0, 1) < 0.017
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    assert cost_usd(1000.0, 1) is None


@pytest.mark.parametrize("width", [2, 10, 32, 33])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_predicted_classes_are_counted(width, dtype):
    """Counted is the first of the largest values of each row, NaN the largest of all, whatever came before."""
    spec = TensorSpec("scores", DTYPES[dtype], (-1, width))
    tallier = PredictionHistogram(RowSchema((), (spec,), {}, None, 1))
    chooser = np.random.default_rng(1)
    for rows in (500, 2000, 30):
        scores = chooser.integers(-3, 3, (rows, width)).astype(dtype)  # with many ties
        if dtype == "float32" and rows == 30:
            scores[3, 1], scores[4], scores[5] = np.nan, np.nan, -np.inf
        wanted = np.bincount(scores.argmax(axis=1), minlength=width)
        counts = tallier.tally([scores])["scores"]["classes"]
        assert counts == {str(index): count for index, count in enumerate(wanted.tolist()) if count}


def test_parts_are_large_enough_for_any_output():
    """An output may be eight times its input, and still have fewer parts than S3 takes."""
    for size in (0, 10**6, 10**10, 10**12):
        assert 8 * size / part_bytes_for(size) < 10_000


def test_the_predict_path_loads_nothing_of_this():
    """numpy, orjson, boto3, Powertools and the batch engine cost a cold start nothing."""
    script = (
        "import sys, json; sys.path.insert(0, sys.argv[1]);"
        " import litelambda_serving.router, litelambda_serving.models;"
        "print(json.dumps([name for name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(FUNCTIONS)], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not {"numpy", "orjson", "boto3", "aws_lambda_powertools", "litelambda_serving.scoring"} & loaded


def test_what_a_killed_run_leaves_behind_is_removed_by_the_next(models, tmp_path):
    """A part whose writer was killed goes when the same output is written again; one whose writer lives stays."""
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(5)))
    output = tmp_path / "out.jsonl"
    code = (
        "import os, sys, signal; sys.path.insert(0, sys.argv[1]);"
        "from litelambda_serving.objects.file_upload import FileUpload;"
        "upload = FileUpload(sys.argv[2], None); upload.write(b'half'); upload._file.flush();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(FUNCTIONS), output.as_uri()], check=False, timeout=60)
    (left,) = tmp_path.glob(".out.jsonl.*.part")
    assert left.read_bytes() == b"half"
    with_writer = FileUpload(output.as_uri(), None)
    (living,) = tmp_path.glob(".out.jsonl.*.part")
    assert living != left
    engine.run_job(job_of(tmp_path / "rows.jsonl", output), models)
    assert list(tmp_path.glob(".out.jsonl.*.part")) == [living]
    with_writer.abort()
    assert not living.exists()


def test_no_link_is_followed(models, tmp_path):
    """Names under which outputs are written cannot be foreseen, and an output that is a link is replaced itself."""
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(5)))
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    (tmp_path / f".out.jsonl.{os.getpid()}.part").symlink_to(precious)
    (tmp_path / "out.jsonl").symlink_to(precious)
    engine.run_job(job_of(tmp_path / "rows.jsonl", tmp_path / "out.jsonl"), models, replace=True)
    assert precious.read_bytes() == b"mine"
    assert len(read_jsonl((tmp_path / "out.jsonl").read_bytes())) == 5


def test_names_of_local_images_are_told_as_they_are(tmp_path):
    """Spaces and letters beyond ASCII are not escaped, and a name that is not UTF-8 stops nothing."""
    models = make_store(tmp_path / "store", preprocessing={"x": {"scale": 1 / 255, "offset": 0.0}})
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(pixels, "PNG")
    names = [b"a b.png", "ä%20.png".encode(), b"\xff.png"]
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(pixels.getvalue())
    job = Job(to_url(f"{folder}/"), to_url(str(tmp_path / "out.jsonl")), model="tiny_int8")
    engine.run_job(job, models)
    found = {line["file"] for line in read_jsonl((tmp_path / "out.jsonl").read_bytes())}
    assert found == {"a b.png", "ä%20.png", "\ufffd.png"}


def test_a_local_file_whose_name_is_not_utf8(models, tmp_path):
    """It is scored like any other."""
    path = tmp_path / os.fsdecode(b"\xff.jsonl")
    path.write_bytes(as_jsonl(make_rows(5)))
    output = f"{(tmp_path / 'out').as_uri()}/"
    summary = engine.run_job(Job(to_url(str(path)), output, model="tiny_int8"), models).summary
    assert summary is not None
    assert summary["rows_out"] == 5
    (found,) = (tmp_path / "out").glob("*.jsonl")
    assert os.fsencode(found.name).startswith(b"\xff.jsonl.")
