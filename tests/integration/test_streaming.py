"""Answers in parts: what arrives is the buffered answer, piece by piece, in the form of Lambda's response streaming."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import struct
import sys
import time
import zlib

import numpy as np
import pytest

from litelambda_serving import streaming
from litelambda_serving.errors import LeanRuntimeError, SettingsError, TensorError
from litelambda_serving.http import StreamedResponse
from litelambda_serving.settings import Settings
from litelambda_serving.streaming import integration
from litelambda_serving.streaming.encodings import lines, rows
from litelambda_serving.tensor import DTYPES, Tensor
from support.golden_store import golden, publish
from support.handler_client import EVENTS, Answer, Context, load_module

LINES = {"accept": "application/x-ndjson"}
BINARY = {"binary_data_output": True}


class StreamingContext(Context):
    """The lean bootstrap's, as far as the handler reads it."""

    streams = True


@pytest.fixture(scope="module")
def handler(tmp_path_factory):
    """The handler for Function URLs and REST APIs that stream, with a few models."""
    store = tmp_path_factory.mktemp("store")
    for name in (
        "spread",
        "strings",
        "labelled",
        "totals",
        "division",
        "two_doubles",
        "half_plus_two",
        "dtype_float16",
    ):
        fields = {"labels": ["a", "b", "c"]} if name == "labelled" else {}
        if name in ("spread", "division"):
            fields["warm_up"] = {"x": 1} if name == "spread" else {"a": 1, "b": 1}
        publish(store, name, data=golden(name), **fields)
    return load_module(store, RESPONSE_STREAMING="function-url,rest-api").handler


def make_event(path, body, headers=None, sender="function_url_predict"):
    """An event of a Function URL, or another sender."""
    event = json.loads((EVENTS / f"{sender}.json").read_text())
    event["rawPath"] = event["path"] = path
    event["headers"] = headers or {}
    event["multiValueHeaders"] = None
    event["body"], event["isBase64Encoded"] = json.dumps(body), False
    return event


class Streamed:
    """What Lambda and a client make of the parts of an answer."""

    def __init__(self, parts):
        self.parts, self.error = [], None
        try:
            for part in parts:
                self.parts.append(part)
        except LeanRuntimeError as error:
            self.error = error
        prelude, zeros, self.body = b"".join(self.parts).partition(bytes(8))
        assert zeros
        document = json.loads(prelude)
        assert document.keys() == {"statusCode", "headers"}
        self.status = document["statusCode"]
        self.headers = {name.lower(): value for name, value in document["headers"].items()}

    def json(self):
        """The body as JSON."""
        return json.loads(self.body)


def stream(handler, path, body, headers=None, context=None):
    """Ask through a Function URL that streams."""
    return Streamed(handler(make_event(path, body, headers), context or StreamingContext()))


def buffered(handler, path, body, headers=None):
    """Ask through an HTTP API, which does not stream."""
    return Answer(handler(make_event(path, body, headers, "http_api_v2_predict"), StreamingContext()))


def infer_body(name, rows, **parameters):
    """A V2 request for `spread`."""
    data = [[n + 1] for n in range(rows)]
    tensor = {"name": "x", "datatype": "INT32", "shape": [rows, 1], "data": data}
    return {
        "inputs": [tensor],
        "outputs": [{"name": each} for each in name.split()],
        "id": "7",
        "parameters": parameters,
    }


SPREAD, INFER = "/v1/models/spread:predict", "/v2/models/spread/infer"


