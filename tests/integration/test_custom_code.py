"""The function's own code: before and after the model, in the handler, in batch and in the command, with its errors."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from litelambda.cli.main import main
from litelambda.common.paths import FUNCTIONS
from litelambda_serving.custom_code import CustomCode
from litelambda_serving.errors import CustomCodeError, SettingsError
from support.golden_store import golden, publish
from support.handler_client import load_module, send
from support.scoring_files import expected, processes_at_once, read_jsonl

CODE = '''
"""Kilograms and centimeters in, the name of the best class out."""
from dataclasses import dataclass

from litelambda_serving.errors import RequestError

@dataclass
class Person:
    weight: float
    height: float

def preprocess(rows):
    print("preprocess", len(rows))
    made = []
    for row in rows:
        if row["weight"] < 0:
            raise RequestError(f"weight {row['weight']} is negative")
        person = Person(float(row["weight"]) / 100, float(row["height"]) / 200)
        made.append([person.weight, person.height, 1.0 / row.get("divisor", 1), 0.5])
    return made

def postprocess(outputs):
    (scores,) = outputs.values()
    best = [max(range(len(row)), key=row.__getitem__) for row in scores]
    if any(row[index] > 0.9999 for row, index in zip(scores, best)):
        raise RequestError("too sure")
    return [{"class": "abc"[index], "scores": row} for row, index in zip(scores, best)]
'''
ROWS = [{"weight": 50, "height": 150}, {"weight": 80, "height": 190}, {"weight": 3, "height": 55}]
PREPARED = np.array([[0.5, 0.75, 1, 0.5], [0.8, 0.95, 1, 0.5], [0.03, 0.275, 1, 0.5]], np.float32)
URL = "/v1/models/tiny_int8:predict"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("custom")
    publish(root / "store", "tiny_int8", data=golden("tiny_int8"), task="classification")
    (root / "code.py").write_text(CODE)
    return root


@pytest.fixture(scope="module")
def handler(place):
    return load_module(place / "store", "tiny_int8", CUSTOM_CODE=str(place / "code.py")).handler


def answers(prepared=PREPARED):
    """What the code makes of the reference Interpreter's scores."""
    scores = expected(prepared).tolist()
    return [{"class": "abc"[int(np.argmax(row))], "scores": pytest.approx(row)} for row in scores]


def test_it_runs_before_and_after_the_model(handler):
    """Rows go through `preprocess` to the model, its outputs through `postprocess` to the answer."""
    assert send(handler, "POST", URL, {"instances": ROWS}).json() == {"predictions": answers()}


def test_prepared_rows_skip_preprocess(handler):
    """`prepared` says that the values are the model's own, whoever would prepare others."""
    body = {"instances": PREPARED.tolist(), "prepared": True}
    assert send(handler, "POST", URL, body).json() == {"predictions": answers()}


def test_its_request_error_is_the_clients(handler):
    """A `RequestError` of the code is 400, with its message."""
    answer = send(handler, "POST", URL, {"instances": [{"weight": -1, "height": 1}]})
    assert (answer.status, answer.json()) == (400, {"error": "weight -1 is negative"})


