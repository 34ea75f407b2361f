"""The ctypes binding on libLiteRt.so: the only module that knows the library.

It knows nothing of manifests, stores or protocols: the bytes of a flatbuffer in, the bytes of tensors in and out.
Declarations follow google-ai-edge/LiteRT `litert/c/*.h`, whose struct layouts are declared ABI-stable.

Thread safety: a `CompiledModel` does one run at a time, behind its own lock; calls from several threads are safe and
queue. The library is called with the GIL released.
"""

from __future__ import annotations

import ctypes
import os
import sys
from _thread import allocate_lock

from litelambda_serving.errors import LiteRtError, RuntimeLibraryError
from litelambda_serving.tensor import DTYPES, Quantization, TensorSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from typing_extensions import Buffer

    Input = Buffer | list[bytes]

__all__ = ["CompiledModel", "Signature", "SignatureRunner", "find_library", "load_library"]

_CPU = 1  # kLiteRtHwAcceleratorCpu
_HOST_MEMORY = 1  # kLiteRtTensorBufferTypeHostMemory
_PER_TENSOR = 1  # kLiteRtQuantizationPerTensor
_OPTION_ACCELERATORS = 24  # kLiteRtEnvOptionTagAutoRegisterAccelerators
_OPTION_MIN_SEVERITY = 25  # kLiteRtEnvOptionTagMinLoggerSeverity
_ANY_INT = 2  # kLiteRtAnyTypeInt
_WARNING = 2  # kLiteRtLogSeverityWarning: a line per load at INFO would only fill the logs
_MAX_RANK = 8
_RUNTIME_FAILURE = 3  # kLiteRtStatusErrorRuntimeFailure
_KEPT_STRING_BYTES = 1024 * 1024  # a string output that took more is released after the run

_STATUS = {
    1: "invalid argument",
    2: "out of memory",
    3: "runtime failure; the runtime's own line on stderr names the operator",
    4: "missing input tensor",
    5: "unsupported",
    6: "not found",
    9: "unknown error",
    500: "file error",
    501: "not a TFLite flatbuffer, or one that was cut short",
    504: "the model could not be compiled",
    1000: "index out of bounds",
}

_DTYPE_OF_ELEMENT = {dtype.element_type: dtype for dtype in DTYPES.values()}


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint32, 7),
        ("has_strides", ctypes.c_uint32, 1),
        ("dimensions", ctypes.c_int32 * _MAX_RANK),
        ("strides", ctypes.c_uint32 * _MAX_RANK),
    )


class _RankedTensorType(ctypes.Structure):
    _fields_ = (("element_type", ctypes.c_int32), ("layout", _Layout))


class _PerTensorQuantization(ctypes.Structure):
    _fields_ = (("scale", ctypes.c_float), ("zero_point", ctypes.c_int64))


class _EnvironmentOption(ctypes.Structure):
    """`LiteRtEnvOption` with its `LiteRtAny` narrowed to the integers used here."""

    _fields_ = (("tag", ctypes.c_int64), ("type", ctypes.c_int64), ("value", ctypes.c_int64))


