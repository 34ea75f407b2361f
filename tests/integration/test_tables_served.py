"""A table from a raw file to raw requests: the build's accuracy, to the last row, over HTTP and in batch."""

from __future__ import annotations

import csv
import json
import math
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from litelambda.commands.build import build
from litelambda.common.progress import Reporter
from litelambda.recipe.load import load_recipe
from litelambda_serving.asgi import Application
from litelambda_serving.objects import to_url
from litelambda_serving.preprocessing import RawInputs
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.scoring.running.engine import run_job
from litelambda_serving.tensor import DTYPES, TensorSpec
from support.handler_client import load_module
from support.server import running, send

pytestmark = pytest.mark.slow

NUMBERS, CATEGORIES = ("age", "income", "rooms"), ("city", "smoker")
LABELS = ("high", "low", "middle")
RECIPE = """
[model]
builder = "mlp"
hidden = [16]
output_name = "probabilities"
[data]
format = "csv"
path = "people.csv"
label = "risk"
missing = "mean"
fill = { city = "nowhere" }
unknown = "other"
normalize = "standardize"
test_split = 0.25
validation_split = 0
[train]
loss = "sparse_categorical_crossentropy"
optimizer = { name = "adam", learning_rate = 0.02 }
epochs = 12
[gate]
max_accuracy_drop = 0.1
[publish]
name = "people"
"""


