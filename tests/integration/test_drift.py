"""Drift through the handler: what is counted, when a window is judged, and what is not counted."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from litelambda.artifact.flatbuffer import read_signatures, with_open_batch
from litelambda.artifact.reference import Reference
from litelambda.cli.main import main
from litelambda.commands.drift import drift
from litelambda.common.errors import DataError
from litelambda.evaluation.drift_baseline import make_baseline
from litelambda_serving.errors import ManifestError, SettingsError
from support.golden_store import golden, publish
from support.handler_client import load_module, send

COLUMNS = [
    {"name": "age", "type": "number", "scale": 0.1},
    {"name": "income", "type": "number"},
    {"name": "city", "type": "category", "vocabulary": ["Bern", "Rome"], "encoding": "one_hot", "unknown": "zeros"},
]
TABLE = {"x": {"kind": "table", "label": "risk", "columns": COLUMNS}}
LABELS = ["low", "middle", "high"]


def people(count, seed, shift=0.0):
    """Rows as callers send them, and as the model reads them."""
    rng = np.random.default_rng(seed)
    age, income = rng.normal(5 + 10 * shift, 2, count), rng.normal(0.5, 0.2, count)
    city = rng.choice(3, count, p=[0.6, 0.35, 0.05])
    rows = [
        {"age": float(a), "income": float(i), "city": ("Bern", "Rome", "Oslo")[c]}
        for a, i, c in zip(age, income, city, strict=True)
    ]
    prepared = np.stack([age * 0.1, income, city == 0, city == 1], axis=1).astype(np.float32)
    return rows, prepared


@pytest.fixture(scope="module")
def baseline():
    (signature,) = (with_open_batch(each) for each in read_signatures(golden("tiny_int8")))
    _, prepared = people(2500, seed=1)
    outputs = Reference(golden("tiny_int8")).run({"x": prepared}, 1)
    return make_baseline(signature, {"x": prepared}, outputs, preprocessing=TABLE, labels=LABELS)


@pytest.fixture(scope="module")
def store(tmp_path_factory, baseline):
    root = tmp_path_factory.mktemp("store")
    fields = {"format_version": 2, "preprocessing": TABLE, "labels": LABELS}
    publish(root, "people", data=golden("tiny_int8"), drift=baseline, **fields)
    publish(root, "plain", data=golden("tiny_int8"))
    broken = {**baseline, "features": [{**baseline["features"][0], "statistic": "median"}]}
    publish(root, "broken", data=golden("tiny_int8"), drift=broken)
    return root


def ask(module, rows, model="people"):
    answer = send(module.handler, "POST", f"/v1/models/{model}:predict", {"instances": rows})
    assert answer.status == 200, answer.json()


def windows(capsys):
    """The lines of windows."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line["message"] == "drift"]


def test_a_baseline_names_what_people_know(baseline):
    """The columns by name, and the prediction with its confidence; four fifths of the rows are counted."""
    names = ["age", "income", "city", "prediction", "confidence"]
    assert [feature["name"] for feature in baseline["features"]] == names
    assert baseline["rows"] == 2000
    assert {sum(feature["counts"]) for feature in baseline["features"]} == {2000}
    assert baseline["features"][2]["labels"] == ["Bern", "Rome"]
    assert baseline["features"][3]["labels"] == LABELS


def test_the_function_counts_what_numpy_counts(store, baseline):
    """Each request adds one to a bin of each feature: the same bins as those that numpy finds for rows and answers."""
    module = load_module(store, "people", DRIFT_WINDOW="99999")
    rows, prepared = people(150, seed=2)
    for row in rows:
        ask(module, [row])
    (servable,) = module._repository.loaded()
    assert servable.drift.rows == 150
    counts = servable.drift.take()
    outputs = Reference(golden("tiny_int8")).run({"x": prepared}, 1)["probabilities"]
    age, income, city, prediction, confidence = baseline["features"]
    for found, feature, values in (
        (counts[0], age, prepared[:, 0]),
        (counts[1], income, prepared[:, 1]),
        (counts[4], confidence, outputs.max(axis=1)),
    ):
        assert found == np.histogram(values, [-np.inf, *feature["edges"], np.inf])[0].tolist()
    assert counts[2] == [sum(row["city"] == name for row in rows) for name in ("Bern", "Rome", "Oslo")]
    assert counts[3] == [*np.bincount(outputs.argmax(axis=1), minlength=3).tolist(), 0]
    assert (city["statistic"], prediction["statistic"]) == ("category", "class")
    assert (servable.drift.rows, sum(map(sum, servable.drift.take()))) == (0, 0)