class _PyBuffer(ctypes.Structure):
    """CPython's `Py_buffer` (stable ABI since 3.11): the address of any buffer, read-only ones included, uncopied."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_H = ctypes.c_void_p  # any handle, and any pointer to something
_I = ctypes.c_int
_N = ctypes.c_size_t

_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "CreateEnvironment": (_I, _H, _H),
    "CreateModelFromBuffer": (_H, _H, _N, _H),
    "GetNumModelSignatures": (_H, _H),
    "GetModelSignature": (_H, _N, _H),
    "GetSignatureKey": (_H, _H),
    "GetNumSignatureInputs": (_H, _H),
    "GetSignatureInputName": (_H, _N, _H),
    "GetSignatureInputTensorByIndex": (_H, _N, _H),
    "GetNumSignatureOutputs": (_H, _H),
    "GetSignatureOutputName": (_H, _N, _H),
    "GetSignatureOutputTensorByIndex": (_H, _N, _H),
    "GetRankedTensorType": (_H, _H),
    "GetQuantizationTypeId": (_H, _H),
    "GetPerTensorQuantization": (_H, _H),
    "CreateOptions": (_H,),
    "SetOptionsHardwareAccelerators": (_H, _I),
    "CreateOpaqueOptions": (ctypes.c_char_p, _H, _H, _H),
    "AddOpaqueOptions": (_H, _H),
    "CreateCompiledModel": (_H, _H, _H, _H),
    "CompiledModelResizeInputTensor": (_H, _N, _N, _H, _N),
    "GetCompiledModelOutputTensorLayouts": (_H, _N, _N, _H, ctypes.c_bool),
    "CreateManagedTensorBuffer": (_H, _I, _H, _N, _H),
    "GetTensorBufferHostMemory": (_H, _H),
    "RunCompiledModel": (_H, _N, _N, _H, _N, _H),
}
_DESTRUCTORS = ("DestroyTensorBuffer", "DestroyCompiledModel", "DestroyOptions", "DestroyModel")


class _Library:
    """libLiteRt.so with typed functions, and the one environment that all models of the process share."""

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
            self._functions: dict[str, Callable[..., Any]] = {}
            for name, argument_types in _FUNCTIONS.items():
                self._bind(name, argument_types, ctypes.c_int)
            for name in _DESTRUCTORS:
                self._bind(name, (_H,), None)
        except (OSError, AttributeError) as error:
            raise RuntimeLibraryError(
                f"{path} is not a LiteRT runtime for this machine ({os.uname().machine}): {error}. "
                "Package for the function's architecture, or install ai-edge-litert for this one."
            ) from error
        self.environment = _H()
        options = (_EnvironmentOption * 2)(
            _EnvironmentOption(_OPTION_ACCELERATORS, _ANY_INT, _CPU),
            _EnvironmentOption(_OPTION_MIN_SEVERITY, _ANY_INT, _WARNING),
        )
        self.call("CreateEnvironment", len(options), options, ctypes.byref(self.environment))

    def _bind(self, name: str, argument_types: tuple[Any, ...], result_type: Any) -> None:
        function = getattr(self._library, "LiteRt" + name)
        function.argtypes = argument_types
        function.restype = result_type
        self._functions[name] = function

    def call(self, name: str, *arguments: Any) -> None:
        """Call `LiteRt<name>` and raise LiteRtError unless its status is 0."""
        status = self._functions[name](*arguments)
        if status:
            raise _failure(name, status)

    def function(self, name: str) -> Callable[..., int]:
        """`LiteRt<name>` itself, for who calls it often and looks at the status alone."""
        return self._functions[name]

    def get(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call a function whose last argument is a pointer to its result; return the filled `result`."""
        self.call(name, *arguments, ctypes.byref(result))
        return result

    def destroy(self, kind: str, handle: Any) -> None:
        """Release a handle; NULL is ignored."""
        if handle:
            self._functions["Destroy" + kind](handle)


def _failure(name: str, status: int) -> LiteRtError:
    meaning = _STATUS.get(status, "see LiteRtStatus in litert/c/litert_common.h")
    error = LiteRtError(f"LiteRt{name} failed with status {status}: {meaning}")
    error.in_operator = name == "RunCompiledModel" and status == _RUNTIME_FAILURE
    return error


_library: _Library | None = None
_library_lock = allocate_lock()


def find_library() -> str:
    """Path of the runtime library: in the deployment package, else in the installed ai-edge-litert wheel.

    Raises:
        RuntimeLibraryError: neither has one, or this is no Linux or macOS.
    """
    names = {"linux": "libLiteRt.so", "darwin": "libLiteRt.dylib"}
    if sys.platform not in names:
        raise RuntimeLibraryError(f"LiteRT's C library is offered for Linux and macOS, not for {sys.platform}")
    name = names[sys.platform]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    candidates = [os.path.join(root, "lib", name)]
    candidates += [os.path.join(entry or ".", "ai_edge_litert", name) for entry in sys.path]
    for path in candidates:
        if os.path.exists(path):
            return path
    raise RuntimeLibraryError(
        f"{name} is neither in the package ({candidates[0]}) nor in an installed ai-edge-litert wheel. "
        "Run `litelambda package`, or `pip install ai-edge-litert`."
    )