def test_an_answer_that_may_be_beyond_the_buffered_limit_leaves_in_parts(handler):
    """Buffered it is refused, and the refusal says what to do; streamed it has what numpy computes."""
    refused = buffered(handler, SPREAD, {"instances": [[1]] * 1000})
    assert refused.status == 413
    assert "ResponseStreaming=on and Bootstrap=lean" in refused.json()["error"]
    x = np.arange(96, dtype=np.int32)[:, None] % 4 + 1
    streamed = stream(handler, SPREAD, {"instances": x.tolist()})
    assert (streamed.status, streamed.error) == (200, None)
    assert streamed.headers["x-model-version"] == "1"
    assert len(streamed.parts) > 20
    assert max(map(len, streamed.parts)) < 256 * 1024
    predictions = streamed.json()["predictions"]
    table = np.arange(1, 4097, dtype=np.float32).reshape(64, 64)
    expected = (x.astype(np.float32) / np.float32(7))[:, None] * table
    assert np.allclose([row["image"] for row in predictions], expected, rtol=1e-6)
    assert np.array_equal([row["codes"] for row in predictions], np.arange(1000, 1008)[None] // x)


def test_binary_tensors_leave_in_parts(handler):
    """The length of the JSON is in a header before the first row has run, and the bytes are the runtime's own."""
    body = infer_body("image codes", 300, **BINARY)
    assert buffered(handler, INFER, body).status == 413
    streamed = stream(handler, INFER, body)
    length = int(streamed.headers["inference-header-content-length"])
    document = json.loads(streamed.body[:length])
    assert [each["parameters"]["binary_data_size"] for each in document["outputs"]] == [300 * 16384, 300 * 32]
    assert len(streamed.body) == length + 300 * (16384 + 32)
    few = infer_body("image codes", 30, **BINARY)
    whole = buffered(handler, INFER, few)
    start = int(whole.headers["inference-header-content-length"])
    assert streamed.body[length : length + 30 * 16384] == whole.body[start : start + 30 * 16384]
    codes = np.frombuffer(streamed.body[length + 300 * 16384 :], "<i4").reshape(300, 8)
    assert np.array_equal(codes, np.arange(1000, 1008)[None] // np.arange(1, 301)[:, None])


REQUESTS = [
    (SPREAD, {"instances": [[n] for n in range(1, 14)]}),
    (SPREAD, {"inputs": [[n] for n in range(1, 14)]}),
    ("/v1/models/two_doubles:predict", {"instances": [{"left": [1, 2.5], "right": [1e-300, -0.0]}] * 3}),
    ("/v1/models/labelled:predict", {"instances": [[0.1, 0.2, 0.3, 0.4]] * 5}),
    ("/v1/models/labelled:predict", {"instances": [[0.1, 0.2, 0.3, 0.4]] * 5, "top_k": 2}),
    ("/v1/models/labelled:predict", {"inputs": [[0.1, 0.2, 0.3, 0.4]] * 5, "top_k": 2}),
    ("/v1/models/strings:predict", {"instances": [["a", "b"], ["grün", "grün"]]}),
    ("/v1/models/totals:predict", {"inputs": [[1, 2, 3]]}),
    ("/v1/models/division:predict", {"inputs": {"a": [7, 8], "b": [2, 3]}}),
    ("/v1/models/dtype_float16:predict", {"inputs": [[1, 2, 0.5]]}),
    (INFER, infer_body("codes image", 13)),
    (INFER, infer_body("image", 13, **BINARY)),
    (INFER, infer_body("codes image", 13, **BINARY)),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS, ids=range(len(REQUESTS)))
def test_parts_together_are_the_buffered_answer(handler, path, body, monkeypatch):
    """Byte for byte, in every form, whether or not a prediction can leave row by row."""
    whole = buffered(handler, path, body)
    monkeypatch.setattr(streaming, "MAX_RESPONSE_BYTES", 0)
    parts = stream(handler, path, body)
    assert (whole.status, parts.status) == (200, 200)
    assert parts.body == whole.body
    assert parts.headers == whole.headers


@pytest.mark.parametrize("sender", ["function_url_predict", "rest_v1_predict", "http_api_v2_predict", "alb_predict"])
def test_a_short_answer_is_the_same_everywhere(handler, sender):
    """Senders that invoke with streaming get it in Lambda's format for that, in one part; others as ever."""
    path, body = "/v1/models/division:predict", {"inputs": {"a": [7, 8], "b": [2, 3]}}
    answer = handler(make_event(path, body, sender=sender), StreamingContext())
    if sender in ("http_api_v2_predict", "alb_predict"):
        assert json.loads(answer["body"]) == {"outputs": [3, 2]}
        return
    streamed = Streamed(answer)
    assert (streamed.json(), len(streamed.parts)) == ({"outputs": [3, 2]}, 1)
    refused = Streamed(handler(make_event(path, {"inputs": 1}, sender=sender), StreamingContext()))
    assert (refused.status, refused.error, "error" in refused.json()) == (400, None, True)


def test_the_stock_client_buffers(handler):
    """Its context does not say that it takes an iterator."""
    answer = handler(make_event("/v1/models/division:predict", {"inputs": {"a": [7], "b": [2]}}), Context())
    assert json.loads(answer["body"]) == {"outputs": [3]}


@pytest.mark.parametrize("ask", [stream, buffered])
@pytest.mark.parametrize(
    ("path", "body"), [(SPREAD, {"instances": [[n + 1] for n in range(9)]}), (INFER, infer_body("codes image", 9))]
)
def test_json_lines_have_a_prediction_each(handler, ask, path, body):
    """Each line is what `predictions` has for its row, whether the answer is streamed or not."""
    answer = ask(handler, path, body, LINES)
    expected = buffered(handler, SPREAD, {"instances": [[n + 1] for n in range(9)]}).json()["predictions"]
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert answer.body.endswith(b"\n")
    assert [json.loads(line) for line in answer.body.splitlines()] == expected


def test_json_lines_of_one_output_are_values(handler):
    """A model, or a request, with one output has no object around each value; what is not a number is null in V2."""
    body = {"inputs": {"a": [7, 8], "b": [2, 3]}, "signature_name": "predict"}
    answer = stream(
        handler, "/v1/models/division:predict", body, {"accept": "application/json;q=0.5, application/x-ndjson"}
    )
    assert answer.body == b"3\n2\n"
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, float("inf")]}
    answer = stream(handler, "/v2/models/half_plus_two/infer", {"inputs": [tensor]}, LINES)
    assert answer.body == b"2.5\nnull\n"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/models/totals:predict", {"inputs": [[1, 2, 3]]}, "no prediction for each row: accept application/json"),
        (INFER, infer_body("image", 2, **BINARY), "asks for text and 'binary_data' for bytes"),
    ],
)
def test_lines_that_are_not_possible_are_refused(handler, path, body, message):
    """The reason is told, and who also accepts JSON gets that."""
    refused = stream(handler, path, body, LINES)
    assert (refused.status, message in refused.json()["error"]) == (400, True)
    if "binary" not in message:
        answer = stream(handler, path, body, {"accept": "application/x-ndjson, application/json"})
        assert answer.headers["content-type"] == "application/json"


