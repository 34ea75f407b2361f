"""One version of a model in memory: what it computes with, what it refuses, and whose fault a failed run is."""

from __future__ import annotations

import json
import struct
from math import inf
from typing import Any

import pytest

from litelambda_serving.artifact import Artifact
from litelambda_serving.errors import ArtifactError, LiteRtError, PayloadTooLargeError, RequestError, TensorError
from litelambda_serving.manifest import Manifest
from litelambda_serving.servable import Servable
from litelambda_serving.tensor import DTYPES, Tensor, TensorSpec, pack
from litelambda_serving.tensor.limits import check_limits
from support.golden_store import describe, golden, make_manifest
from support.tensor_values import values_of


def servable(name: str, **fields: Any) -> Servable:
    data = golden(name)
    document = json.dumps(make_manifest(name, 1, data, **fields)).encode()
    return Servable(Artifact(Manifest.from_json(document), data), 1)


def signatures(name: str, **more: dict[str, Any]) -> dict[str, Any]:
    """A golden model's signatures in alphabetical order, which is not always the runtime's; `more` by tensor."""
    (signature,) = describe(golden(name)).values()
    return {
        "predict": {
            side: [{**tensor, **more.get(tensor["name"], {})} for tensor in sorted(tensors, key=lambda t: t["name"])]
            for side, tensors in signature.items()
        }
    }


def predict(model: Servable, **inputs: Any) -> dict[str, Any]:
    """Nested lists in and out."""
    tensors: dict[str, Tensor] = {}
    for spec in model.manifest.signatures["predict"].inputs:
        values = inputs[spec.name]
        tensors[spec.name] = pack(values, spec, (len(values), *spec.shape[1:]) if spec.batched else spec.shape)
    return {name: values_of(tensor) for name, tensor in model.predict("predict", tensors).items()}


def test_tensors_are_matched_by_name_and_answered_in_the_manifests_order():
    """Where the runtime has the inputs the other way round, each still gets its own values."""
    model = servable("division", signatures=signatures("division"))
    assert [spec.name for spec in model.manifest.signatures["predict"].inputs] == ["a", "b"]
    assert predict(model, a=[7, 8, 9], b=[2, 3, 4]) == {"y": [3, 2, 2]}
    assert list(predict(servable("constant", signatures=signatures("constant")), x=[[1, 2, 3]])) == ["c", "y"]


def test_two_outputs_on_one_tensor_have_their_names():
    """The runtime knows one of the names; the manifest says that the other is the same tensor."""
    tensors = signatures("twins")
    first, second = tensors["predict"]["outputs"]
    first["name"], second["same_as"] = "a", "a"
    model = servable("twins", signatures=tensors)
    assert predict(model, x=[[1, 2, 3], [4, 5, 6]]) == {key: [[2, 4, 6], [8, 10, 12]] for key in "ab"}
    del second["same_as"]
    with pytest.raises(ArtifactError, match="the flatbuffer has"):
        servable("twins", signatures=tensors)


def test_an_output_made_of_all_rows_is_computed_by_one_run():
    """Where so many rows were proven, all of them make it; for any other number the request is refused."""
    model = servable("totals")
    assert predict(model, x=[[1, 2, 3], [4, 5, 6]]) == {"total": [5, 7, 9], "y": [[2, 4, 6], [8, 10, 12]]}
    assert predict(model, x=[[1, 2, 3]])["total"] == [1, 2, 3]
    with pytest.raises(RequestError, match=r"output 'total' .* verified for 1, 2, 3, 8, 32 rows at once, not 5"):
        predict(model, x=[[1, 2, 3]] * 5)
    alone = servable("totals", batching={"dynamic": False, "reason": "nothing was proven"})
    assert predict(alone, x=[[1, 2, 3]])["total"] == [1, 2, 3]
    with pytest.raises(RequestError, match="output 'total'"):
        predict(alone, x=[[1, 2, 3], [4, 5, 6]])


def test_a_constant_output_is_given_for_any_number_of_rows():
    """It is the same whatever comes in, so nothing is lost when rows are run some at a time."""
    model = servable("constant", signatures=signatures("constant", c={"constant": True}))
    assert predict(model, x=[[1, 2, 3]] * 41) == {"c": [1, 2, 3], "y": [[2, 4, 6]] * 41}


def test_the_first_run_is_on_values_that_the_model_computes_with():
    """Division fails on zeros: the manifest's values, one for a row or each of its values, take their place."""
    with pytest.raises(LiteRtError, match="status 3"):
        servable("division").warm_up()
    servable("division", warm_up={"b": 1}).warm_up()
    servable("division", warm_up={"a": [3], "b": [2]}).warm_up()
    with pytest.raises(ArtifactError, match=r"warm_up: .*input 'b'"):
        servable("division", warm_up={"b": [1, 2]}).warm_up()