def load_library(path: str | None = None) -> _Library:
    """Load the runtime once per process; later calls return the same library.

    Raises:
        RuntimeLibraryError: the library is missing, or is not for this machine.
    """
    global _library  # noqa: PLW0603 - one environment per process is what the library asks for
    with _library_lock:
        if _library is None:
            _library = _Library(path or find_library())
        return _library


class Signature:
    """One entry point of a model.

    Attributes:
        key: its name, "predict" in artifacts built here.
        index: its number in the flatbuffer.
        inputs: specs in the order that `CompiledModel.run` takes them.
        outputs: specs in the order that `CompiledModel.run` returns them. Of several outputs that are one tensor, all
            have the name of one.
        shared: of outputs that are not tensors of their own, by index: "in" or "out", and the index of the input or
            the earlier output that is the same tensor.
    """

    __slots__ = ("index", "inputs", "key", "outputs", "shared")

    def __init__(
        self,
        key: str,
        index: int,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        shared: Mapping[int, tuple[str, int]],
    ) -> None:
        self.key = key
        self.index = index
        self.inputs = inputs
        self.outputs = outputs
        self.shared = shared


class _Buffers:
    """Managed host-memory tensors for one side of one signature at one batch size, reused from run to run.

    Attributes:
        handles, addresses, sizes, views: of each tensor's buffer. Strings have none until `place` makes one.
        strings: the number of strings by the index of each string tensor.
    """

    __slots__ = ("_library", "_own", "_types", "addresses", "handles", "sizes", "strings", "views")

    def __init__(self, library: _Library, types: Sequence[_RankedTensorType]) -> None:
        self._library = library
        self._types = types
        self.handles = (_H * len(types))()
        self._own: list[int | None] = [None] * len(types)
        self.addresses = [0] * len(types)
        self.sizes = [0] * len(types)
        self.views = [memoryview(b"")] * len(types)
        self.strings: dict[int, int] = {}
        try:
            for index, ranked_type in enumerate(types):
                count = _num_values(ranked_type)
                itemsize = _DTYPE_OF_ELEMENT[ranked_type.element_type].itemsize
                if itemsize:
                    self.place(index, count * itemsize)
                else:
                    self.strings[index] = count
        except BaseException:
            self.close()
            raise

    def place(self, index: int, size: int, room: int = 0) -> None:
        """Make the buffer of a tensor, instead of the one it had; `room` is what the runtime asks for beyond `size`."""
        handle = self._library.get(
            "CreateManagedTensorBuffer",
            _H(),
            self._library.environment,
            _HOST_MEMORY,
            ctypes.byref(self._types[index]),
            max(size, room),
        )
        self._library.destroy("TensorBuffer", self._own[index])
        self.handles[index] = self._own[index] = handle.value
        self.addresses[index] = self._library.get("GetTensorBufferHostMemory", _H(), handle).value
        self.sizes[index] = size
        self.views[index] = _view(self.addresses[index], size)

    def share(self, index: int, other: _Buffers, place: int) -> None:
        """Make a tensor's buffer that of another place, of these buffers or of others, which keep it."""
        self._library.destroy("TensorBuffer", self._own[index])
        self._own[index] = None
        self.handles[index] = other.handles[place]
        self.addresses[index], self.sizes[index] = other.addresses[place], other.sizes[place]
        self.views[index] = other.views[place]

    def close(self) -> None:
        for index, own in enumerate(self._own):
            self._library.destroy("TensorBuffer", own)
            self.handles[index] = self._own[index] = None


