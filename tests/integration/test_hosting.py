"""What SageMaker and Vertex AI send to a container, through the handler and the ASGI application.

The requests are those of aws/sagemaker-tensorflow-serving-container's README and of Vertex AI's "Custom container
requirements"; right answers come from arithmetic and from `/v1`, which is held to the reference interpreter elsewhere.
"""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from litelambda_serving.asgi import Application
from support.golden_store import golden, publish, set_aliases
from support.handler_client import load_module, send
from support.server import running
from support.server import send as ask

JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"
COLUMNS = [
    {"name": "age", "type": "number"},
    {"name": "income", "type": "number", "missing": 0.25},
    {"name": "city", "type": "category", "vocabulary": ["Bern", "Rome, Italy"], "unknown": "zeros"},
]
PEOPLE = [[0.5, 0.25, "Rome, Italy"], [1, None, "Bern"]]
ROWS = [[0.1, 0.2, 0.3, 0.4], [0.5, -0.25, 0, 1]]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish(root, "half_plus_two")
    publish(root, "half_plus_two", 2)
    set_aliases(root, {"latest": 1}, "half_plus_two")
    for name in ("image_2x3", "strings", "two_doubles"):
        publish(root, name)
    publish(root, "tiny", data=golden("tiny_int8"), labels=["a", "b", "c"])
    table = {"x": {"kind": "table", "label": "risk", "columns": COLUMNS}}
    publish(root, "people", data=golden("tiny_int8"), format_version=2, preprocessing=table)
    return root


@pytest.fixture(scope="module")
def module(store):
    return load_module(store, "half_plus_two", LOG_LEVEL="ERROR")


@pytest.fixture(scope="module")
def handler(module):
    return module.handler


def invoke(handler, body, content_type=JSON, model="", accept="", **attributes):
    asked = {"tfs-model-name": model, **{f"tfs-{key.replace('_', '-')}": value for key, value in attributes.items()}}
    headers = {"Content-Type": content_type} if content_type else {}
    if accept:
        headers["Accept"] = accept
    header = ",".join(f"{key}={value}" for key, value in asked.items() if value)
    if header:
        headers["X-Amzn-SageMaker-Custom-Attributes"] = header
    return send(handler, "POST", "/invocations", body, headers)


def of_v1(handler, model, body, content_type=JSON):
    return send(handler, "POST", f"/v1/models/{model}:predict", body, {"Content-Type": content_type})


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"instances": [1.0, 2.0, 5.0]}', JSON),
        ('{"instances": [1.0, 2.0, 5.0]}', "application/json; charset=utf-8"),
        ('{"instances": [1.0, 2.0, 5.0]}', ""),
        ("1.0\n2.0\n5.0\n", LINES),
        ("1.0\r\n\r\n2.0\r\n5.0", "application/x-ndjson"),
        ("1.0\n2.0\n5.0\n", CSV),
        ("\ufeff1.0\r\n2\r\n5e0", "text/csv; charset=utf-8"),
        (np.float32([1, 2, 5]).tobytes(), "application/octet-stream"),
    ],
)
def test_each_content_type_brings_the_same_rows(handler, body, content_type):
    """Half of each number and two, by arithmetic, whatever type the body has; JSON unless the client wants lines."""
    answer = invoke(handler, body, content_type, accept=JSON)
    assert (answer.status, answer.json()) == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert (answer.headers["content-type"], answer.headers["x-model-version"]) == (JSON, "1")


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        (CSV, CSV, b"2.5\n3.0\n4.5\n"),
        (LINES, LINES, b"2.5\n3.0\n4.5\n"),
        ("", LINES, b"2.5\n3.0\n4.5\n"),
        ("text/plain, application/jsonlines;q=0.5", LINES, b"2.5\n3.0\n4.5\n"),
    ],
)
def test_the_answer_has_the_type_that_is_accepted(handler, accept, content_type, body):
    """Lines of CSV or of JSON; a request in lines is answered in lines."""
    answer = invoke(handler, "1.0\n2.0\n5.0\n", LINES, accept=accept)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, content_type, body)