def make_rows(num_rows: int = 400) -> list[dict[str, Any]]:
    """Rows of a noisy rule over numbers and categories, with gaps; None is a missing value."""
    rng = np.random.default_rng(17)
    rows = []
    for _ in range(num_rows):
        row: dict[str, Any] = {
            "age": round(float(rng.normal(45, 15)), 1),
            "income": float(rng.integers(8, 120) * 1000),
            "rooms": int(rng.integers(1, 9)),
            "city": str(rng.choice(["Bonn", "Köln, Nord", "Ulm"])),
            "smoker": str(rng.choice(["yes", "no"])),
        }
        score = (row["age"] - 45) / 15 - (row["income"] - 60_000) / 40_000 + (row["smoker"] == "yes")
        score += {"Bonn": -1, "Köln, Nord": 0, "Ulm": 1}[row["city"]] + rng.normal(0, 0.5)
        for name in ("age", "income", "city", "smoker"):
            if rng.random() < 0.08:
                row[name] = None
        rows.append({**row, "risk": LABELS[0 if score > 1 else 1 if score < -0.5 else 2]})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]], names: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model of a table: its store, its test rows as they stand in the file, and the accuracy of its build."""
    folder = tmp_path_factory.mktemp("people")
    rows = make_rows()
    write_csv(folder / "people.csv", rows, [*NUMBERS, *CATEGORIES, "risk"])
    (folder / "people.toml").write_text(RECIPE)
    result = build(load_recipe(folder / "people.toml"), (folder / "store").as_uri(), Reporter())
    test_rows = np.random.default_rng(0).permutation(len(rows))[:100]
    return SimpleNamespace(
        store=folder / "store",
        rows=[rows[number] for number in test_rows],
        accuracy=result.metrics["quantized"]["accuracy"],
        folder=folder,
    )


@pytest.fixture(scope="module")
def port(people):
    with running(Application(load_module(people.store))) as port:
        yield port


def accuracy(people: SimpleNamespace, predictions: list[list[float]]) -> float:
    found = [sorted(LABELS)[int(np.argmax(row))] for row in predictions]
    return float(np.mean([label == row["risk"] for label, row in zip(found, people.rows, strict=True)]))


def ask(port: int, path: str, body: Any) -> Any:
    status, _, answer = send(port, "POST", path, json.dumps(body))
    assert status == 200, answer
    return json.loads(answer)


@pytest.fixture(scope="module")
def answers(people, port) -> list[list[float]]:
    """The predictions of the test rows by name, the columns reversed, the label still there."""
    instances = [dict(reversed(row.items())) for row in people.rows]
    found: list[list[float]] = ask(port, "/v1/models/people:predict", {"instances": instances})["predictions"]
    return found


def test_raw_rows_by_name_have_the_accuracy_of_the_build(people, answers) -> None:
    """What was evaluated is what is served: to the last row, on the rows as they stand in the file."""
    assert 0.6 < people.accuracy < 1
    assert accuracy(people, answers) == pytest.approx(people.accuracy, abs=1e-12)


def test_every_form_of_a_request_has_the_same_answers(people, port, answers) -> None:
    """Lists in the manifest's order, whole columns, and V2's input for each column."""
    lists = [[row[name] for name in (*NUMBERS, *CATEGORIES)] for row in people.rows]
    assert ask(port, "/v1/models/people:predict", {"instances": lists})["predictions"] == answers
    columns = {name: [row[name] for row in people.rows] for name in (*CATEGORIES, *NUMBERS)}
    assert ask(port, "/v1/models/people:predict", {"inputs": columns})["outputs"] == answers
    texts = [
        {"name": name, "datatype": "BYTES", "shape": [100], "data": [each or "" for each in columns[name]]}
        for name in CATEGORIES
    ]
    whole = [{"name": "rooms", "datatype": "INT64", "shape": [100, 1], "data": columns["rooms"]}]
    content, numbers = b"", []
    for name in ("age", "income"):
        data = np.array([np.nan if each is None else each for each in columns[name]], np.float64).tobytes()
        parameters = {"binary_data_size": len(data)}
        numbers.append({"name": name, "datatype": "FP64", "shape": [100], "parameters": parameters})
        content += data
    head = json.dumps({"inputs": [*texts, *whole, *numbers]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    status, _, body = send(port, "POST", "/v2/models/people/infer", head + content, headers)
    assert status == 200, body
    assert json.loads(body)["outputs"][0]["data"] == np.ravel(answers).tolist()


@pytest.mark.parametrize("ending", ["csv", "german.csv", "jsonl", "parquet"])
def test_batch_has_the_same_answers(people, answers, tmp_path, ending) -> None:
    """The raw rows in every format of batch, columns reversed, the label and an id passing through."""
    rows = [{"id": f"#{number}", **dict(reversed(row.items()))} for number, row in enumerate(people.rows)]
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        columns["smoker"] = pa.array(columns["smoker"]).dictionary_encode()
        pyarrow.parquet.write_table(pa.table(columns), path)
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        write_csv(path, rows, list(rows[0]))
    if ending == "german.csv":
        with path.open(newline="", encoding="utf-8") as file:
            lines = [[each.replace(".", ",") for each in line] for line in csv.reader(file)]
        path.write_text("\n".join(";".join(line) for line in lines), encoding="utf-8-sig")
    job = Job(to_url(str(path)), (tmp_path / "out.jsonl").as_uri(), model="people")
    summary = run_job(job, ModelSource(people.store.as_uri())).summary
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in found] == answers
    assert [(row["id"], row["risk"], row["label"] == row["risk"]) for row in found[:3]] == [
        (row["id"], row["risk"], sorted(LABELS)[int(np.argmax(answer))] == row["risk"])
        for row, answer in zip(rows[:3], answers[:3], strict=True)
    ]
    assert summary["rows_bad"] == 0


def test_what_training_read_is_what_is_served(people, port, answers) -> None:
    """The rows as numpy prepares them, sent as the model's own values, have the answers of the raw rows."""
    rows = make_rows()
    order = np.random.default_rng(0).permutation(len(rows))
    train = np.sort(order[100:])
    prepared = []
    for name in NUMBERS:
        values = np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
        values[np.isnan(values)] = np.nanmean(values[train])
        prepared.append((values - values[train].mean()) / values[train].std())
    most = {"city": "nowhere", "smoker": max(("yes", "no"), key=lambda x: sum(rows[i]["smoker"] == x for i in train))}
    for name, vocabulary in (("city", ["Bonn", "Köln, Nord", "Ulm", "nowhere"]), ("smoker", ["no", "yes"])):
        values = [row[name] or most[name] for row in rows]
        prepared += [[each == known for each in values] for known in vocabulary] + [[False] * len(rows)]
    own = np.array(prepared, np.float64).T[order[:100]]
    found = ask(port, "/v1/models/people:predict", {"prepared": True, "instances": own.tolist()})["predictions"]
    assert np.array(found) == pytest.approx(np.array(answers), abs=2 / 256)
    assert accuracy(people, found) == pytest.approx(people.accuracy, abs=0.011)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rooms": "three"}, "field 'rooms', row 0: expected a number, got the text 'three'"),
        ({"rooms": None}, ""),
        ({"city": "Paris"}, ""),
        ({"house": 1}, "unknown 'house'"),
        ({"age": [1]}, "field 'age', row 0: expected a number, got a list"),
    ],
)
def test_a_value_that_does_not_fit_is_a_clients_error(people, port, change, said) -> None:
    """The message names the field; what the manifest has a rule for is answered."""
    row = {**people.rows[0], **change}
    status, _, body = send(port, "POST", "/v1/models/people:predict", json.dumps({"instances": [row]}))
    assert (status, said in json.loads(body).get("error", "")) == (400 if said else 200, True)