def test_any_other_error_is_500_and_in_the_log(handler, capsys):
    """Its traceback is in the log, with the line that failed; the client learns nothing of it."""
    answer = send(handler, "POST", URL, {"instances": [{"weight": 1, "height": 1, "divisor": 0}]})
    assert (answer.status, answer.json()) == (500, {"error": "internal error (request request-1)"})
    log = capsys.readouterr().out
    assert "ZeroDivisionError" in log
    assert "1.0 / row.get" in log


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def preprocess(rows):\n    return rows[1:]",
            "preprocess returned a list of 0: expected a list with an entry",
        ),
        ("def preprocess(rows):\n    return None", "preprocess returned NoneType"),
        ("def postprocess(outputs):\n    return outputs", "postprocess returned dict"),
        ("def postprocess(outputs):\n    return [object()]", "cannot be written as JSON"),
    ],
)
def test_what_it_returns_is_checked(place, tmp_path, capsys, source, message):
    """A list with an entry for each row, of what JSON can hold; else it is the code's fault, and the log says why."""
    (tmp_path / "code.py").write_text(source)
    handler = load_module(place / "store", "tiny_int8", CUSTOM_CODE=str(tmp_path / "code.py")).handler
    assert send(handler, "POST", URL, {"instances": PREPARED[:1].tolist()}).status == 500
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (URL, {"inputs": PREPARED.tolist()}, {}),
        (URL, PREPARED.tobytes(), {"Content-Type": "application/octet-stream"}),
        ("/v1/models/tiny_int8:classify", {"examples": [{"x": [1, 2, 3, 4]}]}, {}),
        ("/v2/models/tiny_int8/infer", {"inputs": []}, {}),
    ],
)
def test_requests_without_rows_of_json_are_not_answered(handler, path, body, headers):
    """No request gets round the code: what it cannot take is 501, with what to do."""
    answer = send(handler, "POST", path, body, headers)
    assert answer.status == 501
    assert "use /v1/models/NAME:predict with 'instances'" in answer.json()["error"]


def test_init_traces_its_import(place, capsys):
    """At DEBUG, INIT's trace has the time that the code's import took."""
    load_module(place / "store", "tiny_int8", CUSTOM_CODE=str(place / "code.py"), LOG_LEVEL="DEBUG")
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["message"] == "init"
    assert line["custom_code_ms"] > 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("x = 1", "defines neither preprocess(rows) nor"),
    ],
)
def test_code_that_cannot_run_fails_init(place, tmp_path, source, message):
    """A module that cannot be imported, or has neither function, is no function that answers."""
    (tmp_path / "code.py").write_text(source)
    with pytest.raises(CustomCodeError) as raised:
        load_module(place / "store", "tiny_int8", CUSTOM_CODE=str(tmp_path / "code.py"))
    assert message in str(raised.value)
    with pytest.raises(SettingsError, match="is not a file"):
        load_module(place / "store", "tiny_int8", CUSTOM_CODE="missing.py")


def test_the_package_is_where_init_finds_it(place, tmp_path):
    """Without a setting, `custom_code.py` next to the handler is the function's own code."""
    for name in ("predict.py", "litelambda_serving"):
        (tmp_path / name).symlink_to(FUNCTIONS / name)
    settings = "from litelambda_serving.settings import Settings; import sys\n"
    script = settings + "print(Settings.from_environment({'MODEL_STORE': 's3://b'}).custom_code)"
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == "\n"
    (tmp_path / "custom_code.py").write_text(CODE)
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == f"{tmp_path / 'custom_code.py'}\n"


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_batch_scoring_runs_it_alike(place, tmp_path, capsys, ending):
    """The same rows of a file get the same answers; one that the code refuses is bad, and spoils no other."""
    rows = [{"id": f"n{place}", **row} for place, row in enumerate(ROWS)]
    rows.insert(1, {"id": "bad", "weight": -5, "height": 1})
    code = CODE.replace('row["weight"] < 0', 'float(row["weight"]) < 0')
    (tmp_path / "code.py").write_text(code)
    source = tmp_path / f"rows.{ending}"
    if ending == "jsonl":
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        cells = [",".join(str(value) for value in row.values()) for row in rows]
        source.write_text("\n".join(["id,weight,height", *cells]) + "\n")
    output = tmp_path / "out.jsonl"
    command = ["score", str(source), str(output), "--model", "tiny_int8", "--store", str(place / "store")]
    command += ["--code", str(tmp_path / "code.py"), "--passthrough", "id", "--tolerate", "0.5"]
    assert main(command) == 0
    scored = read_jsonl(output.read_bytes())
    assert [row["id"] for row in scored] == ["n0", "n1", "n2"]
    assert [row["prediction"] for row in scored] == answers()
    (bad,) = read_jsonl((tmp_path / "out.errors.jsonl").read_bytes())
    assert bad["reason"].startswith("weight -5")
    assert main([*command[:2], str(tmp_path / "out.npy"), *command[3:]]) == 1
    assert "expected the output format jsonl, not npy" in capsys.readouterr().err


