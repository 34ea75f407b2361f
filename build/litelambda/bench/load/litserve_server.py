"""The peer LitServe: `litserve_server.py PORT WORKERS NAME=MODEL.tflite…`, in an environment of its own."""

from __future__ import annotations

import sys
from typing import Any

import litserve
import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Model(litserve.LitAPI):  # type: ignore[misc]  # of another environment
    """One model, which takes and answers tensors as the Open Inference Protocol V2 has them, in JSON."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(api_path=f"/v2/models/{name}/infer")
        self._name, self._path = name, path

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """In the worker's process."""
        interpreter = Interpreter(self._path, num_threads=1)
        self._run = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
        self._dtypes = {name: each["dtype"] for name, each in self._run.get_input_details().items()}

    # Without an annotation the request arrives as it is: JSON of any shape.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """JSON to arrays."""
        return {
            each["name"]: np.array(each["data"], self._dtypes[each["name"]]).reshape(each["shape"])
            for each in request["inputs"]
        }

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        """Run the model."""
        outputs: dict[str, Any] = self._run(**x)
        return outputs

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Arrays to JSON."""
        outputs = [
            {"name": name, "datatype": "FP32", "shape": list(value.shape), "data": value.ravel().tolist()}
            for name, value in output.items()
        ]
        return {"model_name": self._name, "outputs": outputs}


if __name__ == "__main__":
    port, workers, *models = sys.argv[1:]
    apis = [Model(*each.split("=", 1)) for each in models]
    server = litserve.LitServer(apis if len(apis) > 1 else apis[0], accelerator="cpu", workers_per_device=int(workers))
    server.run(port=int(port), log_level="warning", generate_client_file=False)