def test_lists_are_read_as_the_container_reads_them(handler):
    """A list of lists or objects is rows; another list, or an object that is not TensorFlow Serving's, is one row."""
    expected = of_v1(handler, "tiny", {"instances": ROWS}).body
    assert invoke(handler, json.dumps(ROWS), model="tiny").body == expected
    assert invoke(handler, [{"x": row} for row in ROWS], model="tiny").body == expected
    first = of_v1(handler, "tiny", {"instances": ROWS[:1]}).body
    assert invoke(handler, json.dumps(ROWS[0]), model="tiny").body == first
    assert invoke(handler, {"x": ROWS[0]}, model="tiny").body == first
    columns = {"inputs": ROWS}
    assert invoke(handler, columns, model="tiny").body == of_v1(handler, "tiny", columns).body


def test_csv_of_raw_columns(handler):
    """Cells are a table's columns in their order, quoted where they hold a comma, empty where a value is missing."""
    expected = of_v1(handler, "people", {"instances": PEOPLE})
    text = '0.5,0.25,"Rome, Italy"\n1,,Bern\n'
    assert expected.status == 200
    assert invoke(handler, text, CSV, "people").body == expected.body
    lines = invoke(handler, text, CSV, "people", accept=CSV)
    assert [[float(cell) for cell in line.split(",")] for line in lines.body.decode().splitlines()] == expected.json()[
        "predictions"
    ]


def test_csv_of_tensors(handler):
    """A row of numbers has the input's shape, row-major: the reference interpreter answers the same."""
    runner = Interpreter(model_content=golden("image_2x3")).get_signature_runner()
    ((name, details),) = runner.get_input_details().items()
    values = np.linspace(0, 1, 2 * np.prod(details["shape"]), dtype=np.float32).reshape(2, *details["shape"][1:])
    scores = [next(iter(runner(**{name: row[None]}).values()))[0].tolist() for row in values]
    text = "".join(",".join(map(str, row.ravel().tolist())) + "\n" for row in values)
    answer = invoke(handler, text, CSV, "image_2x3")
    assert answer.status == 200
    assert np.array_equal(np.float32(answer.json()["predictions"]), np.float32(scores))


def test_csv_of_several_inputs_and_of_texts(handler):
    """A row has the inputs' values one after another; cells of a string input are texts."""
    inputs = send(handler, "GET", "/v2/models/two_doubles").json()["inputs"]
    widths = [int(np.prod(each["shape"][1:])) for each in inputs]
    cells = [float(number) for number in range(sum(widths))]
    row = dict(zip([each["name"] for each in inputs], np.split(np.array(cells), np.cumsum(widths)[:-1]), strict=True))
    row = {each["name"]: row[each["name"]].reshape(each["shape"][1:]).tolist() for each in inputs}
    expected = of_v1(handler, "two_doubles", {"instances": [row]})
    assert (len(inputs), expected.status) == (2, 200)
    assert invoke(handler, ",".join(map(str, cells)), CSV, "two_doubles").body == expected.body
    texts = of_v1(handler, "strings", {"instances": [["a, b", "ü"]]})
    assert texts.status == 200
    assert invoke(handler, '"a, b",ü', CSV, "strings").body == texts.body


def test_a_tensor_as_npy(handler):
    """A .npy file is the model's tensor, as at /v1; so its answer may be CSV."""
    file = io.BytesIO()
    np.save(file, np.float32(ROWS))
    expected = of_v1(handler, "tiny", file.getvalue(), "application/x-npy")
    assert invoke(handler, file.getvalue(), "application/x-npy", "tiny").body == expected.body
    lines = invoke(handler, file.getvalue(), "application/x-npy", "tiny", accept=CSV).body.decode()
    assert np.loadtxt(io.StringIO(lines), delimiter=",").tolist() == expected.json()["predictions"]


def test_attributes_choose_what_answers(handler):
    """Name, version and method, as the container reads them; other attributes are the client's own."""
    row = {"instances": [2.0]}
    assert invoke(handler, row, model_version="2").headers["x-model-version"] == "2"
    assert invoke(handler, row, trace="7").json() == {"predictions": [3.0]}
    asked = {"signature_name": "", "examples": [{"x": row} for row in ROWS]}
    scores = send(handler, "POST", "/v1/models/tiny:classify", asked)
    assert scores.status == 200
    assert invoke(handler, asked, model="tiny", method="classify").body == scores.body


