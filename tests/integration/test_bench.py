"""`litelambda bench` from the command line: every handler in the real runtime client, on a tiny published model."""

from __future__ import annotations

import compileall
import hashlib
import json
import py_compile
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from litelambda.cli.main import main
from litelambda.common.paths import FUNCTIONS
from litelambda_serving.litert import find_library
from support.waiting import is_alive, wait_until

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden"
HANDLERS = [
    "hello", "litelambda", "litelambda_pinned", "litelambda_lean", "litelambda_lean_pinned", "litelambda_bundled",
    "usual",
]  # fmt: skip
FORMS = ["json_1_row", "binary_1_row", "raw_1_row", "json_32_rows", "binary_32_rows", "raw_32_rows"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The URL of a store with one version of the model `tiny`."""
    root = tmp_path_factory.mktemp("models")
    artifact = (GOLDEN / "tiny_int8.tflite").read_bytes()
    manifest = {
        "format_version": 1,
        "model": "tiny",
        "version": 1,
        "artifact": "model.tflite",
        "files": {"model.tflite": {"sha256": hashlib.sha256(artifact).hexdigest(), "size_bytes": len(artifact)}},
        "default_signature": "predict",
        "signatures": {
            "predict": {
                "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 4], "quantization": None}],
                "outputs": [{"name": "probabilities", "dtype": "float32", "shape": [-1, 3], "quantization": None}],
            }
        },
        "batching": {"dynamic": True, "verified_sizes": [1, 2, 3, 8, 32]},
        "preprocessing": {},
        "labels": None,
    }
    folder = root / "tiny" / "1"
    folder.mkdir(parents=True)
    document = json.dumps(manifest).encode()
    (folder / "model.tflite").write_bytes(artifact)
    (folder / "manifest.json").write_bytes(document)
    pin = {"manifest_sha256": hashlib.sha256(document).hexdigest(), "artifact": "model.tflite"}
    (root / "tiny" / "aliases.json").write_text(json.dumps({"latest": 1, "versions": {"1": pin}}))
    return root.as_uri()


def test_cold_measures_every_handler(store, tmp_path, capsys):
    """One JSON document with times, memory and ratios of all handlers, and nothing else printed."""
    chart = tmp_path / "cold.png"
    arguments = ["bench", "cold", "--store", store, "--model", "tiny", "--runs", "1", "--chart", str(chart)]
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert printed.err == ""
    assert list(result["handlers"]) == HANDLERS
    for numbers in result["handlers"].values():
        assert numbers["init_ms_min"] <= numbers["init_ms"] <= numbers["init_ms_max"]
        assert min(numbers["init_ms"], numbers["first_ms"], numbers["rss_mb"]) > 0
    assert set(result["ratios"]) == {"init_over_floor", "lean_over_floor", "bundled_over_floor", "added_vs_usual"}
    assert set(result["ratios_of_fastest"]) == set(result["ratios"])
    assert (result["model"]["name"], result["runs"]) == ("tiny", 1)
    assert result["machine"]["packages"]["awslambdaric"]
    assert chart.stat().st_size > 0


def test_cold_prints_a_table(store, capsys):
    """Without --json a person reads one line for each handler that was asked for."""
    arguments = ["bench", "cold", "--store", store, "--model", "tiny", "--runs", "1", "--handlers", "hello,litelambda"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "litelambda" in printed
    assert "usual" not in printed


def test_a_package_for_another_python_is_compiled_in_a_copy(store, tmp_path, capsys):
    """A package is measured where it lies; one without bytecode for this interpreter is left alone and noted."""
    package = tmp_path / "package"
    shutil.copytree(FUNCTIONS, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "lib").mkdir()
    (package / "lib" / "libLiteRt.so").symlink_to(find_library())
    arguments = [
        "bench",
        "cold",
        "--store",
        store,
        "--model",
        "tiny",
        "--runs",
        "1",
        "--handlers",
        "litelambda_bundled",
    ]
    assert main([*arguments, "--package", str(package), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert "has no bytecode for" in result["notes"][0]
    assert not list(package.rglob("*.pyc"))
    compileall.compile_dir(package, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert main([*arguments, "--package", str(package), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_what_trust_costs_is_measured(store, capsys):
    """The same model, signed and encrypted, is served by a function that asks for both."""
    arguments = ["bench", "cold", "--store", store, "--model", "tiny", "--runs", "1"]
    assert main([*arguments, "--handlers", "litelambda_lean_pinned,litelambda_lean_sealed", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["handlers"]
    assert set(found) == {"litelambda_lean_pinned", "litelambda_lean_sealed"}


def test_the_stores_latency_is_part_of_init(store, capsys):
    """A slow S3 holds INIT up by at least one time to first byte."""
    arguments = ["bench", "cold", "--store", store, "--model", "tiny", "--runs", "1", "--handlers", "litelambda"]
    assert main([*arguments, "--store-latency-ms", "200", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["handlers"]["litelambda"]["init_ms"] >= 200


def test_peers_have_environments_of_their_own(store, capsys):
    """What cannot live beside the toolchain is measured too, or a note says why not; all of them predict."""
    names = "usual_tflite_runtime,onnxruntime"
    arguments = ["bench", "cold", "--store", store, "--model", "tiny", "--runs", "1", "--handlers", f"hello,{names}"]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for name in names.split(","):
        assert name in result["handlers"] or any(note.startswith(f"without {name}: ") for note in result["notes"])


def test_warm_measures_every_form(built_artifact, tmp_path, capfd):
    """Times on top of hello world's for each form of one row and of 32, beside the usual handler and the bare run."""
    chart = tmp_path / "warm.svg"
    place = ["--store", built_artifact.store_url, "--model", "tiny"]
    arguments = ["bench", "warm", *place, "--invokes", "20", "--chart", str(chart)]
    assert main([*arguments, "--json"]) == 0
    printed = capfd.readouterr()
    result = json.loads(printed.out)
    assert printed.err == ""
    assert list(result["cases"]) == FORMS
    for case in result["cases"].values():
        assert {"p50_us", "p99_us", "lean_us", "raw_us", "usual_us", "ratio", "over_raw"} <= set(case)
        assert case["raw_us"] > 0
    explained = result["explanations"]["tiny"]
    assert {"p50_us", "predict_us"} <= set(explained)
    assert explained["completeness_error"] <= 0.01
    assert chart.stat().st_size > 0


def test_load_measures_each_server(store, capsys):
    """Clients in turn and requests by chance: all are answered as the same request alone, with their times."""
    arguments = ["bench", "load", "--store", store, "--model", "tiny", "--clients", "1,4", "--requests", "50"]
    assert main([*arguments, "--share", "0.5", "--seconds", "0.3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["servers"]) == ["litelambda", "litelambda_processes"]
    for loads in result["servers"].values():
        by = [(load.get("clients"), load.get("share"), load.get("even")) for load in loads]
        assert by == [(1, None, None), (4, None, None), (None, 0.5, False), (None, 0.5, True)]
        assert [load["requests"] for load in loads[:2]] == [50, 50]
        for load in loads:
            assert 0 < load["p50_ms"] <= load["p90_ms"] <= load["p99_ms"]
            assert load["errors"] == {}
            assert load["by_model"].keys() == {"tiny"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["load", "--model", "absent"], 1, "litelambda build absent`"),
        (["load", "--model", "tiny", "--clients", "0"], 2, "a list of numbers from 1 to 1024"),
        (["load", "--model", "tiny", "--share", "1"], 2, "--share between 0 and 1"),
        (["load", "--model", "tiny", "--cores", "999"], 2, "those of this machine"),
        (["cold", "--model", "absent"], 1, "litelambda build absent`"),
        (["warm", "--model", "absent"], 1, "litelambda build absent`"),
        (["cold", "--model", "tiny", "--handlers", "helo"], 2, "choose from hello"),
        (["cold", "--model", "tiny", "--runs", "0"], 2, "--runs >= 1"),
        (["warm", "--model", "tiny", "--invokes", "0"], 2, "--invokes >= 1"),
        (["cold", "--model", "tiny", "--chart", "chart.pdf"], 2, "expected a .svg or .png"),
        (["cold", "--model", "tiny", "--package", "/nonexistent"], 1, "predict.py"),
    ],
)
def test_mistakes_are_named(store, capsys, arguments, code, message):
    """A missing model, package or handler and an impossible number each have an exit code and a sentence."""
    assert main(["bench", *arguments, "--store", store]) == code
    assert message in capsys.readouterr().err


def test_a_damaged_artifact_fails_with_the_handlers_own_words(store, tmp_path, capsys):
    """What a function says when its INIT fails is what the benchmark says."""
    copy = tmp_path / "models"
    subprocess.run(["cp", "-r", store.removeprefix("file://"), str(copy)], check=True)
    artifact = copy / "tiny" / "1" / "model.tflite"
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"?")
    arguments = ["bench", "cold", "--store", copy.as_uri(), "--model", "tiny", "--handlers", "litelambda"]
    assert main(arguments) == 1
    assert "DigestError" in capsys.readouterr().err