def test_values_that_an_operator_refuses_are_the_clients_fault():
    """The input and the row are named, in a batch too; the model goes on."""
    model = servable("division", warm_up={"b": 1})
    with pytest.raises(TensorError, match=r"^input 'b', row 0: an operator of the model refuses these values$"):
        predict(model, a=[1], b=[0])
    with pytest.raises(TensorError, match=r"^input 'b', row 9: "):
        predict(model, a=[1] * 12, b=[2] * 9 + [0, 1, 1])
    assert predict(model, a=[6], b=[2]) == {"y": [3]}


def test_a_model_that_fails_on_anything_is_our_fault():
    """Where the values of the first run fail too, no client is blamed."""
    model = servable("unsupported_op")
    with pytest.raises(LiteRtError, match="operator"):
        model.predict(
            "predict", {"x": Tensor(model.manifest.signatures["predict"].inputs[0].dtype, (1, 2, 2), bytes(16))}
        )


@pytest.mark.parametrize("value", [-1, 5, 2**31 - 1])
def test_values_beyond_the_range_are_refused_before_the_run(value):
    """The manifest says which rows a table has; the message says what came and what is there."""
    model = servable("table", signatures=signatures("table", ids={"range": [0, 4]}))
    assert predict(model, ids=[[0, 4]]) == {"y": [[[0, 1], [40, 41]]]}
    with pytest.raises(TensorError, match=rf"^input 'ids', row 1: {value} is outside the range \[0, 4\]$"):
        predict(model, ids=[[0, 1], [2, value]])
    assert model.statistics.runs == 1


def test_a_range_holds_for_every_dtype_of_numbers():
    """16-bit floats are checked like all others."""
    spec = TensorSpec("x", DTYPES["float16"], (-1,))
    spec.limits = (0, 4)
    check_limits(Tensor(spec.dtype, (2,), struct.pack("<2e", 0.0, 4.0)), spec)
    with pytest.raises(TensorError, match=r"'x', row 1: 5\.0 is outside the range \[0, 4\]"):
        check_limits(Tensor(spec.dtype, (2,), struct.pack("<2e", 0.0, 5.0)), spec)


def test_looking_for_the_refused_row_ends_with_the_request():
    """Where there is no time to find which row an operator refuses, the request was too large."""
    model = servable("division", warm_up={"b": 1})
    (a, b) = model.manifest.signatures["predict"].inputs
    tensors = {"a": pack([1] * 12, a, (12,)), "b": pack([2] * 11 + [0], b, (12,))}
    given = [tensors[spec.name] for spec in model._bindings["predict"].inputs]
    in_time, too_late = (model._explained(_operator_failure(), "predict", given, each) for each in (inf, 0.0))
    assert isinstance(in_time, TensorError)
    assert isinstance(too_late, PayloadTooLargeError)


def _operator_failure() -> LiteRtError:
    failure = LiteRtError("an operator failed")
    failure.in_operator, failure.rows = True, range(12)
    return failure


def test_what_would_end_the_process_is_refused_before_the_run():
    """The smallest integer modulo -1 is a fault of the processor, not an error of the runtime."""
    limits = {"range": [1 - 2**31, 2**31 - 1]}
    model = servable("remainder", warm_up={"b": 1}, signatures=signatures("remainder", a=limits))
    with pytest.raises(TensorError, match=f"{-(2**31)} is outside"):
        predict(model, a=[-(2**31)], b=[-1])
    assert predict(model, a=[7, 1 - 2**31], b=[-4, -1]) == {"y": [7 % -4, 0]}


def test_the_range_counts_before_a_cast_cuts_it_short():
    """2^32 + 1 is no row of the table, though its lower half would be."""
    model = servable("wide_table", signatures=signatures("wide_table", ids={"range": [0, 4]}))
    with pytest.raises(TensorError, match=f"{2**32 + 1} is outside"):
        predict(model, ids=[[[2**32 + 1], [0]]])


@pytest.mark.parametrize("limits", [True, [1], ["0", "4"], [0, 4, 5]])
def test_a_range_that_is_none_is_refused_with_the_manifest(limits):
    """Not at the first request."""
    with pytest.raises(ArtifactError, match="manifest tensor ids: range"):
        servable("table", signatures=signatures("table", ids={"range": limits}))


def test_inputs_without_a_batch_of_different_sizes():
    """Each is a whole tensor of its own shape."""
    model = servable("whole", signatures=signatures("whole"))
    assert predict(model, a=[1, 2], b=[[3, 4, 5]]) == {"y": [2, 4], "z": [[4, 5, 6]]}


def test_a_failed_run_leaves_nothing_behind():
    """What is answered after a refusal is what would have been answered without it."""
    model = servable("division", warm_up={"b": 1})
    with pytest.raises(TensorError):
        predict(model, a=[5, 6], b=[0, 0])
    assert predict(model, a=[5, 6], b=[5, 2]) == {"y": [1, 3]}