def test_arrays_are_no_rows_for_it(place, tmp_path, capsys):
    """A file of arrays has no records that `preprocess` could take, and says so."""
    np.save(tmp_path / "rows.npy", PREPARED)
    command = ["score", str(tmp_path / "rows.npy"), str(tmp_path / "out.jsonl"), "--model", "tiny_int8"]
    assert main([*command, "--store", str(place / "store"), "--code", str(place / "code.py")]) == 1
    assert "the function's own preprocess takes rows of JSON Lines or CSV, not npy" in capsys.readouterr().err


def test_worker_processes_run_it(place, tmp_path, monkeypatch, capsys):
    """Workers on other cores import the same file."""
    processes_at_once(monkeypatch)
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 20_000)
    source, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(ROWS[index % 3]) + "\n" for index in range(6_000)))
    (tmp_path / "code.py").write_text(CODE.replace('print("preprocess", len(rows))', ""))
    command = ["score", str(source), str(output), "--model", "tiny_int8", "--store", str(place / "store")]
    assert main([*command, "--code", str(tmp_path / "code.py"), "--workers", "2"]) == 0
    made = [row["prediction"] for row in read_jsonl(output.read_bytes())]
    assert (len(made), made[:3], made[-3:]) == (6_000, answers(), answers())
    assert main([*command[:-2], "--store", str(place / "store"), "--force", "--code", str(tmp_path / "none.py")]) == 2
    assert "expected a Python file (.py)" in capsys.readouterr().err


def test_the_command_predicts(place, tmp_path, capsys, monkeypatch):
    """`litelambda predict` sends a row, or a body, through the handler with the code, and prints the answer alone."""
    command, environment = ["predict", "tiny_int8", "--store", str(place / "store")], dict(os.environ)
    (tmp_path / "row.json").write_text(json.dumps(ROWS[0]))
    assert main([*command, "--code", str(place / "code.py"), "--input", str(tmp_path / "row.json")]) == 0
    assert json.loads(capsys.readouterr().out) == {"predictions": answers()[:1]}
    assert dict(os.environ) == environment
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps({"instances": PREPARED.tolist()}).encode()))
    )
    assert main([*command, "--input", "-", "--top-k", "1"]) == 0
    best = [[{"label": str(int(np.argmax(row))), "score": pytest.approx(row.max())}] for row in expected(PREPARED)]
    assert json.loads(capsys.readouterr().out) == {"predictions": best}
    (tmp_path / "row.json").write_text(json.dumps({**ROWS[0], "weight": -2}))
    assert main([*command, "--code", str(place / "code.py"), "--input", str(tmp_path / "row.json")]) == 1
    assert "400: weight -2 is negative" in capsys.readouterr().err
    for wrong, message in (("{", "is neither JSON nor a picture"), (None, "cannot be read")):
        path = tmp_path / "wrong.json"
        if wrong is not None:
            path.write_text(wrong)
        assert main([*command, "--input", str(path)]) == 2
        assert message in capsys.readouterr().err
        path.unlink(missing_ok=True)
    assert main(["predict", "tiny_int8:x", "--store", str(place / "store"), "--input", str(tmp_path / "row.json")]) == 2
    assert "expected NAME, NAME@alias or NAME:version" in capsys.readouterr().err


def test_a_pickled_module_is_imported_again(place):
    """What workers get is the file's path: the module itself is never sent."""
    function, (path,) = CustomCode(str(place / "code.py")).__reduce__()
    assert (function, path) == (CustomCode, str(place / "code.py"))