def test_an_interrupt_leaves_no_process_behind(store):
    """Ctrl-C ends the benchmark with 130, and the handler that ran with it."""
    command = [sys.executable, "-m", "litelambda", "bench", "cold", "--store", store, "--model", "tiny"]
    arguments = [*command, "--runs", "50", "--handlers", "litelambda", "--store-latency-ms", "5000"]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as bench:
        children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children")
        child = int(wait_until(lambda: children.read_text().split())[0])
        bench.send_signal(signal.SIGINT)
        _output, errors = bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert b"interrupted" in errors
    wait_until(lambda: not is_alive(child))  # one that had just been started ends by itself, when its pipe does


def test_growth(tmp_path, capsys):
    """Each curve has its points, and a store of more models is a longer list; the chart has a panel for each."""
    chart = tmp_path / "growth.svg"
    sizes = ["--runs", "1", "--largest-mb", "0.1", "--most-models", "100", "--chart", str(chart), "--json"]
    assert main(["bench", "growth", *sizes]) == 0
    curves = json.loads(capsys.readouterr().out)["curves"]
    assert [point["models"] for point in curves["models"]] == [10, 100]
    assert [point["rows"] for point in curves["rows"]] == [1, 4, 16, 64, 256, 640]
    assert [point["size_mb"] for point in curves["size"]] == [0.1]
    assert {"usual_init_ms", "litelambda_lean_init_ms"} <= set(curves["size"][0])
    assert chart.read_text(encoding="utf-8").count('<g id="axes_') == 3
