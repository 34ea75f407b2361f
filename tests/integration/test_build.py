"""The build pipeline end to end on a tiny model."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from litelambda.commands.build import build
from litelambda.common.errors import GateError, PublishError, UsageError
from litelambda.common.progress import PlainReporter, Reporter
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.load import load_recipe
from litelambda.store.artifact_store import Store
from litelambda.store.open_report import open_report
from litelambda_serving.artifact import fetch_artifact
from litelambda_serving.litert import CompiledModel
from litelambda_serving.store import open_store
from support.built import BuiltArtifact
from support.moto_server import MotoServer
from support.waiting import wait_until

_PROVENANCE = ("bom.cdx.json", "provenance.intoto.json")


def test_the_result_says_what_scripts_rely_on(built_artifact: BuiltArtifact) -> None:
    """`build --json` has model, version, place, digest, metrics and sizes."""
    result = built_artifact.result.to_json()
    manifest = (built_artifact.folder / "manifest.json").read_bytes()
    assert json.loads(json.dumps(result)) == result
    assert (result["model"], result["version"], result["published"]) == ("tiny", 1, True)
    assert result["url"] == f"{built_artifact.store_url}/tiny/1"
    assert result["digest"] == hashlib.sha256(manifest).hexdigest()
    assert set(result["metrics"]["float"]) == set(result["metrics"]["quantized"]) == {"accuracy"}
    assert set(result["size_bytes"]) == {"float", "quantized", "stored"}
    stages = "data train compress quantize evaluate verify explain publish"
    assert list(result["seconds"]) == stages.split()
    assert "tiny version 1 (latest, stable)" in built_artifact.result.describe()


def test_the_manifest_pins_every_file(built_artifact: BuiltArtifact) -> None:
    """Each published file is in the manifest with its digest and size, and nothing else was published."""
    manifest = json.loads((built_artifact.folder / "manifest.json").read_bytes())
    files = {file.name: file.read_bytes() for file in built_artifact.folder.iterdir() if file.name != "manifest.json"}
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        for name, content in files.items()
    }
    made = {"model.tflite", "explain.tflite", "model.keras", "model.h5"}
    assert set(files) == {*made, "report.json", "report.html", *_PROVENANCE}


def test_the_provenance_says_what_the_manifest_says(built_artifact: BuiltArtifact, tiny_recipe: Path) -> None:
    """Data, tools, recipe and figures of both files are the manifest's; what they are about is every other file."""
    folder = built_artifact.folder
    manifest, bom, statement = (
        json.loads((folder / name).read_bytes()) for name in ("manifest.json", "bom.cdx.json", "provenance.intoto.json")
    )
    data = hashlib.sha256((tiny_recipe.parent / "tiny.npz").read_bytes()).hexdigest()
    assert [(each["file"], each["sha256"]) for each in manifest["datasets"]] == [("tiny.npz", data)]
    files = {name: pin["sha256"] for name, pin in manifest["files"].items() if name not in _PROVENANCE}
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == files
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["recipe"] == manifest["recipe"]
    assert definition["resolvedDependencies"][0] == {"name": "tiny.npz", "digest": {"sha256": data}}
    keras = f"pkg:pypi/keras@{manifest['tools']['keras']}"
    assert keras in [each.get("uri") for each in definition["resolvedDependencies"]]
    assert keras in [each.get("purl") for each in bom["metadata"]["tools"]["components"]]
    card = bom["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["datasets"] == [{"ref": f"data:{data}"}]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    assert [(each["type"], float(each["value"])) for each in metrics] == [
        ("accuracy", manifest["metrics"][model]["accuracy"]) for model in ("float", "quantized")
    ]
    components = {each["name"]: each["hashes"][0]["content"] for each in bom["components"]}
    assert components == {"tiny.npz": data, **files}