def test_a_full_window_is_one_line_with_counts_and_a_verdict(store, baseline, capsys):
    """Undrifted rows are no alarm, a shift of one standard deviation is, and the line names the feature."""
    module = load_module(store, "people", DRIFT_WINDOW="150")
    for shift in (0.0, 0.2):
        for row in people(150, seed=3, shift=shift)[0]:
            ask(module, [row])
            module.after_response()
    same, drifted = windows(capsys)
    assert (same["Drift"], drifted["Drift"], drifted["feature"]) == (0, 1, "age")
    assert same["DriftScore"] < 1 <= drifted["DriftScore"]
    for line in (same, drifted):
        assert (line["Model"], line["Version"], line["rows"]) == ("people", "1", 150)
        assert [sum(counts) for counts in line["counts"]] == [150] * len(baseline["features"])


def test_rows_that_were_sent_together_count_once(store):
    """A request of a hundred rows adds one: its rows may be anything but independent."""
    module = load_module(store, "people", DRIFT_WINDOW="50")
    ask(module, people(100, seed=4)[0])
    (servable,) = module._repository.loaded()
    assert servable.drift.rows == 1


def test_without_the_lean_bootstrap_the_next_request_judges(store, capsys):
    """Nothing calls `after_response` there: a full window is judged when the next request comes."""
    module = load_module(store, "people", DRIFT_WINDOW="50")
    for row in people(51, seed=5)[0]:
        ask(module, [row])
    assert len(windows(capsys)) == 1


def test_an_old_window_is_judged_with_what_it_has(store, capsys, monkeypatch):
    """After an hour fifty rows are enough, so that a quiet function is watched too."""
    module = load_module(store, "people", DRIFT_WINDOW="5000")
    ask(module, people(1, seed=6)[0])
    module.after_response()
    recorder = module._recorder
    recorder._judged = {key: began - 3601 for key, began in recorder._judged.items()}
    for row in people(49, seed=6)[0]:
        ask(module, [row])
        module.after_response()
    (line,) = windows(capsys)
    assert line["rows"] == 50


def test_explanations_and_models_without_a_baseline_are_not_counted(store, capsys):
    """A version without a baseline serves as before; what an explanation runs is not what callers asked."""
    module = load_module(store, "people", DRIFT_WINDOW="50")
    ask(module, [[0.1, 0.2, 0.3, 0.4]], model="plain")
    assert send(module.handler, "POST", "/v1/models/people:explain", {"instances": people(1, 7)[0]}).status == 200
    counted = {servable.manifest.model: servable.drift for servable in module._repository.loaded()}
    assert counted["plain"] is None
    assert counted["people"].rows <= 1


def test_a_baseline_that_cannot_be_read_fails_init(store):
    """A statistic that this function does not know is an error of the manifest, not a silent gap."""
    with pytest.raises(ManifestError, match="drift cannot be read: KeyError: 'median'"):
        load_module(store, "broken", DRIFT_WINDOW="50")
    assert load_module(store, "broken").handler  # where nothing is counted it is not read


def test_a_window_has_a_size(store):
    """Fewer than fifty rows say too little, and no window is endless."""
    with pytest.raises(SettingsError, match="DRIFT_WINDOW is '10', expected a number from 50 to 99999"):
        load_module(store, "people", DRIFT_WINDOW="10")


