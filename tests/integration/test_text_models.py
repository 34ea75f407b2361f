"""A text model from raw reviews to answers: the same accuracy in the build, over both protocols, and in batch."""

from __future__ import annotations

import csv
import json
import urllib.error
import urllib.request

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tokenizers import Tokenizer

from litelambda.commands.build import build
from litelambda.commands.score import score
from litelambda.common.paths import PROJECT
from litelambda.recipe.load import load_recipe
from litelambda_serving.errors import UnsupportedError
from litelambda_serving.preprocessing import text as text_module
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.scoring.running.engine import run_job
from support.handler_client import load_module, send
from support.odd_texts import odd_texts

_RECIPE = """
[model]
builder = "text"
embedding = 16
filters = [32]
kernel_size = 5
dense = [8]
[data]
format = "text"
path = "reviews"
text = "review"
length = 24
validation_split = 0.0
tokenizer = { train = "wordpiece", vocabulary_size = 500 }
[train]
loss = "sparse_categorical_crossentropy"
optimizer = { name = "adam", learning_rate = 0.01 }
epochs = 4
[gate]
max_accuracy_drop = 0.05
[publish]
name = "reviews"
"""


@pytest.fixture(scope="module")
def rows():
    """2,000 reviews to train on; 150 others and 40 odd texts to test with."""
    with (PROJECT / "build" / "data" / "reviews.csv").open(newline="", encoding="utf-8") as file:
        reviews = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    odd = [(text, ("negative", "positive")[number % 2]) for number, text in enumerate(odd_texts(48)[8:])]
    return reviews[:2000], [*reviews[2000:2150], *odd]


@pytest.fixture(scope="module")
def built(rows, served_store, tmp_path_factory):
    """What the build reported, and the address of what serves the model."""
    store, address = served_store
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "reviews").mkdir()
    for name, split in zip(("train", "test"), rows, strict=True):
        lines = (json.dumps({"review": text, "label": label}) for text, label in split)
        (folder / "reviews" / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "recipe.toml").write_text(_RECIPE)
    return build(load_recipe(folder / "recipe.toml"), store), f"http://{address}"


@pytest.fixture(scope="module")
def expected(rows, served_store, built):
    """The reference Interpreter's answers to the test rows, on the library's own token numbers."""
    folder = served_store[0] / "reviews" / "1"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = np.zeros((len(rows[1]), 24), np.int32)
    for row, (text, _) in zip(ids, rows[1], strict=True):
        found = tokenizer.encode(text).ids[:24]
        row[: len(found)] = found
    runner = Interpreter(model_path=str(folder / "model.tflite")).get_signature_runner()
    ((name, details),) = runner.get_input_details().items()
    assert details["dtype"] is np.int32
    (output,) = runner.get_output_details()
    return np.concatenate([runner(**{name: row[None]})[output] for row in ids])


def post(url, body, headers=None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {})) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_artifact_reads_whole_numbers_and_is_all_int8(built, served_store):
    """The manifest says how texts become rows, and the embedding's table is quantized with the rest."""
    result, _ = built
    folder = served_store[0] / "reviews" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    (tensor,) = manifest["signatures"]["predict"]["inputs"]
    assert (manifest["format_version"], tensor["dtype"], tensor["shape"]) == (2, "int32", [-1, 24])
    assert manifest["preprocessing"][tensor["name"]] | {"max_characters": 0} == {
        "kind": "text", "field": "review", "label": "label", "tokenizer": "tokenizer.json", "length": 24, "padding": 0,
        "truncation": "right", "max_characters": 0, "vocabulary_size": 500,
    }  # fmt: skip
    assert manifest["assets"] == ["tokenizer.json"]
    assert "tokenizer.json" in manifest["files"]
    assert {*result.float_operators} <= {"CAST"}
    details = Interpreter(model_path=str(folder / "model.tflite")).get_tensor_details()
    (table,) = [each for each in details if [*each["shape"]] == [500, 16]]
    assert table["dtype"] is np.int8
    assert result.metrics["quantized"]["accuracy"] > result.metrics["trivial"]["accuracy"]


