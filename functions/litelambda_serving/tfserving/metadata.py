"""What TensorFlow Serving's REST protocol reports about a model: status and metadata. Loaded on first use."""

from __future__ import annotations

from litelambda_serving.http import Response
from litelambda_serving.json_codec import dumps
from litelambda_serving.manifest import DEFAULT_SIGNATURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.tensor import TensorSpec

__all__ = ["answer"]

_TENSORFLOW_DTYPES = {
    "bool": "DT_BOOL", "string": "DT_STRING", "float16": "DT_HALF", "float32": "DT_FLOAT", "float64": "DT_DOUBLE",
    "int8": "DT_INT8", "int16": "DT_INT16", "int32": "DT_INT32", "int64": "DT_INT64",
    "uint8": "DT_UINT8", "uint16": "DT_UINT16", "uint32": "DT_UINT32", "uint64": "DT_UINT64",
}  # fmt: skip


def answer(question: str, manifest: Manifest) -> Response:
    """Answer `GET /v1/models/…` ("status") or `…/metadata` ("metadata")."""
    body = _status(manifest) if question == "status" else _metadata(manifest)
    return Response(200, dumps(body), route=question, model=manifest.model, version=manifest.version)


def _status(manifest: Manifest) -> dict[str, Any]:
    state = {
        "version": str(manifest.version),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    return {"model_version_status": [state], "name": manifest.model, "ready": True}


def _metadata(manifest: Manifest) -> dict[str, Any]:
    signatures = {
        (DEFAULT_SIGNATURE if key == manifest.default_signature else key): {
            "inputs": {spec.name: _tensor_info(spec) for spec in signature.inputs},
            "outputs": {spec.name: _tensor_info(spec) for spec in signature.outputs},
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
        for key, signature in manifest.signatures.items()
    }
    model_spec = {"name": manifest.model, "signature_name": "", "version": str(manifest.version)}
    return {"model_spec": model_spec, "metadata": {"signature_def": {"signature_def": signatures}}}


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in spec.shape]
    return {
        "dtype": _TENSORFLOW_DTYPES[spec.dtype.name],
        "tensor_shape": {"dim": dimensions, "unknown_rank": False},
        "name": f"{spec.name}:0",
    }
