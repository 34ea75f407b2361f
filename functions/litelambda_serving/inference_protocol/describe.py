"""What V2 reports about the server and a model: metadata, Triton's model configuration, and statistics."""

from __future__ import annotations

from litelambda_serving import __version__
from litelambda_serving.inference_protocol.inputs import DATATYPES
from litelambda_serving.tensor import DYNAMIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.models import ModelRepository
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.servable import Servable
    from litelambda_serving.tensor import TensorSpec

__all__ = ["model_config", "model_metadata", "server_metadata", "statistics"]

PLATFORM = "tflite"
_EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]


def server_metadata() -> dict[str, Any]:
    """`GET /v2`."""
    return {"name": "litelambda", "version": __version__, "extensions": _EXTENSIONS}


def model_metadata(manifest: Manifest, repository: ModelRepository) -> dict[str, Any]:
    """`GET /v2/models/{m}`: the versions are those in memory; any published one can be asked for.

    Where the model prepares raw values, `raw_inputs` says which, besides the protocol's own `inputs` of the model;
    where it cannot compute with zeros, `warm_up` has values that it can compute with, by input.
    `parameters` is the protocol's place for more: what the manifest says of the answers, and how good they are.
    """
    signature = manifest.signatures[manifest.default_signature]
    loaded = {
        servable.manifest.version for servable in repository.loaded() if servable.manifest.model == manifest.model
    }
    metadata: dict[str, Any] = {
        "name": manifest.model,
        "versions": [str(version) for version in sorted(loaded | {manifest.version})],
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [
            {**_tensor(spec), **({"datatype": "BYTES"} if spec.name in manifest.vocabularies else {})}
            for spec in signature.outputs
        ],
    }
    if manifest.warm_up:
        metadata["warm_up"] = manifest.warm_up
    if manifest.preprocessing:
        from litelambda_serving.preprocessing.describe import details_of, fields_of

        metadata["raw_inputs"] = [
            {
                "name": field.name,
                "type": field.type,
                "shape": [DYNAMIC, *field.shape],
                **details_of(manifest, field),
            }
            for field in fields_of(manifest)
        ]
    said = {"labels": manifest.labels, **{name: manifest.fields.get(name) for name in ("task", "metrics", "created")}}
    parameters = {name: value for name, value in said.items() if value}
    return {**metadata, "parameters": parameters} if parameters else metadata


def model_config(manifest: Manifest, repository: ModelRepository) -> dict[str, Any]:
    """`GET /v2/models/{m}/config`, in the terms of Triton's model configuration.

    As there, `max_batch_size` > 0 says that dims leave the batch dimension out: so where batches are proven to equal
    single rows. It is 0 where rows run one by one, and dims are whole; and where a row is a single value without a
    dimension, for which Triton has no dims.
    """
    signature = manifest.signatures[manifest.default_signature]
    batched = all(spec.batched and len(spec.shape) > 1 for spec in (*signature.inputs, *signature.outputs))
    max_batch_size = manifest.batch_sizes[-1] if batched and manifest.batch_sizes != (1,) else 0
    aliases = repository.aliases(manifest.model)
    return {
        "name": manifest.model,
        "platform": PLATFORM,
        "backend": "litert",
        "version_policy": {"specific": {"versions": sorted(set(aliases.targets.values()))}},
        "max_batch_size": max_batch_size,
        "input": [
            {**_config_tensor(spec, max_batch_size), "format": _image_format(spec, manifest)}
            for spec in signature.inputs
        ],
        "output": [_config_tensor(spec, max_batch_size) for spec in signature.outputs],
        "default_model_filename": manifest.artifact,
        "parameters": {"aliases": {"string_value": ",".join(f"{name}={to}" for name, to in aliases.targets.items())}},
    }


def statistics(servables: Sequence[Servable], servable: Servable | Shadowed | None) -> dict[str, Any]:
    """`GET /v2/models[/{m}]/stats`: what this execution environment has done; each environment counts its own.

    Args:
        servables: what is in memory.
        servable: the one to describe; None for all.
    """
    manifest = servable.manifest if servable is not None else None
    return {
        "model_stats": [
            _statistics(each)
            for each in servables
            if manifest is None or (each.manifest.model, each.manifest.version) == (manifest.model, manifest.version)
        ]
    }


def _statistics(servable: Servable) -> dict[str, Any]:
    counts = servable.statistics
    none = {"count": 0, "ns": 0}
    requests = counts.requests
    return {
        "name": servable.manifest.model,
        "version": str(servable.manifest.version),
        "last_inference": counts.last_ms,
        "inference_count": counts.rows,
        "execution_count": counts.runs,
        "inference_stats": {
            "success": {"count": requests, "ns": counts.input_ns + counts.run_ns + counts.output_ns},
            "fail": {"count": counts.failures, "ns": 0},
            "queue": {"count": requests, "ns": 0},  # Lambda hands an environment one request at a time
            "compute_input": {"count": requests, "ns": counts.input_ns},
            "compute_infer": {"count": requests, "ns": counts.run_ns},
            "compute_output": {"count": requests, "ns": counts.output_ns},
            "cache_hit": none,
            "cache_miss": none,
        },
        "batch_stats": [],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": servable.memory_bytes}],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype.name], "shape": spec.shape}


def _config_tensor(spec: TensorSpec, max_batch_size: int) -> dict[str, Any]:
    datatype = DATATYPES[spec.dtype.name]
    return {"name": spec.name, "data_type": "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}",
            "dims": spec.shape[1:] if max_batch_size else spec.shape}  # fmt: skip


def _image_format(spec: TensorSpec, manifest: Manifest) -> str:
    """Triton's word for an input of height, width and channels, which clients of images look for."""
    from litelambda_serving.bodies.images import image_size

    preprocessing = (manifest.fields.get("preprocessing") or {}).get(spec.name)
    is_image = len(spec.shape) - spec.batched == 3 and image_size(spec, preprocessing) is not None
    return "FORMAT_NHWC" if is_image else "FORMAT_NONE"