class SignatureRunner:
    """One signature at one batch size: its tensors in place, and the call that computes the outputs from the inputs.

    Attributes:
        batch: rows in each batched tensor.
        ins, outs: buffers of the inputs and outputs, in the order of the signature; `views` are their bytes, row-major
            and little-endian. The runtime reads and writes there: a run overwrites the outputs of the one before.
        late: indices of outputs whose shapes the runtime only knows after a run.
    """

    __slots__ = ("_arguments", "_function", "batch", "ins", "late", "outs")

    def __init__(
        self, library: _Library, compiled: Any, signature: Signature, batch: int, ins: _Buffers, outs: _Buffers
    ) -> None:
        self.batch, self.ins, self.outs = batch, ins, outs
        self.late: Sequence[int] = ()
        self._function = library.function("RunCompiledModel")
        self._arguments: tuple[Any, ...] | None = (
            compiled,
            signature.index,
            len(ins.handles),
            ins.handles,
            len(outs.handles),
            outs.handles,
        )

    def run(self) -> None:
        """Compute the outputs.

        Raises:
            LiteRtError: the runtime's own failure, or the model was closed or resized meanwhile.
        """
        if self._arguments is None:
            raise LiteRtError("the model was closed or resized: its buffers are gone")
        status = self._function(*self._arguments)
        if status:
            raise _failure("RunCompiledModel", status)

    def close(self) -> None:
        """Release the buffers; safe to call twice."""
        self._arguments = None
        self.ins.close()
        self.outs.close()