def test_the_manifest_describes_the_model(built_artifact: BuiltArtifact) -> None:
    """What a server and a client need is there without opening the flatbuffer."""
    manifest = json.loads((built_artifact.folder / "manifest.json").read_bytes())
    signature = manifest["signatures"]["predict"]
    assert signature["inputs"] == [{"name": "features", "dtype": "float32", "shape": [-1, 4], "quantization": None}]
    assert signature["outputs"][0]["name"] == "probabilities"
    assert manifest["labels"] == ["0", "1", "2"]
    assert manifest["task"] == "classification"
    assert manifest["preprocessing"] == {"features": {"kind": "numbers", "scale": 1 / 255, "offset": 0.0}}
    assert manifest["batching"] == {"dynamic": True, "verified_sizes": [1, 2, 3, 8, 32, 64, 128, 256]}
    assert manifest["quantization"] == {"scheme": "int8", "io": "float32", "float_ops": [], "note": None}
    assert manifest["recipe"]["data"]["path"] == "tiny.npz"
    assert manifest["metrics"]["num_examples"] == 120
    assert {"litelambda", "keras", "tensorflow", "ai_edge_litert", "python"} <= set(manifest["tools"])


def test_the_server_reads_and_runs_what_was_published(built_artifact: BuiltArtifact, tiny_recipe: Path) -> None:
    """Raw values through the manifest's preprocessing give the right class in the shipped runtime."""
    artifact = fetch_artifact(open_store(built_artifact.store_url), "tiny", "stable")
    scaling = artifact.manifest.fields["preprocessing"]["features"]
    raw = np.array([[200, 10, 30, 90], [5, 20, 240, 250]], np.uint8)
    rows = raw.astype(np.float32) * np.float32(scaling["scale"]) + np.float32(scaling["offset"])
    with CompiledModel(artifact.model) as model:
        (answer,) = model.run("predict", [rows.tobytes()], batch=2)
    assert np.frombuffer(answer, np.float32).reshape(2, 3).argmax(axis=1).tolist() == [0, 2]


def test_the_keras_files_are_the_model_that_was_converted(built_artifact: BuiltArtifact) -> None:
    """Both saved files load and answer alike."""
    keras = load_keras()
    rows = np.random.default_rng(0).random((8, 4), dtype=np.float32)
    answers = [
        keras.models.load_model(built_artifact.folder / name, compile=False).predict(rows, verbose=0)
        for name in ("model.keras", "model.h5")
    ]
    assert np.array_equal(*answers)


def test_the_report_has_the_training_history(built_artifact: BuiltArtifact) -> None:
    """The loss of every epoch and the time of every stage so far are kept with the artifact."""
    report = json.loads((built_artifact.folder / "report.json").read_bytes())
    assert len(report["train"]["history"]["val_loss"]) == report["train"]["epochs"] == 6
    assert set(report["seconds"]) >= {"data", "train", "quantize"}
    assert report["latency_us"]["quantized"] > 0
    page = (built_artifact.folder / "report.html").read_text()
    assert page.count("<svg") == 4  # calibration, explanations, loss, accuracy
    assert "https://" not in page
    opened = open_report(built_artifact.store_url, "tiny@stable", show=False).read_text()
    assert built_artifact.result.published.digest in opened
    assert opened.split("<section")[1:] == page.split("<section")[1:]
    with pytest.raises(UsageError, match="'tiny' has no alias 'best'"):
        open_report(built_artifact.store_url, "tiny@best", show=False)


