"""Predictions that leave while later rows still run. Loaded with the first request whose answer leaves in parts.

That is one whose answer may be over the limit of a buffered one where its request allows more, and one that asks for
JSON Lines, of any size. What can be known of a request is checked before the first row runs, and the first row has run
before an answer has a status.
"""

from __future__ import annotations

from itertools import chain
from math import inf
from time import monotonic, perf_counter_ns

from litelambda_serving.errors import PayloadTooLargeError, RequestError
from litelambda_serving.http import (
    MAX_RESPONSE_BYTES,
    VERSION_HEADER,
    Response,
    StreamedResponse,
    add_headers,
    check_response_bytes,
    public_message,
    sent_bytes,
)
from litelambda_serving.json_codec import dumps
from litelambda_serving.tensor import DYNAMIC, Tensor
from litelambda_serving.tensor.limits import check_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from litelambda_serving.http import Request
    from litelambda_serving.manifest import SignatureSpec
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.servable import Servable

    Blocks = Iterator[dict[str, Tensor]]
    Encode = Callable[[Blocks], Iterator[str | bytes]]

__all__ = ["BLOCK_BYTES", "JSON_LINES", "Prediction", "cut", "in_parts", "is_large", "nbytes"]

JSON_LINES = "application/x-ndjson"

BLOCK_BYTES = 64 * 1024
"""Of the outputs that are in memory at once, as text and Python's numbers some twenty times that."""

_BLOCK_NS = 50_000_000  # blocks grow while they take less than this: predictions leave ten times a second at least
_MOST_ROWS = 1024
# Characters that a value may take in JSON, with its comma.
_MOST_CHARACTERS = {
    "bool": 6, "int8": 5, "uint8": 4, "int16": 7, "uint16": 6, "int32": 12, "uint32": 11, "int64": 21, "uint64": 21,
    "float16": 16, "float32": 16, "float64": 25, "string": 64,
}  # fmt: skip


def _wants_lines(headers: Mapping[str, str]) -> bool:
    """Whether a request's Accept header asks for JSON Lines."""
    return any(each.partition(";")[0].strip() == JSON_LINES for each in headers.get("accept", "").lower().split(","))


def in_parts(request: Request, signature: SignatureSpec, obstacle: str = "") -> tuple[bool, bool]:
    """Whether an answer is to be lines, and whether it may leave in parts, if it is large.

    Args:
        request: the request.
        signature: that answers it.
        obstacle: why the answer cannot be made row by row, where the signature could; "" where it can.

    Raises:
        RequestError: the client takes lines alone, which it cannot have.
    """
    obstacle = obstacle or ("" if signature.rows == DYNAMIC else "the model has no prediction for each row")
    lines = _wants_lines(request.headers)
    if not obstacle:
        return lines, request.max_response_bytes > MAX_RESPONSE_BYTES
    accepted = request.headers.get("accept", "")
    if lines and "application/json" not in accepted and "*/*" not in accepted:
        raise RequestError(f"{JSON_LINES} is not possible here, since {obstacle}: accept application/json")
    return False, False