class CompiledModel:
    """A flatbuffer, loaded and compiled for the CPU.

    Attributes:
        signatures: the model's entry points by key. A model without any gets one, "serving_default", from the library.
    """

    def __init__(self, buffer: Buffer, *, num_threads: int = 1) -> None:
        """Load and compile a model.

        Args:
            buffer: the .tflite file's bytes, kept alive and uncopied until `close`.
            num_threads: XNNPACK's threads, >= 1.

        Raises:
            LiteRtError: not a TFLite file, cut short, or with an operator the runtime lacks.
            RuntimeLibraryError: see `load_library`.
        """
        self._library = load_library()
        self._lock = allocate_lock()
        self._model, self._compiled = _H(), _H()
        self._runners: dict[str, SignatureRunner] = {}
        self._view = _PyBuffer()
        _get_buffer(buffer, self._view)
        try:
            self._check_identifier()
            self._library.get(
                "CreateModelFromBuffer", self._model, self._library.environment, self._view.buf, self._view.len
            )
            self._compile(num_threads)
            self.signatures = {signature.key: signature for signature in self._read_signatures()}
        except BaseException:
            self.close()
            raise

    def run(self, signature_key: str, inputs: Sequence[Input], batch: int | None = None) -> list[Any]:
        """Run one signature once.

        Args:
            signature_key: which entry point.
            inputs: row-major little-endian bytes per input, in the order of `Signature.inputs`; for strings a list of
                bytes.
            batch: rows in each batched input; None or 1 for one. Another number resizes the model, which is safe
                only where the manifest's `batching` says it was proven (a stale output would corrupt the heap).

        Returns:
            The bytes of each output, or the list of its strings, in the order of `Signature.outputs`.

        Raises:
            LiteRtError: unknown signature, wrong number or size of inputs, the runtime's own failure, or a string
                output of more than `string_buffers.MAX_OUTPUT_BYTES`.
        """
        with self._lock:
            runner = self._runner(signature_key, batch or 1)
            ins, outs = runner.ins, runner.outs
            signature = self.signatures[signature_key]
            if len(inputs) != len(ins.sizes):
                raise LiteRtError(f"signature {signature_key!r} takes {len(ins.sizes)} inputs, got {len(inputs)}")
            for index, data in enumerate(inputs):
                self._fill(ins, index, data, signature.inputs[index])
            if outs.strings:
                return self._run_to_strings(signature, runner)
            runner.run()
            if runner.late:
                self._check_late(signature, runner)
            return [view.tobytes() for view in outs.views]

    def runner(self, signature_key: str, batch: int) -> SignatureRunner:
        """One signature made ready for batches of one size, for a caller who shares the model with nobody.

        It works until the model is closed or made ready for another size. Runs are not queued behind the model's lock,
        and the views of its buffers must not be used after that.

        Args:
            signature_key: which entry point.
            batch: see `run`.

        Raises:
            LiteRtError: unknown signature, one with string tensors, or the runtime's own failure.
        """
        with self._lock:
            runner = self._runner(signature_key, batch)
            if runner.ins.strings or runner.outs.strings:
                raise LiteRtError(f"signature {signature_key!r} has string tensors, whose buffers change with each run")
            return runner

    def close(self) -> None:
        """Release all native memory; safe to call twice. The model cannot run afterwards."""
        with self._lock:
            for runner in self._runners.values():
                runner.close()
            self._runners.clear()
            self._library.destroy("CompiledModel", self._compiled)
            self._library.destroy("Model", self._model)
            self._compiled, self._model = _H(), _H()
            if self._view.obj:
                ctypes.pythonapi.PyBuffer_Release(ctypes.byref(self._view))

    def __enter__(self) -> CompiledModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_view", None) is not None:
            self.close()

    def _check_identifier(self) -> None:
        """Refuse what is plainly something else before the library parses it."""
        if self._view.len < 8 or ctypes.string_at(self._view.buf + 4, 4) != b"TFL3":
            raise LiteRtError(f"not a TFLite model: {self._view.len} bytes without the identifier TFL3 at offset 4")

    def _compile(self, num_threads: int) -> None:
        library = self._library
        options = library.get("CreateOptions", _H())
        try:
            library.call("SetOptionsHardwareAccelerators", options, _CPU)
            if num_threads > 1:
                # The C library frees the payload itself: it must come from its own allocator, not from Python's.
                libc = ctypes.CDLL(None)
                libc.strdup.restype = _H
                payload = libc.strdup(b"num_threads = %d\n" % num_threads)
                opaque = library.get("CreateOpaqueOptions", _H(), b"xnnpack", payload, ctypes.cast(libc.free, _H))
                library.call("AddOpaqueOptions", options, opaque)
            library.get("CreateCompiledModel", self._compiled, library.environment, self._model, options)
        finally:
            library.destroy("Options", options)

    def _read_signatures(self) -> list[Signature]:
        library = self._library
        signatures = []
        for index in range(library.get("GetNumModelSignatures", _N(), self._model).value):
            handle = library.get("GetModelSignature", _H(), self._model, index)
            key = library.get("GetSignatureKey", ctypes.c_char_p(), handle).value.decode()
            inputs, sources = self._read_specs(handle, "Input")
            outputs, results = self._read_specs(handle, "Output")
            signatures.append(Signature(key, index, inputs, outputs, _shared(sources, results, outputs)))
        return signatures

    def _read_specs(self, signature: Any, side: str) -> tuple[tuple[TensorSpec, ...], list[int]]:
        """The tensors of one side of a signature, and what tells one tensor from another."""
        library = self._library
        specs, tensors = [], []
        for index in range(library.get(f"GetNumSignature{side}s", _N(), signature).value):
            name = library.get(f"GetSignature{side}Name", ctypes.c_char_p(), signature, index).value.decode()
            tensor = library.get(f"GetSignature{side}TensorByIndex", _H(), signature, index)
            ranked = library.get("GetRankedTensorType", _RankedTensorType(), tensor)
            dtype = _DTYPE_OF_ELEMENT.get(ranked.element_type)
            if dtype is None:
                raise LiteRtError(f"{side.lower()} {name!r} has element type {ranked.element_type}: none that is known")
            quantization = None
            if library.get("GetQuantizationTypeId", _I(), tensor).value == _PER_TENSOR:
                scheme = library.get("GetPerTensorQuantization", _PerTensorQuantization(), tensor)
                quantization = Quantization(scheme.scale, scheme.zero_point)
            specs.append(TensorSpec(name, dtype, _shape(ranked.layout), quantization))
            tensors.append(tensor.value)
        return tuple(specs), tensors

    def _signature(self, key: str) -> Signature:
        try:
            return self.signatures[key]
        except KeyError:
            raise LiteRtError(f"no signature {key!r}; the model has {', '.join(self.signatures)}") from None

    def _runner(self, signature_key: str, batch: int) -> SignatureRunner:
        """The signature's runner, the model resized to the batch size when it stood at another one."""
        if not self._compiled:
            raise LiteRtError("the model was closed")
        runner = self._runners.get(signature_key)
        if runner is not None and runner.batch == batch:
            return runner
        signature = self._signature(signature_key)
        if batch > 1 and not any(spec.batched for spec in signature.inputs):
            raise LiteRtError(f"signature {signature.key!r} has no batch dimension: it takes 1 row, got {batch}")
        if runner is not None:
            del self._runners[signature_key]
            runner.close()
        for index, spec in enumerate(signature.inputs):
            if spec.batched:
                shape = (ctypes.c_int * len(spec.shape))(batch, *spec.shape[1:])
                self._library.call(
                    "CompiledModelResizeInputTensor", self._compiled, signature.index, index, shape, len(shape)
                )
        ins = _Buffers(self._library, [_ranked_type(spec, batch) for spec in signature.inputs])
        try:
            outs, late = self._make_outputs(signature, batch, ins)
        except BaseException:
            ins.close()
            raise
        runner = SignatureRunner(self._library, self._compiled, signature, batch, ins, outs)
        runner.late = late
        self._runners[signature_key] = runner
        return runner

    def _make_outputs(self, signature: Signature, batch: int, ins: _Buffers) -> tuple[_Buffers, Sequence[int]]:
        """The outputs' buffers, and see `SignatureRunner.late`."""
        types, late = self._output_types(signature, batch)
        outs = _Buffers(self._library, types)
        for index, room in late.items():
            outs.place(index, outs.sizes[index], room)
        for address, size in zip(outs.addresses, outs.sizes, strict=True):
            ctypes.memset(address, 0, size)  # old memory must never leave as an answer
        # The runtime knows one buffer for each tensor: of two, it would leave one as it was.
        for index, (side, place) in signature.shared.items():
            outs.share(index, ins if side == "in" else outs, place)
        return outs, tuple(late)

    def _check_late(self, signature: Signature, runner: SignatureRunner) -> None:
        """Refuse what a run gave if it has another shape than its buffer."""
        layouts = self._output_layouts(signature, update=False)
        for index in runner.late:
            _check_shape(signature.outputs[index], layouts[index], runner.batch)

    def _run_to_strings(self, signature: Signature, runner: SignatureRunner) -> list[Any]:
        """Run a signature with string outputs, whose buffers are address space that is used as far as it is needed."""
        from litelambda_serving.litert.string_buffers import MAX_OUTPUT_BYTES, read_strings, used_bytes, why_it_failed

        outs = runner.outs
        for index in outs.strings:
            if not outs.sizes[index]:
                outs.place(index, MAX_OUTPUT_BYTES)
            outs.views[index][:4] = bytes(4)  # the runtime writes nothing for a tensor without data
        try:
            runner.run()
        except LiteRtError as error:
            raise why_it_failed(runner, error) from error
        if runner.late:
            self._check_late(signature, runner)
        outputs: list[Any] = []
        for index, spec in enumerate(signature.outputs):
            if index not in outs.strings:
                outputs.append(ctypes.string_at(outs.addresses[index], outs.sizes[index]))
                continue
            outputs.append(read_strings(outs.views[index], outs.strings[index], spec.name))
            if used_bytes(outs.views[index]) > _KEPT_STRING_BYTES:
                outs.place(index, MAX_OUTPUT_BYTES)
        return outputs

    def _output_types(self, signature: Signature, batch: int) -> tuple[list[_RankedTensorType], dict[int, int]]:
        """Output types at this batch size; refused where the runtime's own sizes differ, which would corrupt memory.

        But what is computed after a string tensor is only resized while it runs. Until then the runtime holds buffers
        against the size of the run before: such outputs come by index, with the bytes that it asks for.
        """
        after_strings = any(not spec.dtype.itemsize for spec in (*signature.inputs, *signature.outputs))
        types, late = [], {}
        layouts = self._output_layouts(signature, update=True)
        for index, (spec, layout) in enumerate(zip(signature.outputs, layouts, strict=True)):
            if not spec.dtype.itemsize:
                # What is read is checked against the shape.
                types.append(_ranked_type(spec, batch))
                continue
            ranked_type = _RankedTensorType(spec.dtype.element_type, layout)
            if after_strings and _shape(layout) != _full_shape(spec, batch):
                late[index] = _num_values(ranked_type) * spec.dtype.itemsize
                types.append(_ranked_type(spec, batch))
                continue
            _check_shape(spec, layout, batch)
            types.append(ranked_type)
        return types, late

    def _output_layouts(self, signature: Signature, *, update: bool) -> ctypes.Array[_Layout]:
        layouts = (_Layout * len(signature.outputs))()
        self._library.call(
            "GetCompiledModelOutputTensorLayouts", self._compiled, signature.index, len(layouts), layouts, update
        )
        return layouts

    @staticmethod
    def _fill(buffers: _Buffers, index: int, data: Input, spec: TensorSpec) -> None:
        if index in buffers.strings:
            _fill_strings(buffers, index, data, spec)
            return
        if isinstance(data, list):
            raise LiteRtError(f"input {spec.name!r} takes the bytes of {spec.dtype.name} values, got a list")
        source = memoryview(data)
        if source.nbytes != buffers.sizes[index]:
            raise LiteRtError(f"input {spec.name!r} takes {buffers.sizes[index]} bytes, got {source.nbytes}")
        # One copy, from wherever the bytes lie (a slice of the request's body) to where the runtime reads them.
        buffers.views[index][:] = source if source.format == "B" and source.ndim == 1 else source.cast("B")