def test_vertex_parameters_are_options(handler):
    """What Vertex AI lets a client send beside its instances are the options that /v1 has beside them."""
    asked = {"instances": ROWS, "parameters": {"top_k": 1}}
    expected = of_v1(handler, "tiny", {"instances": ROWS, "top_k": 1})
    assert expected.status == 200
    assert invoke(handler, asked, model="tiny").body == expected.body
    assert invoke(handler, {"instances": ROWS, "parameters": None}, model="tiny").status == 200
    wrong = invoke(handler, {"instances": ROWS, "parameters": {"temperature": 1}}, model="tiny")
    assert (wrong.status, "'temperature', expected some of" in wrong.json()["error"]) == (400, True)
    assert invoke(handler, {"instances": ROWS, "parameters": [1]}, model="tiny").status == 400


@pytest.mark.parametrize(
    ("body", "content_type", "fields", "status", "message"),
    [
        ("<a/>", "text/xml", {}, 415, "content type 'text/xml' is not read here, expected application/json"),
        ("1\nx", CSV, {}, 400, "line 2, column 1 (x): 'x' is not a number"),
        ("1,2", CSV, {}, 400, "line 1: a row has 1 cells, got 2"),
        ("", CSV, {}, 400, "must be a non-empty list"),
        ("\xff".encode("latin-1"), CSV, {}, 400, "the body is not CSV in UTF-8"),
        ("age,income,city\n1,2,Bern", CSV, {"model": "people"}, 400, "the first row is a header"),
        ("1,2", CSV, {"model": "people"}, 400, "line 1: a row has 3 cells, got 2"),
        ("age,income,city", CSV, {"model": "people"}, 400, "send rows alone"),
        ("1\n{", LINES, {}, 400, "line 2 is not a JSON value"),
        ("[1", JSON, {}, 400, "JSON Parse error"),
        ('{"instances": [1]}', JSON, {"model": "nothing"}, 404, "nothing"),
        ('{"instances": [1]}', JSON, {"model": "a/b"}, 404, "not a name of a model"),
        ('{"instances": [1]}', JSON, {"model_version": "x"}, 400, "expected a number"),
        ('{"instances": [1]}', JSON, {"method": "status"}, 400, "expected one of predict, classify"),
    ],
)
def test_what_is_wrong_is_said(handler, body, content_type, fields, status, message):
    """A client's fault is a 4xx with the service's JSON error, also where the client accepts CSV alone."""
    answer = invoke(handler, body, content_type, accept=CSV, **fields)
    assert (answer.status, answer.headers["content-type"]) == (status, JSON)
    assert message in answer.json()["error"]


def test_ping(store, handler):
    """200 without a body while the model of MODEL_NAME can be served, and where there is none; else its error."""
    assert (send(handler, "GET", "/ping").status, send(handler, "GET", "/ping").body) == (200, b"")
    assert send(handler, "HEAD", "/ping").status == 200
    for method, path, allowed in (("POST", "/ping", "GET, HEAD, OPTIONS"), ("GET", "/invocations", "POST, OPTIONS")):
        answer = send(handler, method, path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert send(handler, "OPTIONS", path).headers["allow"] == allowed
    without = load_module(store, LOG_LEVEL="ERROR").handler
    assert send(without, "GET", "/ping").status == 200
    answer = invoke(without, {"instances": [1.0]})
    assert (answer.status, "set MODEL_NAME, or send" in answer.json()["error"]) == (404, True)
    assert invoke(without, {"instances": [1.0]}, model="half_plus_two").json() == {"predictions": [2.5]}


def test_vertex_names_the_routes(module, monkeypatch):
    """Under the paths of Vertex AI's variables the server answers its health checks and its predictions."""
    base = "/v1/endpoints/123/deployedModels/456"
    monkeypatch.setenv("AIP_PREDICT_ROUTE", base + ":predict")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", base)
    with running(Application(module)) as port:
        assert ask(port, "GET", base)[::2] == (200, b"")
        status, _, body = ask(port, "POST", base + ":predict", json.dumps({"instances": [1.0], "parameters": {}}))
        assert (status, json.loads(body)) == (200, {"predictions": [2.5]})
        assert ask(port, "GET", "/v1/endpoints/124/deployedModels/456")[0] == 400
