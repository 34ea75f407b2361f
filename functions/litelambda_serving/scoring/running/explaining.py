"""The strongest attributions of each row of a job: the rows are explained as those of a request are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litelambda_serving.artifact import Artifact
from litelambda_serving.errors import RequestError
from litelambda_serving.explain import Rows, explain, forward_method
from litelambda_serving.explain.answers import strongest_entries
from litelambda_serving.explain.options import Options
from litelambda_serving.scoring.columns import row_bytes
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.servable import Servable
from litelambda_serving.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.scoring.columns import Column

__all__ = ["RowExplainer"]


class RowExplainer:
    """Explains rows with a model of its own, by running it alone: gradients are for requests."""

    def __init__(
        self, artifact: bytes, manifest: Manifest, assets: Mapping[str, bytes], count: int, *, prepared: bool
    ) -> None:
        """Open the model.

        Args:
            artifact: the flatbuffer.
            manifest: its manifest.
            assets: contents of its files that preprocessing reads.
            count: how many attributions each row has.
            prepared: whether the rows are the model's own values.
        """
        self._servable = Servable(Artifact(manifest, artifact, assets=dict(assets)), num_threads=1)
        self._count = count
        self._is_raw = self._servable.raw_inputs is not None and not prepared
        self._signature = manifest.signatures[manifest.default_signature]

    def read(self, columns: Sequence[Column], count: int, without: Container[int]) -> list[bytes]:
        """The bytes of rows for each input, without some of them."""
        found = []
        for spec, column in zip(self._signature.inputs, columns, strict=True):
            width = row_bytes(spec)
            data = bytearray(count * width)
            column(memoryview(data), 0)
            rows = [data[row * width : (row + 1) * width] for row in range(count) if row not in without]
            found.append(b"".join(rows))
        return found

    def explain(self, inputs: Sequence[bytes], fields: Mapping[str, list[Any]] | None) -> list[list[dict[str, Any]]]:
        """The strongest attributions of each row, the strongest first.

        Args:
            inputs: the bytes of the rows for each input.
            fields: their raw values, where they were read by name.

        Raises:
            JobError: the model's rows cannot be explained.
        """
        specs = self._signature.inputs
        widths = [row_bytes(spec) for spec in specs]
        key, found = self._servable.manifest.default_signature, []
        for row in range(len(inputs[0]) // widths[0]):
            tensors = {
                spec.name: Tensor(spec.dtype, spec.shape_of(1), data[row * width : (row + 1) * width])
                for spec, data, width in zip(specs, inputs, widths, strict=True)
            }
            values = {name: [column[row]] for name, column in (fields or {}).items()}
            rows = Rows(self._servable, key, tensors, values if self._is_raw else None)
            options = Options({"method": forward_method(rows)})
            try:
                (explanation,) = explain(rows, options)
            except RequestError as error:
                raise JobError(f"the rows cannot be explained: {error}") from error
            found.append(strongest_entries(explanation, self._count))
        return found
