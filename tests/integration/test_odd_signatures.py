"""Models of odd signatures over HTTP: fixed batches, whole tensors, outputs that are inputs, names, refused values."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pytest

from support.golden_store import describe, golden, publish
from support.handler_client import load_module, send
from support.number_reading import number_reading  # noqa: F401 - all tests here run twice

NAMES = ("a b", "x:0", "grün", "class", "self")


@pytest.fixture(scope="module")
def handler(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    for name in ("keyed", "four_rows", "whole", "totals", "scalar", "odd_names"):
        publish(root, name)
    publish(root, "division", warm_up={"b": 1})
    for name in ("table", "wide_table"):
        (signature,) = describe(golden(name)).values()
        signature["inputs"][0]["range"] = [0, 4]
        publish(root, name, signatures={"predict": signature})
    return load_module(root, "keyed").handler


def ask(handler: Any, name: str, body: Any) -> tuple[int, Any]:
    answer = send(handler, "POST", f"/v1/models/{name}:predict", body)
    return answer.status, answer.json()


def test_a_key_comes_back_with_its_prediction(handler):
    """Keyed predictions: each row's key is that of the row, in rows, in columns and in V2."""
    rows = [{"key": 7 + row, "x": [row, row + 1, row + 2]} for row in range(11)]
    expected = [{"key": row["key"], "y": [2.0 * value for value in row["x"]]} for row in rows]
    assert ask(handler, "keyed", {"instances": rows}) == (200, {"predictions": expected})
    columns = {name: [row[name] for row in rows] for name in ("key", "x")}
    outputs = {name: [row[name] for row in expected] for name in ("key", "y")}
    assert ask(handler, "keyed", {"inputs": columns}) == (200, {"outputs": outputs})


def test_a_fixed_batch_takes_exactly_that_many_instances(handler):
    """As TensorFlow Serving: n instances are n predictions; for any other number the message says n."""
    rows = [[row + column for column in range(6)] for row in range(4)]
    assert ask(handler, "four_rows", {"instances": rows}) == (200, {"predictions": [float(sum(row)) for row in rows]})
    named = [{"x": row} for row in rows]
    assert ask(handler, "four_rows", {"instances": named})[1] == {"predictions": [float(sum(row)) for row in rows]}
    for count in (1, 3, 5):
        status, answer = ask(handler, "four_rows", {"instances": (rows * 2)[:count]})
        assert status == 400
        assert f"exactly 4 instances at once, got {count}" in answer["error"]


def test_whole_tensors_are_asked_for_in_columns(handler):
    """Inputs without a batch, of first dimensions that differ, are no rows: the message says what to do."""
    inputs = {"a": [1, 2], "b": [[3, 4, 5]]}
    assert ask(handler, "whole", {"inputs": inputs}) == (200, {"outputs": {"y": [2.0, 4.0], "z": [[4, 5, 6]]}})
    assert ask(handler, "whole", {"instances": [{"a": 1, "b": [3, 4, 5]}]})[0] == 400
    status, answer = ask(handler, "scalar", {"instances": [1.0]})
    assert (status, "'inputs'" in answer["error"]) == (400, True)


def test_an_output_of_all_rows_is_never_one_rows(handler):
    """Columns: computed by one run over all rows, or refused by its name. Instances: refused."""
    rows = [[1, 2, 3], [4, 5, 6]]
    assert ask(handler, "totals", {"inputs": rows})[1] == {
        "outputs": {"total": [5.0, 7.0, 9.0], "y": [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]}
    }
    for body in ({"instances": rows}, {"inputs": rows * 3}):
        status, answer = ask(handler, "totals", body)
        assert (status, "output 'total'" in answer["error"]) == (400, True)


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def infer_body(ids: Any, binary: bool) -> tuple[bytes, dict[str, str]]:
    """A V2 request for the input `ids`, in JSON or as bytes behind it."""
    entry: dict[str, Any] = {"name": "ids", "shape": list(ids.shape), "datatype": "INT32"}
    if not binary:
        return json.dumps({"inputs": [{**entry, "data": ids.ravel().tolist()}]}).encode(), {}
    head = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": ids.nbytes}}]}).encode()
    return head + ids.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


