"""The usual way to serve an ONNX model from Lambda: boto3, numpy, ONNX Runtime and Powertools."""

from __future__ import annotations

import os
from typing import Any

import boto3
import numpy as np
import onnxruntime as ort
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()
metrics = Metrics()
app = APIGatewayHttpResolver()

artifact = boto3.client("s3").get_object(Bucket=os.environ["MODEL_BUCKET"], Key=os.environ["MODEL_KEY"])
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(artifact["Body"].read(), options, providers=["CPUExecutionProvider"])
(model_input,) = session.get_inputs()
dtype = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}[model_input.type]
session.run(None, {model_input.name: np.zeros([1, *model_input.shape[1:]], dtype)})


@app.post("/v1/models/<model>:predict")
def predict(model: str) -> dict[str, Any]:
    """TensorFlow Serving's REST predict, row format, one input and one output."""
    instances = app.current_event.json_body["instances"]
    (result,) = session.run(None, {model_input.name: np.array(instances, dtype)})
    metrics.add_metric(name="Predictions", unit=MetricUnit.Count, value=len(instances))
    logger.info("predicted", extra={"model": model, "rows": len(instances)})
    return {"predictions": result.tolist()}


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Lambda's entry point."""
    return app.resolve(event, context)
