"""The usual way to serve a TFLite model from Lambda: boto3, numpy, an interpreter and Powertools.

INTERPRETER names the module that has the interpreter: LiteRT's, its predecessor tflite-runtime's, or TensorFlow's.
TOKENIZER_KEY is where a model that reads text has its `tokenizer.json`.
DECODER names the one that decodes pictures, for models of those.

Written as one would write it today, with what costs nothing done right: one GET for the artifact, everything that can
be done once done at INIT, the interpreter's tensors resized only when the batch size changes.
"""

from __future__ import annotations

import base64
import json
import math
import os
from importlib import import_module
from typing import Any

import boto3
import numpy as np
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

if "DECODER" in os.environ:
    import_module(os.environ["DECODER"])

logger = Logger()
metrics = Metrics()
app = APIGatewayHttpResolver()

s3 = boto3.client("s3")
artifact = s3.get_object(Bucket=os.environ["MODEL_BUCKET"], Key=os.environ["MODEL_KEY"])
interpreter = import_module(os.environ["INTERPRETER"]).Interpreter(model_content=artifact["Body"].read(), num_threads=1)
tokenizer = None
if "TOKENIZER_KEY" in os.environ:
    from tokenizers import Tokenizer

    document = s3.get_object(Bucket=os.environ["MODEL_BUCKET"], Key=os.environ["TOKENIZER_KEY"])
    tokenizer = Tokenizer.from_buffer(document["Body"].read())
    tokenizer.enable_truncation(int(os.environ["TEXT_LENGTH"]))
    tokenizer.enable_padding(length=int(os.environ["TEXT_LENGTH"]))
interpreter.allocate_tensors()
signature = interpreter.get_signature_runner("predict")
inputs, outputs = signature.get_input_details(), signature.get_output_details()
del signature  # while one lives, the interpreter cannot be run directly, which is faster
batch_size = 1
for detail in inputs.values():  # whole numbers may be indices, which what is in memory is not
    interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
interpreter.invoke()


def run(tensors: dict[str, Any]) -> dict[str, Any]:
    """Run the model on one batch; tensors and results by their names in the signature."""
    global batch_size  # noqa: PLW0603 - the interpreter is one per process, so is its shape
    size = len(next(iter(tensors.values())))
    if size != batch_size:
        for name, tensor in tensors.items():
            interpreter.resize_tensor_input(inputs[name]["index"], tensor.shape)
        interpreter.allocate_tensors()
        batch_size = size
    for name, tensor in tensors.items():
        interpreter.set_tensor(inputs[name]["index"], tensor)
    interpreter.invoke()
    return {name: interpreter.get_tensor(detail["index"]) for name, detail in outputs.items()}


@app.post("/v1/models/<model>:predict")
def predict(model: str) -> dict[str, Any]:
    """TensorFlow Serving's REST predict, row format."""
    instances = app.current_event.json_body["instances"]
    if tokenizer is not None:
        instances = [encoding.ids for encoding in tokenizer.encode_batch(instances)]
    if isinstance(instances[0], dict):
        tensors = {name: np.array([row[name] for row in instances], detail["dtype"]) for name, detail in inputs.items()}
    else:
        tensors = {name: np.array(instances, detail["dtype"]) for name, detail in inputs.items()}
    results = run(tensors)
    metrics.add_metric(name="Predictions", unit=MetricUnit.Count, value=len(instances))
    logger.info("predicted", extra={"model": model, "rows": len(instances)})
    if len(results) == 1:
        return {"predictions": next(iter(results.values())).tolist()}
    columns = {name: result.tolist() for name, result in results.items()}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


@app.post("/v2/models/<model>/infer")
def infer(model: str) -> Response[bytes]:
    """The Open Inference Protocol's inference with binary tensors; without JSON in front, one raw tensor."""
    body = base64.b64decode(app.current_event["body"])
    length = int(app.current_event.headers["inference-header-content-length"])
    results = run(read_tensors(json.loads(body[:length])["inputs"] if length else None, body, length))
    rows = len(next(iter(results.values())))
    metrics.add_metric(name="Predictions", unit=MetricUnit.Count, value=rows)
    logger.info("predicted", extra={"model": model, "rows": rows})
    described = [
        {
            "name": name,
            "shape": result.shape,
            "datatype": "FP32" if result.dtype == np.float32 else result.dtype.name.upper(),
            "parameters": {"binary_data_size": result.nbytes},
        }
        for name, result in results.items()
    ]
    document = json.dumps({"model_name": model, "outputs": described}).encode()
    headers = {"Inference-Header-Content-Length": str(len(document))}
    content = document + b"".join(result.tobytes() for result in results.values())
    return Response(200, "application/octet-stream", content, headers)


def read_tensors(described: list[dict[str, Any]] | None, body: bytes, offset: int) -> dict[str, Any]:
    """The tensors behind the JSON that describes them; the whole body where nothing does."""
    if described is None:
        ((name, detail),) = inputs.items()
        return {name: np.frombuffer(body, detail["dtype"]).reshape(-1, *detail["shape"][1:])}
    tensors = {}
    for tensor in described:
        dtype, count = inputs[tensor["name"]]["dtype"], math.prod(tensor["shape"])
        tensors[tensor["name"]] = np.frombuffer(body, dtype, count, offset).reshape(tensor["shape"])
        offset += tensors[tensor["name"]].nbytes
    return tensors


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Lambda's entry point."""
    return app.resolve(event, context)
