"""What an explanation by integrated gradients costs, as a multiple of a prediction of the same row."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from typing import Any

from litelambda.bench.contenders import FLOOR, OURS
from litelambda.bench.emulator.environment import Environment
from litelambda.bench.events import http_event
from litelambda.bench.report import ratio
from litelambda.bench.subject import Subject, make_rows, predict_event
from litelambda.common.errors import BenchError

_FEWEST = 10


def measure_explanations(environments: Mapping[str, Environment], subject: Subject, invokes: int) -> dict[str, Any]:
    """Ask for explanations and predictions of a row in turns.

    Args:
        environments: started handlers by name.
        subject: the model.
        invokes: how often each is asked, at least 10 times.

    Returns:
        By model, `p50_us` and `predict_us` on top of hello world's median and their ratio, `over_predict`; empty where
        the model has no gradients.

    Raises:
        BenchError: the handler does not explain.
    """
    if subject.gradients is None:
        return {}
    rows = make_rows(subject.inputs, 1)
    ours, floor = environments[OURS], environments[FLOOR]
    explain, predict = explain_event(subject.manifest.model, rows), predict_event(subject.manifest.model, rows)
    answer = ours.invoke(explain).json()
    if answer.get("statusCode") != 200:
        raise BenchError(f"{OURS} answered an explanation with {str(answer)[:500]}")
    times: dict[str, list[float]] = {"explain": [], "predict": [], "floor": []}
    for _ in range(max(invokes, _FEWEST)):
        for name, handler, event in (("explain", ours, explain), ("predict", ours, predict), ("floor", floor, predict)):
            times[name].append(handler.invoke(event).ms * 1000)
    hello, *both = (statistics.median(times[name]) for name in ("floor", "explain", "predict"))
    explained, predicted = (each - hello for each in both)
    (explanation,) = json.loads(answer["body"])["explanations"]
    return {
        subject.manifest.model: {
            "p50_us": round(explained, 1),
            "predict_us": round(predicted, 1),
            "over_predict": ratio(explained, predicted),
            "runs": explanation["runs"],
            "completeness_error": explanation["completeness_error"],
        }
    }


def explain_event(model: str, rows: list[Any]) -> bytes:
    """The event of a JSON explanation by integrated gradients, of the model's own values."""
    parameters = {"method": "integrated_gradients"}
    body = json.dumps({"prepared": True, "instances": rows, "parameters": parameters}).encode()
    return http_event(f"/v1/models/{model}:explain", {"content-type": "application/json"}, body)


def show_explanations(measured: Mapping[str, Any]) -> list[str]:
    """A line for each model."""
    return [
        f"{model}: integrated gradients take {each['p50_us']:.0f} µs, {each['over_predict']:.1f} times a "
        f"prediction of {each['predict_us']:.0f} µs ({each['runs']} runs)"
        for model, each in measured.items()
    ]