def test_a_fault_in_the_first_row_has_a_status(handler):
    """Nothing has been sent yet."""
    streamed = stream(handler, SPREAD, {"instances": [[0]] + [[1]] * 99})
    assert (streamed.status, streamed.error) == (400, None)
    assert "row 0: an operator of the model refuses these values" in streamed.json()["error"]


def test_a_fault_in_the_middle_ends_the_stream(handler, capsys, monkeypatch):
    """The document is not valid then, whatever arrived; Lambda is told why, and so is the log."""
    monkeypatch.setattr(streaming, "MAX_RESPONSE_BYTES", 0)
    streamed = stream(handler, SPREAD, {"instances": [[1], [2], [3], [0]]})
    assert streamed.status == 200
    with pytest.raises(ValueError, match="Expecting"):
        streamed.json()
    assert streamed.error is not None
    assert streamed.error.error_type == "Function.TensorError"
    assert "input 'x', row 3: an operator of the model refuses" in str(streamed.error)
    line = [json.loads(text) for text in capsys.readouterr().out.splitlines() if '"request"' in text][-1]
    assert (line["status"], line["ClientError"]) == (400, 1)


def test_the_last_line_tells_of_a_fault(handler, capsys):
    """JSON Lines end with an object that has `error`; the stream itself ends well."""
    streamed = stream(handler, SPREAD, {"instances": [[1], [2], [0], [3]]}, LINES)
    *good, last = [json.loads(line) for line in streamed.body.splitlines()]
    assert (streamed.status, streamed.error) == (200, None)
    assert good == buffered(handler, SPREAD, {"instances": [[1]]}).json()["predictions"]
    assert last == {"error": "input 'x', row 2: an operator of the model refuses these values"}
    assert '"status":400' in capsys.readouterr().out
    assert buffered(handler, SPREAD, {"instances": [[1], [0]]}, LINES).status == 400


