"""What `build` and `import_model` return: the published version and what was measured on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litelambda.common.wording import counted
from litelambda.publishing.publish import Published
from litelambda.publishing.served_comparison import Served

__all__ = ["BuildResult", "ImportResult", "Result"]


@dataclass(frozen=True)
class Result:
    """A version that was published, and how good it is.

    Attributes:
        published: the model's name, the version, its URL, its digest and the aliases that point at it.
        metrics: figures of the float and the quantized model.
        size_bytes: of the float flatbuffer (`float`), of the artifact (`quantized`), and of what is stored of it.
        float_operators: operators of the artifact that compute in float.
        note: why they do and what to change, or None where none does.
        batching: what was proven of running several rows at once.
        explain: the gradients that were published for explanations, or why there are none.
    """

    published: Published
    metrics: Mapping[str, Any]
    size_bytes: Mapping[str, int]
    float_operators: list[str]
    note: str | None
    batching: Mapping[str, Any]
    explain: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The document that the command prints with `--json`."""
        return {
            "model": self.published.model,
            "version": self.published.version,
            "url": self.published.url,
            "digest": self.published.digest,
            "metrics": dict(self.metrics),
            "size_bytes": dict(self.size_bytes),
            "published": True,
            "aliases": self.published.aliases,
            "float_ops": self.float_operators,
            "note": self.note,
            "batching": dict(self.batching),
            "explain": dict(self.explain),
        }


@dataclass(frozen=True)
class BuildResult(Result):
    """What a build published, and what was measured on the way.

    Attributes:
        served: how the versions compare that its aliases pointed at before.
        hints: what looks odd about the data or the model, and may not be meant.
        seconds: how long each stage took.
    """

    served: list[Served]
    hints: list[str]
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The document that `litelambda build --json` prints."""
        return super().to_json() | {
            "served": [each.to_json() for each in self.served],
            "hints": self.hints,
            "seconds": {name: round(seconds, 2) for name, seconds in self.seconds.items()},
        }

    def describe(self) -> str:
        """The same for a person, in a few lines."""
        before, after = self.metrics["float"], self.metrics["quantized"]
        figures = ", ".join(f"{name} {before[name]:.4g} (float) {after[name]:.4g} (quantized)" for name in before)
        share = self.size_bytes["quantized"] / self.size_bytes["float"]
        aliases = ", ".join(self.published.aliases) or "no alias"
        notes = [*([self.note] if self.note else []), *(each.describe() for each in self.served), *self.hints]
        return (
            f"{self.published.model} version {self.published.version} ({aliases}) in {self.published.url}\n"
            f"{figures} on {counted(self.metrics['num_examples'], 'test row')}\n"
            f"{self.size_bytes['quantized']:,} bytes, {share:.1%} of the float model's {self.size_bytes['float']:,}; "
            f"{self.size_bytes['stored']:,} stored\n"
            + "".join(f"{note}\n" for note in notes)
            + f"built in {sum(self.seconds.values()):.1f} s"
        )


@dataclass(frozen=True)
class ImportResult(Result):
    """What an import published, and how far it is from its source's own answers.

    Attributes:
        warnings: what is odd about the representative rows.
    """

    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document that `litelambda import --json` prints."""
        return super().to_json() | {"warnings": list(self.warnings)}

    def describe(self) -> str:
        """The same for a person, in a few lines."""
        return (
            f"{self.published.model} version {self.published.version} in {self.published.url}\n"
            f"{self.size_bytes['quantized']:,} bytes{self._compared()}" + "".join(f"\n{note}" for note in self._notes())
        )

    def _compared(self) -> str:
        if (share := self.metrics.get("max_difference")) is None:
            return ""
        agreement = self.metrics["agreement"]
        classes = "" if agreement is None else f", the same class on {agreement:.1%}"
        return (
            f"; from the source's own answers on {self.metrics['num_examples']} rows at most {share:.2%} of the range, "
            f"99 % within {self.metrics['p99_difference']:.2%}{classes}"
        )

    def _notes(self) -> list[str]:
        notes = [*self.warnings, *([self.note] if self.note else [])]
        if not self.batching["dynamic"]:
            notes.append(f"rows run one by one: {self.batching['reason']}")
        return notes
