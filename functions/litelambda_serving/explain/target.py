"""What is explained: one value of one output; of a model that answers with names, the score of one of them."""

from __future__ import annotations

from litelambda_serving.errors import RequestError
from litelambda_serving.tensor import unpack_flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from litelambda_serving.explain.options import Options
    from litelambda_serving.manifest import Manifest, SignatureSpec
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.servable import Servable
    from litelambda_serving.tensor import Tensor, TensorSpec

__all__ = ["Target"]


class Target:
    """A value of an output.

    Attributes:
        spec: the output.
        width: values that it has for a row.
        index: which of them; of scores of names, the name's number.
        label: of that class, or the name; None without labels.
        first: the value for the row itself.
    """

    def __init__(
        self,
        servable: Servable | Shadowed,
        signature: SignatureSpec,
        outputs: Mapping[str, Tensor],
        options: Options,
    ) -> None:
        """Choose it.

        Args:
            servable: the model.
            signature: that is run.
            outputs: for the row that is explained.
            options: may name the output, and the class by index or label.

        Raises:
            RequestError: they name what there is not; or no output has numbers.
        """
        manifest = servable.manifest
        self.spec = _output(manifest, signature, options.output)
        self.width = self.spec.row_values
        self._named, labels = self._labels(servable, signature)
        count = len(labels) if labels else self.width
        wanted = options.target
        if type(wanted) is str:
            if labels is None or wanted not in labels:
                known = ", ".join(labels[:20]) if labels else "the model has no labels: use the class's index"
                raise RequestError(f"parameter 'target' is {wanted[:40]!r}: expected one of {known}")
            wanted = labels.index(wanted)
        if type(wanted) is not int:
            wanted = self._best(outputs)
        if not 0 <= wanted < count:
            raise RequestError(
                f"parameter 'target' is {wanted}: output {self.spec.name!r} has the indexes 0 to {count - 1}"
            )
        self.index = wanted
        self.label = labels[wanted] if labels else None
        (self.first,) = self.values(outputs)

    def values(self, outputs: Mapping[str, Tensor]) -> list[float]:
        """The value for each row; of a name that is not among a row's best, the least score that is."""
        every = self._all(outputs)
        if self._named is None:
            return every[self.index :: self.width]
        numbers, width = unpack_flat(outputs[self._named.name]), self.width
        found = []
        for start in range(0, len(every), width):
            scores, names = every[start : start + width], numbers[start : start + width]
            found.append(scores[names.index(self.index)] if self.index in names else min(scores))
        return found

    def _labels(
        self, servable: Servable | Shadowed, signature: SignatureSpec
    ) -> tuple[TensorSpec | None, Sequence[str] | None]:
        """The output of the names whose scores these are, if there is one; and what the values are called."""
        for spec in signature.outputs:
            if spec.name in (servable.vocabularies or {}) and spec.row_values == self.width:
                return spec, (servable.vocabularies or {})[spec.name]
        labels = servable.manifest.labels
        return None, labels if labels and len(labels) == self.width else None

    def _best(self, outputs: Mapping[str, Tensor]) -> int:
        values = self._all(outputs)
        best = max(range(self.width), key=values.__getitem__)
        return best if self._named is None else int(unpack_flat(outputs[self._named.name])[best])

    def _all(self, outputs: Mapping[str, Tensor]) -> list[float]:
        """All values of the output, real ones."""
        found = list(unpack_flat(outputs[self.spec.name]))
        scheme = self.spec.quantization
        return found if scheme is None else [(code - scheme.zero_point) * scheme.scale for code in found]


def _output(manifest: Manifest, signature: SignatureSpec, name: str) -> TensorSpec:
    """The output that is explained: that of the name, else the first with scores or values."""
    specs = [spec for spec in signature.outputs if spec.name not in manifest.vocabularies and not spec.constant]
    numbers = [spec for spec in specs if spec.dtype.kind in ("float", "int") and spec.row_values]
    if name:
        numbers = [spec for spec in numbers if spec.name == name]
    if not numbers:
        asked = f"parameter 'output' is {name[:40]!r}" if name else "no output of the model has numbers to explain"
        raise RequestError(f"{asked}: its outputs are {', '.join(map(repr, signature.outputs))}")
    return next((spec for spec in numbers if spec.dtype.kind == "float"), numbers[0])