def test_the_report_says_where_the_artifact_fails(built_artifact: BuiltArtifact) -> None:
    """Its figures by class add up to the accuracy; the rows that it shows are those that it answers worst."""
    report = json.loads((built_artifact.folder / "report.json").read_bytes())
    manifest = json.loads((built_artifact.folder / "manifest.json").read_bytes())
    classes, confusion = report["analysis"]["classes"], np.array(report["confusion"])
    assert sum(each["support"] for each in classes) == report["metrics"]["num_examples"] == 120
    right = sum(each["recall"] * each["support"] for each in classes if each["support"]) / 120
    assert right == pytest.approx(manifest["metrics"]["quantized"]["accuracy"])
    wrong = int(confusion.sum() - np.trace(confusion))
    assert [each["wrong"] for each in report["examples"]] == [True] * min(wrong, 12) + [False] * max(0, 12 - wrong)
    assert all(len(each["shows"]["fields"]) == 4 for each in report["examples"])
    assert [each["wrong"] for each in report["typical"]] == [False] * 3
    assert len({each["true"] for each in report["typical"]}) == 3
    for each in (*report["examples"], *report["typical"]):
        explanation = each["explanation"]
        difference = explanation["output"] - explanation["baseline_output"]
        assert sum(value for _name, value in explanation["drawn"]["bars"]) == pytest.approx(difference, abs=0.02)
        assert explanation["target"] == each["answer"]
    assert report["version"] == manifest["version"] == 1
    artifact = (built_artifact.folder / "model.tflite").read_bytes()
    assert report["artifact_sha256"] == hashlib.sha256(artifact).hexdigest()
    assert report["tools"] == manifest["tools"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_artifact(
    built_artifact: BuiltArtifact, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second build of a recipe gives the very same bytes; a failed gate publishes nothing beside them."""
    again = build(load_recipe(tiny_recipe), tmp_path.as_uri(), PlainReporter(sys.stderr))
    artifact = tmp_path / "tiny" / "1" / "model.tflite"
    assert artifact.read_bytes() == (built_artifact.folder / "model.tflite").read_bytes()
    assert again.metrics == built_artifact.result.metrics
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == list(again.seconds)


@pytest.mark.slow
def test_a_gate_that_is_not_met_publishes_nothing(tiny_recipe: Path, tmp_path: Path) -> None:
    """A gate that asks for the impossible: its numbers are in the error and the store stays empty."""
    recipe = load_recipe(tiny_recipe, ["train.epochs=1", "gate.allow_trivial=true"])
    broken = recipe.model_copy(update={"gate": recipe.gate.model_copy(update={"max_accuracy_drop": -1.0})})
    with pytest.raises(GateError, match=r"\(float\) to .* \(quantized\); gate\.max_accuracy_drop allows -1"):
        build(broken, tmp_path.as_uri(), Reporter())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_regression_from_a_table_with_raw_edges(tmp_path: Path) -> None:
    """A CSV of unlike columns becomes an int8 model that takes codes; the manifest scales each column.

    Prices of a million are learnt standardized: the artifact, the figures and the .keras file are in their own units.
    """
    noise = np.random.default_rng(0)
    rows = np.column_stack([noise.uniform(0, 1000, 400), noise.uniform(-1, 1, 400)])
    target = 1e5 * (rows[:, 0] / 500 - rows[:, 1] + 7)
    lines = ["area,slope,price", *(f"{a},{b},{y}" for (a, b), y in zip(rows, target, strict=True))]
    (tmp_path / "houses.csv").write_text("\n".join(lines))
    (tmp_path / "houses.toml").write_text(
        '[model]\nbuilder = "mlp"\nhidden = [16]\n'
        '[data]\nformat = "csv"\npath = "houses.csv"\nlabel = "price"\ntask = "regression"\nnormalize = "standardize"\n'
        'targets = "standardize"\n'
        '[train]\nloss = "mse"\nepochs = 30\noptimizer = { name = "adam", learning_rate = 0.02 }\n'
        '[quantize]\nio = "int8"\n[gate]\nmax_mse_increase = 5.0\n[publish]\nname = "houses"\naliases = []\n'
    )
    result = build(load_recipe(tmp_path / "houses.toml"), (tmp_path / "store").as_uri(), Reporter())
    manifest = json.loads((tmp_path / "store" / "houses" / "1" / "manifest.json").read_bytes())
    assert result.metrics["quantized"]["mse"] < 0.05 * 1e10
    table = manifest["preprocessing"]["input"]
    scale, offset = (np.array([column[key] for column in table["columns"]]) for key in ("scale", "offset"))
    keras = load_keras().models.load_model(tmp_path / "store" / "houses" / "1" / "model.keras", compile=False)
    answers = keras.predict(rows * scale + offset, verbose=0)[:, 0]
    assert np.sqrt(np.mean((answers - target) ** 2)) < 0.2 * 1e5
    output = manifest["signatures"]["predict"]["outputs"][0]["quantization"]
    assert output["scale"] * 255 == pytest.approx(target.max(), rel=0.2)  # int8 spans from zero on
    assert result.metrics["trivial"]["mse"] == pytest.approx(target.var(), rel=0.3)
    assert result.metrics["agreement"] is None
    assert (manifest["labels"], manifest["task"]) == (None, "regression")
    assert [column["name"] for column in table["columns"]] == ["area", "slope"]
    assert scale == pytest.approx(1 / rows.std(axis=0), rel=0.1)
    (tensor,) = manifest["signatures"]["predict"]["inputs"]
    assert tensor["dtype"] == "int8"
    assert tensor["quantization"]["scale"] > 0
    assert Store((tmp_path / "store").as_uri()).read_aliases("houses") == {}


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `litelambda build`."""
    command = [sys.executable, "-m", "litelambda", "build", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("train.optimizer.name=adaam", 2, 'train.optimizer.name: "adaam" is not valid'),
        ("data.path=nowhere.npz", 1, "there is no data set at"),
    ],
)
def test_mistakes_end_the_command(tiny_recipe: Path, tmp_path: Path, override: str, code: int, message: str) -> None:
    """Wrong usage exits with 2, failed work with 1; the reason is on standard error alone."""
    done = command_line(str(tiny_recipe), "--store", tmp_path.as_uri(), "--set", override, "--json")
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def is_empty(group: int) -> bool:
    """Whether a process group has no process left, zombies included."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def stop_child(parent: int) -> None:
    """Stop what a build has started and asked to convert, which then never answers it.

    One that is not asked yet the build may not know itself: it ends when its pipe does, which it cannot if stopped.
    """
    children = Path(f"/proc/{parent}/task/{parent}/children")

    def is_converting(pid: str) -> bool:
        process = Path("/proc", pid)
        try:
            command = (process / "cmdline").read_bytes()
            # One that has not begun its own program has its parent's memory, and the parent waits until it has.
            return b"child_process" in command and "libtensorflow" in (process / "maps").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            return False

    stopped = wait_until(lambda: [int(pid) for pid in children.read_text().split() if is_converting(pid)])
    os.kill(stopped[0], signal.SIGSTOP)


CHATTY_BUILD = """
import runpy
from litelambda.common import progress
progress._SECONDS_BETWEEN = 0
runpy.run_module("litelambda", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "quantize"])
def test_ctrl_c_leaves_nothing_behind(tiny_recipe: Path, tmp_path: Path, stage: str) -> None:
    """Interrupted between epochs or while a child converts, a build exits with 130, without a version or a process."""
    command = [
        sys.executable, "-c", CHATTY_BUILD, "build", str(tiny_recipe), "--store", tmp_path.as_uri(),
        "--set", f"train.epochs={100_000 if stage == 'train' else 1}", "--set", "gate.allow_trivial=true",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        begun = "epoch 2/" if stage == "train" else "compress"
        assert any(begun in line for line in process.stderr)
        if stage == "quantize":
            stop_child(process.pid)
        os.kill(process.pid, signal.SIGINT)  # the build alone: it must see to its own children
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130, rest
    assert rest.splitlines()[-1] == "litelambda: interrupted"
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: is_empty(process.pid))