def test_the_accuracy_is_the_builds_over_both_protocols(built, rows, expected):
    """Raw strings as instances, as objects, and as BYTES in JSON and in binary form have the same answers."""
    result, address = built
    texts = [text for text, _ in rows[1]]
    truth = np.array([label == "positive" for _, label in rows[1]])
    accuracy = float(np.mean(expected.argmax(axis=1) == truth))
    assert accuracy == result.metrics["quantized"]["accuracy"]
    predict = f"{address}/v1/models/reviews:predict"
    for body in (
        {"instances": texts},
        {"instances": [{"label": label, "review": text} for text, label in rows[1]]},
    ):
        status, answer = post(predict, body)
        assert (status, np.array_equal(np.float32(answer["predictions"]), expected)) == (200, True)
    entry = {"name": "review", "datatype": "BYTES", "shape": [len(texts)]}
    infer = f"{address}/v2/models/reviews/infer"
    _, in_json = post(infer, {"inputs": [{**entry, "data": texts}]})
    content = b"".join(len(data).to_bytes(4, "little") + data for data in map(str.encode, texts))
    head = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": len(content)}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    _, in_binary = post(infer, head + content, headers)
    for answer in (in_json, in_binary):
        assert np.array_equal(np.float32(answer["outputs"][0]["data"]).reshape(expected.shape), expected)


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_the_accuracy_is_the_builds_in_batch(built, rows, expected, served_store, tmp_path, ending):
    """Each file has the answers of a request, and the label that was there passes through under a name of its own."""
    source, output = tmp_path / f"in{ending}", tmp_path / f"out{ending}"
    with source.open("w", newline="", encoding="utf-8") as file:
        if ending == ".csv":
            csv.writer(file).writerows([("id", "label", "review"), *((7, label, text) for text, label in rows[1])])
        else:
            file.writelines(json.dumps({"label": label, "review": text}) + "\n" for text, label in rows[1])
    score(source, output, model="reviews", store=served_store[0])
    with output.open(newline="", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file] if ending == ".jsonl" else list(csv.DictReader(file))
    scores = [line["prediction"] if ending == ".jsonl" else [line["output_0"], line["output_1"]] for line in lines]
    assert np.array_equal(np.float32(scores), expected)
    right = [line["label"] == line["input_label"] for line in lines]
    assert np.mean(right) == built[0].metrics["quantized"]["accuracy"]


_REFUSED = [
    ({"instances": [5]}, "field 'review', row 0: expected text, got 5"),
    ({"instances": ["a", None]}, "field 'review', row 1: expected text, got null"),
    ({"instances": [["a", "b"]]}, "expected text, got a list"),
    ({"instances": [True]}, "expected text, got True"),
    ({"instances": [{"text": "a"}]}, "missing 'review' and unknown 'text': expected 'review'"),
    ({"instances": [{"review": {"a": 1}}]}, "expected text, got an object"),
    ({"instances": [{"b64": "%%%"}]}, "nor its base64"),
    ({"instances": [{"b64": "/w=="}]}, "not text in UTF-8"),
    ({"instances": []}, "No values in 'instances'"),
    ({"instances": "a"}, "non-empty list"),
    ({"inputs": {"input": ["a"]}}, "missing 'review' and unknown 'input'"),
    ({"inputs": "a"}, "expected a list of rows"),
    ({"instances": ["a"], "prepared": True}, "got String"),
    ({"instances": [[1] * 23], "prepared": True}, "Expecting tensor size: 24 but got: 23"),
    ({"instances": [[500] * 24], "prepared": True}, "outside the range"),
    ({"instances": [[-501] * 24], "prepared": True}, "outside the range"),
    (b'{"instances": ["\\ud83d"]}', "half of a surrogate pair"),
    (b'{"instances": ["\xff"]}', "JSON Parse error"),
    (b'{"instances": ["a\x00"]}', "JSON Parse error"),
    ('{"instances": ["a"]}'.encode("utf-16"), "JSON Parse error"),
]


@pytest.mark.parametrize(("body", "reason"), _REFUSED)
def test_what_is_not_text_is_refused_by_name(built, body, reason):
    """A status of the client's fault, with the field, the row and what was expected."""
    status, answer = post(f"{built[1]}/v1/models/reviews:predict", body)
    assert status == 400
    assert reason in answer["error"]