def test_a_deadline_that_comes_near_ends_the_stream(handler, monkeypatch):
    """The rows that were done have left; the end says how many there were, and what to do."""
    ticks = itertools.count(step=0.05)  # seconds that each row seems to take
    monkeypatch.setattr("litelambda_serving.streaming.monotonic", lambda: time.monotonic() + next(ticks))
    streamed = stream(handler, SPREAD, {"instances": [[1]] * 100}, context=StreamingContext(1500))
    assert streamed.status == 200
    assert "100 rows take longer than a request may: " in str(streamed.error)
    assert "longer Timeout" in str(streamed.error)
    ticks = itertools.count(step=0.05)
    lines = stream(handler, SPREAD, {"instances": [[1]] * 100}, LINES, StreamingContext(1500)).body.splitlines()
    assert 1 < len(lines) < 100
    assert "take longer" in json.loads(lines[-1])["error"]


def test_a_stream_has_lambdas_limit(handler, monkeypatch):
    """What cannot fit is refused before a row runs; what turns out not to is broken off."""
    refused = stream(handler, INFER, infer_body("image", 100_000))
    assert (refused.status, "of a streamed response" in refused.json()["error"]) == (413, True)
    monkeypatch.setattr(integration, "_ROOM_BYTES", integration.MAX_STREAM_BYTES - 1_000_000)
    streamed = stream(handler, SPREAD, {"instances": [[1]] * 100})
    assert streamed.status == 200
    assert "more than the 209715200 bytes of a streamed response" in str(streamed.error)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_each_part_can_be_decompressed_when_it_arrives(handler, encoding, monkeypatch):
    """Whoever accepts compression gets the first row out of the first part."""
    body = {"instances": [[1]] * 5}
    monkeypatch.setattr(streaming, "MAX_RESPONSE_BYTES", 0)
    streamed = stream(handler, SPREAD, body, {"accept-encoding": encoding})
    assert (streamed.headers["content-encoding"], streamed.headers["vary"]) == (encoding, "Accept-Encoding")
    decompressor = zlib.decompressobj(wbits=47)
    first = decompressor.decompress(streamed.parts[0].partition(bytes(8))[2])
    assert json.loads(first + b"]}") == {
        "predictions": json.loads(stream(handler, SPREAD, body).body)["predictions"][:1]
    }
    decompress = gzip.decompress if encoding == "gzip" else zlib.decompress
    assert len(json.loads(decompress(streamed.body))["predictions"]) == 5