def is_large(signature: SignatureSpec, rows: int, names: Iterable[str], *, binary: bool = False) -> bool:
    """Whether an answer may be over the limit of a buffered one.

    Args:
        signature: that answers.
        rows: of the request.
        names: of the outputs that the answer has.
        binary: whether it has their bytes, not JSON.
    """
    values = {spec.name: spec.row_values * _MOST_CHARACTERS[spec.dtype.name] for spec in signature.outputs}
    if binary:
        values = {spec.name: spec.row_bytes * 4 // 3 for spec in signature.outputs}
    return rows * sum(values[name] for name in names) > MAX_RESPONSE_BYTES


class Prediction:
    """A request to be answered in parts: by a signature that has a row of each output for each of the inputs'."""

    def __init__(
        self, request: Request, servable: Servable | Shadowed, key: str, inputs: Mapping[str, Tensor], began_ns: int
    ) -> None:
        """Check what can be known before anything runs.

        Args:
            request: the request.
            servable: that answers it.
            key: of the signature.
            inputs: its tensors.
            began_ns: `time.perf_counter_ns()` of the request's beginning.

        Raises:
            TensorError: a value is outside an input's range.
        """
        signature = servable.manifest.signatures[key]
        self.rows = signature.count_rows(inputs)
        for spec in signature.inputs:
            if spec.limits is not None:
                check_limits(inputs[spec.name], spec)
        self._request = request
        self._servable = servable
        self._key = key
        self._inputs = inputs
        self._began_ns = began_ns

    def answer(
        self,
        encode: Encode,
        route: str,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Run the first rows, and return a response that runs the others while it is sent.

        Where the request allows only a buffered answer, all rows run at once.

        Args:
            encode: makes the body's parts of the outputs of some rows after the other.
            route: of the response.
            content_type: of the response.
            headers: further ones.

        Raises:
            RequestError: the client's fault, in the first rows.
            PayloadTooLargeError: a buffered answer is over the limit.
        """
        manifest = self._servable.manifest
        parts = (part.encode() if isinstance(part, str) else part for part in encode(self._blocks()))
        headers = {VERSION_HEADER: str(manifest.version), **(headers or {})}
        if self._request.max_response_bytes <= MAX_RESPONSE_BYTES:
            body = b"".join(parts).decode()
            check_response_bytes(sent_bytes(body))
            return Response(
                200, body, content_type=content_type, headers=headers, route=route,
                model=manifest.model, version=manifest.version,
            )  # fmt: skip
        response = StreamedResponse(
            200, chain([next(parts)], parts), content_type=content_type, headers=headers, route=route,
            model=manifest.model, version=manifest.version,
        )  # fmt: skip
        if content_type == JSON_LINES:
            response.chunks = _with_last_line(response, response.chunks, self._request.request_id)
        _compress(response, self._request.headers)
        return response

    def _blocks(self) -> Blocks:
        """Run some rows after the other: one at first, then more while that is quick."""
        rows, servable, deadline = self.rows, self._servable, self._request.deadline
        start, size, run_ns = 0, 1, 0
        first_run_ns = perf_counter_ns()
        while start < rows:
            if monotonic() > deadline:
                raise PayloadTooLargeError(
                    f"{rows} rows take longer than a request may: {start} were done. Send fewer rows at a time, "
                    "score the file in batch, or give the function a longer Timeout"
                )
            inputs = {name: cut(tensor, start, min(size, rows - start)) for name, tensor in self._inputs.items()}
            began = perf_counter_ns()
            try:
                outputs = servable.run(self._key, inputs, inf, start)
            except Exception:
                servable.statistics.failures += 1
                raise
            took = perf_counter_ns() - began
            run_ns += took
            servable.count_drift(self._key, inputs, outputs)
            yield outputs
            start += size
            large = sum(nbytes(tensor) for tensor in outputs.values()) * 2 > BLOCK_BYTES
            if took * 2 < _BLOCK_NS and not large and size < _MOST_ROWS:
                size *= 2
        servable.statistics.add_stream(self._began_ns, first_run_ns, run_ns, rows)


def cut(tensor: Tensor, start: int, count: int) -> Tensor:
    """Some entries of a tensor's first dimension, uncopied; fewer where it ends."""
    count = min(count, tensor.shape[0] - start)
    data = tensor.data if type(tensor.data) is list else memoryview(tensor.data).cast("B")
    step = len(data) // (tensor.shape[0] or 1)
    return Tensor(tensor.dtype, (count, *tensor.shape[1:]), data[start * step : (start + count) * step])


def nbytes(tensor: Tensor) -> int:
    """Of a tensor's values; of strings together."""
    return sum(map(len, tensor.data)) if type(tensor.data) is list else memoryview(tensor.data).nbytes


def _with_last_line(response: StreamedResponse, chunks: Iterator[bytes], request_id: str) -> Iterator[bytes]:
    """The lines of a response; after what failed, one that says so."""
    try:
        yield from chunks
    except Exception as error:  # noqa: BLE001 - whoever sends the response writes it to the log
        response.fault = error
        yield dumps({"error": public_message(error, request_id)}).encode() + b"\n"


def _compress(response: StreamedResponse, headers: Mapping[str, str]) -> None:
    """Compress each part on its own, if the client accepts that, so that it can be read when it arrives."""
    if "accept-encoding" not in headers:
        return
    from litelambda_serving.bodies.compression import accepted_encoding, compress_parts

    encoding = accepted_encoding(headers["accept-encoding"])
    if encoding:
        response.chunks = compress_parts(response.chunks, encoding)
        add_headers(response, {"Content-Encoding": encoding, "Vary": "Accept-Encoding"})