@pytest.fixture
def s3_endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 on loopback with the empty bucket "models", for boto3 and for the server's own client."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with MotoServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        yield client
        client.close()


@pytest.mark.slow
def test_a_build_into_s3(tiny_recipe: Path, s3_endpoint: Any) -> None:
    """The same pipeline publishes into a bucket, is read back through the server's client and listed."""
    result = build(load_recipe(tiny_recipe), "s3://models/team", Reporter())
    assert result.published.url == "s3://models/team/tiny/1"
    store = Store("s3://models/team")
    assert store.list_versions("tiny") == [1]
    assert store.read_aliases("tiny") == {"latest": 1}
    artifact = fetch_artifact(open_store("s3://models/team"), "tiny")
    assert bytes(artifact.model) == store.read_file("tiny", 1, "model.tflite")


@pytest.mark.slow
def test_a_publisher_that_loses_the_race_says_so(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When another publisher takes the number between choosing and writing, the build ends in a clear error."""
    store = Store(tmp_path.as_uri())
    store.publish("tiny", 1, {"model.tflite": b"the winner's"}, b"{}")
    monkeypatch.setattr("litelambda.store.artifact_store.Store.next_version", lambda *_: 1)
    with pytest.raises(PublishError, match="version 1 of tiny was taken by another publisher"):
        build(
            load_recipe(tiny_recipe, ["train.epochs=1", "gate.max_accuracy_drop=1", "gate.allow_trivial=true"]),
            tmp_path.as_uri(),
            Reporter(),
        )
    assert store.read_file("tiny", 1, "model.tflite") == b"the winner's"
    assert store.read_aliases("tiny") == {}