def _shared(sources: list[int], results: list[int], outputs: Sequence[TensorSpec]) -> dict[int, tuple[str, int]]:
    """See `Signature.shared`; strings do not count, of which the runtime keeps a copy for each buffer."""
    shared = {}
    for index, tensor in enumerate(results):
        if outputs[index].dtype.itemsize:
            if tensor in sources:
                shared[index] = ("in", sources.index(tensor))
            elif results.index(tensor) < index:
                shared[index] = ("out", results.index(tensor))
    return shared


def _fill_strings(buffers: _Buffers, index: int, data: Input, spec: TensorSpec) -> None:
    """Hand strings to the runtime in a buffer of exactly their size, which operators take for the tensor's own."""
    if not isinstance(data, list):
        raise LiteRtError(f"input {spec.name!r} takes a list of strings, got {type(data).__name__}")
    from litelambda_serving.litert.string_buffers import encode_strings

    encoded = encode_strings(data, buffers.strings[index], spec.name)
    if buffers.sizes[index] != len(encoded):
        buffers.place(index, len(encoded))
    buffers.views[index][:] = encoded


def _view(address: int, size: int) -> memoryview:
    """Native memory as a writable buffer; valid as long as its owner keeps it."""
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B") if size else memoryview(bytearray())


def _get_buffer(source: Buffer, view: _PyBuffer) -> None:
    """Export `source`'s memory into `view`, to be given back with PyBuffer_Release."""
    get_buffer = ctypes.pythonapi.PyObject_GetBuffer
    get_buffer.argtypes = (ctypes.py_object, _H, _I)
    get_buffer(source, ctypes.byref(view), 0)  # 0 is PyBUF_SIMPLE: contiguous, read-only is enough


def _shape(layout: _Layout) -> tuple[int, ...]:
    return tuple(layout.dimensions[: layout.rank])


def _full_shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    return (batch, *spec.shape[1:]) if spec.batched else spec.shape


def _check_shape(spec: TensorSpec, layout: _Layout, batch: int) -> None:
    expected = _full_shape(spec, batch)
    if _shape(layout) != expected:
        raise LiteRtError(
            f"output {spec.name!r} has shape {list(_shape(layout))} at batch {batch}, expected "
            f"{list(expected)}: this model cannot be resized, run its rows one by one"
        )


def _ranked_type(spec: TensorSpec, batch: int) -> _RankedTensorType:
    shape = _full_shape(spec, batch)
    return _RankedTensorType(spec.dtype.element_type, _Layout(len(shape), 0, (ctypes.c_int32 * _MAX_RANK)(*shape)))


def _num_values(ranked_type: _RankedTensorType) -> int:
    count = 1
    for dimension in _shape(ranked_type.layout):
        if dimension < 0:
            raise LiteRtError(f"a dimension of {list(_shape(ranked_type.layout))} beside the batch is dynamic")
        count *= dimension
    return count