@pytest.mark.parametrize(
    "text",
    ["", " \t\r\n", "\0", "[PAD] [UNK]", "\u202egnorw", "😀" * 9000, "not " * 250_000, "a" * 1_000_000, "\u0301" * 99,
     "\ufeffgood", "{}", "null"],
)  # fmt: skip
def test_odd_texts_have_the_answers_of_their_rows(built, served_store, text):
    """Empty, NUL, the tokenizer's own names, right to left, 1 MB: as the library's numbers of what is read of it."""
    tokenizer = Tokenizer.from_file(str(served_store[0] / "reviews" / "1" / "tokenizer.json"))
    ids = (tokenizer.encode(text[:4096]).ids + [0] * 24)[:24]
    url = f"{built[1]}/v1/models/reviews:predict"
    raw, prepared = post(url, {"instances": [text]}), post(url, {"instances": [ids], "prepared": True})
    assert raw[0] == 200
    assert raw == prepared


def test_bad_lines_of_a_file_are_named(served_store, built, tmp_path):
    """What is no text, or has none, is in the error file by line; the other lines are scored."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = ['"good"', '{"review": 5}', '{"label": "x"}', '{"review": "\\ud800"}', "[1, 2]", "", '{"review": "bad"}']
    source.write_text("\n".join(lines))
    job = Job(source.as_uri(), output.as_uri(), model="reviews", output_format="jsonl", tolerated_bad=1.0)
    run_job(job, ModelSource(served_store[0].as_uri()))
    assert [json.loads(line)["line"] for line in output.read_text().splitlines()] == [1, 7]
    (errors,) = [path for path in tmp_path.iterdir() if "errors" in path.name]
    found = {line["line"]: line["reason"] for line in map(json.loads, errors.read_text().splitlines())}
    assert [*found] == [2, 3, 4, 5]
    assert "expected text, got 5" in found[2]
    assert "missing 'review'" in found[3]


def test_a_package_without_the_tokenizers_says_what_to_do(built, served_store, monkeypatch):
    """INIT fails with the option of the package; a function of many models answers 501 with it."""
    monkeypatch.setattr(text_module, "_LIBRARY", "nowhere/tokenizers.so")
    monkeypatch.setattr(text_module, "_newest", None)
    with pytest.raises(UnsupportedError, match="package --with text"):
        load_module(served_store[0], "reviews")
    handler = load_module(served_store[0]).handler
    for path in ("/v1/models/reviews:predict", "/v2/models/reviews/infer"):
        answer = send(handler, "POST", path, {"instances": ["a"]})
        assert answer.status == 501
        assert "package --with text" in answer.json()["error"]


def test_words_are_left_out(built, served_store):
    """An attribution is what the answer loses without the word, at its place in the text that was sent."""
    _, address = built
    folder = served_store[0] / "reviews" / "1"
    cut = Tokenizer.from_file(str(folder / "tokenizer.json")).pre_tokenizer.pre_tokenize_str
    text = "  I loved it,  though the ending's weak!"
    spans = [span for _, span in cut(text)]
    ends = [*[start for start, _ in spans[1:]], len(text)]
    without = [text[:start] + text[end:] for (start, _), end in zip(spans, ends, strict=True)]
    _, predicted = post(f"{address}/v1/models/reviews:predict", {"instances": [text, "", *without]})
    parameters = {"method": "leave_one_out"}
    status, answer = post(f"{address}/v1/models/reviews:explain", {"instances": [text], "parameters": parameters})
    assert status == 200
    (found,) = answer["explanations"]
    whole, empty, *others = [row[found["target"]] for row in predicted["predictions"]]
    entries = found["attributions"]["review"]
    assert [(each["start"], each["end"], each["token"]) for each in entries] == [
        (start, end, text[start:end]) for start, end in spans
    ]
    assert [each["attribution"] for each in entries] == pytest.approx([whole - other for other in others], abs=1e-6)
    assert (found["output"], found["baseline_output"], found["baseline"]) == (whole, empty, "empty")
    entry = {"name": "review", "datatype": "BYTES", "shape": [1], "data": [text]}
    _, in_v2 = post(f"{address}/v2/models/reviews/explain", {"inputs": [entry], "parameters": parameters})
    assert json.loads(in_v2["outputs"][-1]["data"][0]) == found


def test_texts_are_explained_in_batch(built, served_store, tmp_path):
    """The strongest words of each row are those of a request."""
    _, address = built
    texts = ["I loved it, though the ending's weak!", "Dull."]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"review": text}) for text in texts))
    score(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", model="reviews", store=served_store[0], workers=1, explain=3)
    found = [json.loads(line)["explanation"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    body = {"instances": texts, "parameters": {"top_k": 3, "method": "leave_one_out"}}
    _, answer = post(f"{address}/v1/models/reviews:explain", body)
    assert found == [each["strongest"] for each in answer["explanations"]]