@pytest.mark.parametrize("value", [-1, 5, 2**31 - 1])
@pytest.mark.parametrize("form", ["instances", "inputs", "v2", "v2 binary", "octets", "npy", "npy int16"])
def test_a_number_beyond_the_table_is_refused_in_every_form(handler, form, value):
    """One check for all bodies: 400 with the input's name and what there is; the next request is answered."""
    if form == "npy int16" and value > 2**15:
        value = 2**15 - 1
    bad, good = (np.array([[0, last]], "int32") for last in (value, 4))
    path, v2 = "/v1/models/table:predict", "/v2/models/table/infer"

    def answer(ids: Any) -> Any:
        if form in ("instances", "inputs"):
            return send(handler, "POST", path, {form: ids.tolist()})
        if form.startswith("v2"):
            body, headers = infer_body(ids, form == "v2 binary")
            return send(handler, "POST", v2, body, headers)
        if form == "octets":
            return send(handler, "POST", path, ids.tobytes(), {"Content-Type": "application/octet-stream"})
        array = ids.astype("int16") if form == "npy int16" else ids
        return send(handler, "POST", path, npy(array), {"Content-Type": "application/x-npy"})

    refused = answer(bad)
    assert refused.status == 400
    assert f"input 'ids', row 0: {value} is outside the range [0, 4]" in refused.json()["error"]
    assert answer(good).status == 200


def test_a_number_is_held_against_the_range_before_it_is_cast(handler):
    """2^32 + 1 would be 1 after a cast to int32: it is refused."""
    assert ask(handler, "wide_table", {"instances": [[[1], [0]]]})[0] == 200
    status, answer = ask(handler, "wide_table", {"instances": [[[2**32 + 1], [0]]]})
    assert (status, "input 'ids'" in answer["error"]) == (400, True)


def test_a_division_by_zero_is_a_bad_request(handler):
    """400 with the input and the row, in both protocols; never 500."""
    body = {"inputs": {"a": [6, 1], "b": [2, 0]}}
    assert ask(handler, "division", body) == (
        400,
        {"error": "input 'b', row 1: an operator of the model refuses these values"},
    )
    entries = [{"name": name, "shape": [2], "datatype": "INT32", "data": data} for name, data in body["inputs"].items()]
    answer = send(handler, "POST", "/v2/models/division/infer", {"inputs": entries})
    assert (answer.status, "input 'b', row 1" in answer.json()["error"]) == (400, True)
    assert ask(handler, "division", {"inputs": {"a": [6], "b": [2]}}) == (200, {"outputs": [3]})


def test_odd_names_are_names(handler):
    """Spaces, colons, umlauts and Python's own words: V1, V2 in JSON and bytes, metadata and OpenAPI."""
    values = {name: [[float(place), 1.0]] for place, name in enumerate(NAMES)}
    doubled = {name: [[2 * place, 2.0]] for place, name in enumerate(NAMES)}
    assert ask(handler, "odd_names", {"inputs": values}) == (200, {"outputs": doubled})
    row = {name: value[0] for name, value in values.items()}
    assert ask(handler, "odd_names", {"instances": [row]})[1] == {
        "predictions": [{name: value[0] for name, value in doubled.items()}]
    }
    entries = [{"name": name, "shape": [1, 2], "datatype": "FP32", "data": value[0]} for name, value in values.items()]
    wanted = [{"name": "grün", "parameters": {"binary_data": True}}, {"name": "x:0"}]
    answer = send(handler, "POST", "/v2/models/odd_names/infer", {"inputs": entries, "outputs": wanted})
    head = int(answer.headers["inference-header-content-length"])
    assert [output["name"] for output in json.loads(answer.body[:head])["outputs"]] == ["grün", "x:0"]
    assert struct.unpack("<2f", answer.body[head:]) == (4.0, 2.0)
    for path in ("/v1/models/odd_names/metadata", "/v2/models/odd_names", "/v2/models/odd_names/config"):
        text = json.dumps(send(handler, "GET", path).json(), ensure_ascii=False)
        assert all(f'"{name}"' in text for name in NAMES)
    schema = send(handler, "GET", "/openapi.json").json()["components"]["schemas"]["odd_names.PredictRequest"]
    assert all(json.dumps(name) in json.dumps(schema) for name in NAMES)


def test_openapi_says_how_many_instances(handler):
    """Exactly four where the batch is fixed; none where an output has no rows."""
    schemas = send(handler, "GET", "/openapi.json").json()["components"]["schemas"]
    forms = schemas["four_rows.PredictRequest"]["oneOf"]
    (instances,) = (form["properties"]["instances"] for form in forms if form["required"] == ["instances"])
    assert [(each["minItems"], each["maxItems"]) for each in instances["anyOf"]] == [(4, 4)] * 2
    assert schemas["totals.PredictRequest"]["required"] == ["inputs"]


def test_openapi_says_what_a_table_has(handler):
    """The range of an input's values, in both protocols; answers have none."""
    schemas = send(handler, "GET", "/openapi.json").json()["components"]["schemas"]
    bounds = '{"type": "integer", "minimum": 0, "maximum": 4}'
    assert bounds in json.dumps(schemas["table.PredictRequest"])
    assert bounds in json.dumps(schemas["table.InferRequest"])
    assert '"maximum"' not in json.dumps(schemas["table.PredictResponse"])