def logged(store, capsys, seed, shift=0.0, windows=2):
    """The log of an environment with some full windows."""
    module = load_module(store, "people", DRIFT_WINDOW="100")
    for row in people(100 * windows, seed, shift)[0]:
        ask(module, [row])
        module.after_response()
    return capsys.readouterr().out


def test_windows_of_several_environments_are_added_up(store, tmp_path, capsys):
    """The log of two environments, requests' lines and CloudWatch's times among them, is one window of 400 rows."""
    text = logged(store, capsys, seed=8) + logged(store, capsys, seed=9)
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f"2026-11-29T05:18:34 stream {line}\n" for line in text.splitlines()))
    result = drift(path, "people", store=store)
    assert (result.rows, result.windows, result.has_drifted) == (400, 4, False)


def test_recent_rows_are_compared_in_every_form(store, tmp_path):
    """CSV, Parquet and JSON Lines of the same rows give the same counts; rows that are not taken are counted apart."""
    rows, _ = people(300, seed=10, shift=0.2)
    names = list(rows[0])
    text = ",".join([*names, "risk"]) + "\n" + "".join(",".join(map(str, row.values())) + ",1\n" for row in rows)
    (tmp_path / "rows.csv").write_text(text + ",,,1\n")
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {name: drift(tmp_path / name, "people", store=store) for name in ("rows.csv", "rows.parquet", "rows.jsonl")}
    assert {result.rows for result in found.values()} == {300}
    assert [result.refused for result in found.values()] == [1, 0, 0]
    assert len({str(result.features) for result in found.values()}) == 1
    assert all(result.has_drifted and result.features[0].name == "age" for result in found.values())
    assert found["rows.csv"].features[0].bins[0].startswith("below ")  # in years, as the rows have it


def test_a_capture_is_a_window_too(store, tmp_path):
    """Captured requests go through the version again, and are counted as they were asked."""
    module = load_module(store, "people", CAPTURE_STORE=(tmp_path / "kept").as_uri(), CAPTURE_SECONDS="86400")
    for row in people(120, seed=11)[0]:
        ask(module, [row])
    module._recorder._capture.write(module._recorder._capture.take())
    result = drift(tmp_path / "kept", "people:1", store=store)
    assert (result.rows, result.refused, result.has_drifted) == (120, 0, False)


def test_the_command_says_it_and_draws_it(store, tmp_path, capsys):
    """Exit code 1 for drift and 0 for none; the page has a chart for each feature."""
    for shift, code in ((0.0, 0), (0.3, 1)):
        path, page = tmp_path / f"{shift}.jsonl", tmp_path / f"{shift}.html"
        path.write_text("".join(json.dumps(row) + "\n" for row in people(200, 12, shift)[0]))
        asked = ["drift", str(path), "--model", "people", "--store", str(store), "--json", "--html", str(page)]
        assert main(asked) == code
        assert json.loads(capsys.readouterr().out)["drifted"] is bool(code)
    text = page.read_text()
    assert text.count("<figure") == 5
    assert "people version 1 has drifted" in text
    assert main(asked[:6]) == 1
    assert "people version 1: drifted, 200 rows: " in capsys.readouterr().out


def test_what_cannot_be_judged_is_said(store, tmp_path):
    """Too few rows, a version without a baseline, a column that is missing, counts of other bins."""
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps(row) + "\n" for row in people(10, 13)[0]))
    with pytest.raises(DataError, match="10 rows of people version 1: a window has 50 at least"):
        drift(few, "people", store=store)
    with pytest.raises(DataError, match="plain version 1 has no baseline"):
        drift(few, "plain", store=store)
    (tmp_path / "rows.csv").write_text("age,income\n1,2\n")
    with pytest.raises(DataError, match="has no column 'city'; it has 'age', 'income'"):
        drift(tmp_path / "rows.csv", "people", store=store)
    (tmp_path / "log").write_text('{"Model": "people", "Version": "1", "counts": [[1, 2]]}\n')
    with pytest.raises(DataError, match="the counts have other bins than the baseline"):
        drift(tmp_path / "log", "people", store=store)