def test_a_rows_columns_have_their_shapley_values(people, port) -> None:
    """By the definition, on the model's own values: a category's are one column, and the rest is the training mean."""
    rows = people.rows[:3]
    answer = ask(port, "/v1/models/people:explain", {"instances": rows})
    manifest = json.loads((people.store / "people" / "1" / "manifest.json").read_text())
    mean = np.array(next(iter(manifest["explain"]["baseline"].values())))
    assert np.abs(mean[:3]).max() < 1e-3  # what is standardized
    assert mean[[3, 4, 5, 6]].sum() == pytest.approx(mean[[8, 9]].sum(), abs=1e-5) == pytest.approx(1, abs=1e-5)
    spec = manifest["signatures"]["predict"]["inputs"][0]
    columns = [[0], [1], [2], [3, 4, 5, 6, 7], [8, 9, 10]]
    assert spec["shape"] == [-1, 11]
    raw_inputs = RawInputs([TensorSpec(spec["name"], DTYPES["float32"], spec["shape"])], manifest["preprocessing"], {})
    for row, found in zip(rows, answer["explanations"], strict=True):
        prepared = np.frombuffer(raw_inputs.from_rows([row])[spec["name"]].data, np.float32)
        coalitions = [*product([False, True], repeat=5)]
        mixed = np.tile(mean, (len(coalitions), 1))
        for line, coalition in zip(mixed, coalitions, strict=True):
            places = [place for column, present in zip(columns, coalition, strict=True) if present for place in column]
            line[places] = prepared[places]
        body = {"instances": mixed.tolist(), "prepared": True}
        outputs = np.array(ask(port, "/v1/models/people:predict", body)["predictions"])[:, found["target"]]
        value = dict(zip(coalitions, outputs, strict=True))
        for place, name in enumerate((*NUMBERS, *CATEGORIES)):
            expected = sum(
                (value[with_it] - value[(*with_it[:place], False, *with_it[place + 1 :])])
                / (5 * math.comb(4, sum(with_it) - 1))
                for with_it in coalitions
                if with_it[place]
            )
            assert found["attributions"][name] == pytest.approx(expected, abs=2e-6)
        assert (found["baseline"], found["runs"], found["completeness_error"]) == ("mean", 32, 0)
        assert found["label"] == sorted(LABELS)[found["target"]]
    body = {"instances": rows, "parameters": {"max_runs": 9}}
    status, _, refused = send(port, "POST", "/v1/models/people:explain", json.dumps(body))
    assert (status, b"max_runs is 9: 5 features take at least 10 runs" in refused) == (400, True)


@pytest.mark.parametrize(("ending", "output"), [("csv", "csv"), ("jsonl", "jsonl"), ("parquet", "jsonl")])
def test_batch_explains_as_requests_do(people, port, tmp_path, ending, output) -> None:
    """The strongest attributions of each row, by name, in JSON Lines and in cells."""
    rows = people.rows[:4]
    body = {"instances": rows, "parameters": {"top_k": 2}}
    wanted = [each["strongest"] for each in ask(port, "/v1/models/people:explain", body)["explanations"]]
    path, out = tmp_path / f"rows.{ending}", tmp_path / f"out.{output}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), path)
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        write_csv(path, rows, list(rows[0]))
    job = Job(to_url(str(path)), out.as_uri(), model="people", output_format=output, explain=2)
    run_job(job, ModelSource(people.store.as_uri()))
    if output == "jsonl":
        found = [json.loads(line)["explanation"] for line in out.read_text().splitlines()]
    else:
        with out.open(newline="", encoding="utf-8") as file:
            found = [
                [{"name": row[f"explanation_{n}"], "attribution": float(row[f"attribution_{n}"])} for n in (1, 2)]
                for row in csv.DictReader(file)
            ]
    assert found == wanted