def test_servers_stream_without_a_limit(handler, capsys):
    """Over HTTP itself any answer that may be large leaves in parts; its line is in the log when all of it has left."""
    predict = sys.modules["predict"]

    def ask(body, headers=None):
        return predict.respond("POST", SPREAD, headers or {}, json.dumps(body).encode(), math.inf, "request-2")

    answer = ask({"instances": [[7]] * 100})
    assert isinstance(answer, StreamedResponse)
    first = next(answer.chunks)
    assert json.loads(first + b"]}")["predictions"][0]["image"][0][:3] == [1.0, 2.0, 3.0]
    assert '"request"' not in capsys.readouterr().out
    assert len(json.loads(first + b"".join(answer.chunks))["predictions"]) == 100
    assert '"status":200' in capsys.readouterr().out
    broken = ask({"instances": [[7]] * 99 + [[0]]})
    with pytest.raises(TensorError, match="row 99"):
        list(broken.chunks)
    assert '"status":400' in capsys.readouterr().out


def test_streams_are_counted_as_predictions(handler):
    """V2's statistics have one request for a stream, with all its rows."""
    event = make_event("/v2/models/spread/stats", None, sender="http_api_v2_predict")
    event["requestContext"]["http"]["method"] = "GET"

    def stats():
        return Answer(handler(event, StreamingContext())).json()["model_stats"][0]

    before = stats()
    stream(handler, SPREAD, {"instances": [[1]] * 7}, LINES)
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 7
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1


@pytest.mark.parametrize("block", [1, 16, 100, 10_000])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (2, 9), (3, 2, 5), (2, 3, 1, 7)])
def test_rows_of_any_size_are_written_in_pieces(block, shape, monkeypatch):
    """What leaves at once is bounded, whatever a row has; the pieces together are JSON's own nesting."""
    monkeypatch.setattr("litelambda_serving.streaming.encodings.BLOCK_BYTES", block)
    arrays = {"a": np.arange(np.prod(shape), dtype=np.int32).reshape(shape), "b": np.full(shape, 0.5)}

    def texts(_name, tensor):
        array = np.frombuffer(tensor.data, "<i4" if tensor.dtype is DTYPES["int32"] else "<f8").reshape(tensor.shape)
        return [json.dumps(each, separators=(",", ":")) for each in array.tolist()]

    def documents(outputs):
        found = {name: [json.loads(text) for text in texts(name, tensor)] for name, tensor in outputs.items()}
        if len(found) == 1:
            return [json.dumps(value) for value in found["a"]]
        return [json.dumps({name: found[name][row] for name in found}) for row in range(shape[0])]

    for names in (["a"], ["a", "b"]):
        tensors = {
            name: Tensor(DTYPES["int32" if name == "a" else "float64"], shape, arrays[name].tobytes()) for name in names
        }
        expected = [{name: arrays[name][row].tolist() for name in names} for row in range(shape[0])]
        if len(names) == 1:
            expected = [row["a"] for row in expected]
        whole = "".join(rows(iter([tensors, tensors]), documents, texts))
        assert json.loads(whole) == {"predictions": expected * 2}
        assert [json.loads(line) for line in "".join(lines(iter([tensors]), documents, texts)).splitlines()] == expected


def test_a_large_output_that_waits_is_in_a_file():
    """What it keeps in memory is bounded, and what it gives back is what it was given, in parts."""
    from litelambda_serving.streaming.kept import Kept

    kept, value = Kept(), struct.pack("<1000f", *range(1000))
    for count in (1, 3, 700, 2, 300):
        kept.add(Tensor(DTYPES["float32"], (count, 1000), value * count))
    blocks = list(kept.blocks())
    assert len(kept._buffer) <= 1024 * 1024 < kept._rows * 4000
    assert b"".join(bytes(block.data) for block in blocks) == value * 1006
    assert sum(block.shape[0] for block in blocks) == 1006
    assert max(len(block.data) for block in blocks) <= streaming.BLOCK_BYTES


def test_the_setting_names_who_streams():
    """Anything else is refused when the function starts."""
    environment = {"MODEL_STORE": "s3://bucket/models", "RESPONSE_STREAMING": "yes"}
    with pytest.raises(SettingsError, match="expected function-url, rest-api, or both"):
        Settings.from_environment(environment)
