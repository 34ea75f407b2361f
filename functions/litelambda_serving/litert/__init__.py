"""The ctypes binding on libLiteRt.so: the only module that knows the library.

It does not know manifests, stores or protocols: the bytes of a flatbuffer in, the bytes of tensors in and out.
Declarations follow google-ai-edge/LiteRT `litert/c/*.h`, whose struct layouts are declared ABI-stable.

Thread safety: a `CompiledModel` does one run at a time, under its own lock; calls from several threads are safe and
queue. The library is called with the GIL released.
"""

from __future__ import annotations

import ctypes
import os
import sys
from _thread import allocate_lock
from math import prod

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
_WARNING = 2  # kLiteRtLogSeverityWarning: INFO writes a line per load
_MAX_RANK = 8
_DTYPE_OF_ELEMENT = {dtype.element_type: dtype for dtype in DTYPES.values()}


# The structs of the C API whose fields are all of one size are arrays of it.
_Layout = ctypes.c_int32 * (1 + 2 * _MAX_RANK)
"""`LiteRtLayout`: the rank (its upper bits say whether there are strides), the sizes, the strides."""

_RankedTensorType = ctypes.c_int32 * (2 + 2 * _MAX_RANK)
"""`LiteRtRankedTensorType`: the element type and the layout."""

_EnvironmentOptions = ctypes.c_int64 * 6
"""Two `LiteRtEnvOption`: the tag, the kind of the value and, of its union, the integer."""

_PyBuffer = ctypes.c_void_p * 10
"""CPython's `Py_buffer` (stable ABI since 3.11), which starts with the address, the owner and the length in bytes:
the address of any buffer, read-only ones included, uncopied."""


class _PerTensorQuantization(ctypes.Structure):
    _fields_ = (("scale", ctypes.c_float), ("zero_point", ctypes.c_int64))


_H = ctypes.c_void_p  # any handle, and any pointer to something
_I = ctypes.c_int
_N = ctypes.c_size_t
_TYPES: dict[str, Any] = {"p": _H, "i": _I, "n": _N, "b": ctypes.c_bool}

_FUNCTIONS = (
    "p CreateOptions",
    "pi SetOptionsHardwareAccelerators",
    "pp GetNumModelSignatures GetSignatureKey GetNumSignatureInputs GetNumSignatureOutputs GetRankedTensorType",
    "pp GetQuantizationTypeId GetPerTensorQuantization GetTensorBufferHostMemory AddOpaqueOptions",
    "ipp CreateEnvironment",
    "pnp GetModelSignature GetSignatureInputName GetSignatureOutputName",
    "pnp GetSignatureInputTensorByIndex GetSignatureOutputTensorByIndex",
    "ppnp CreateModelFromBuffer",
    "pppp CreateOpaqueOptions CreateCompiledModel",
    "pipnp CreateManagedTensorBuffer",
    "pnnpb GetCompiledModelOutputTensorLayouts",
    "pnnpn CompiledModelResizeInputTensor",
    "pnnpnp RunCompiledModel",
)
"""The C functions that return a status: what each argument is, by `_TYPES`, and the names of those that take them."""

_DESTRUCTORS = ("DestroyTensorBuffer", "DestroyCompiledModel", "DestroyOptions", "DestroyModel")


class _Library:
    """libLiteRt.so with typed functions, and the one environment that all models of the process share."""

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
            self._functions: dict[str, Callable[..., Any]] = {}
            for line in _FUNCTIONS:
                kinds, *names = line.split()
                for name in names:
                    self._bind(name, [_TYPES[kind] for kind in kinds], _I)
            for name in _DESTRUCTORS:
                self._bind(name, [_H], None)
        except (OSError, AttributeError) as error:
            raise RuntimeLibraryError(
                f"{path} is not a LiteRT runtime for this machine ({os.uname().machine}): {error}. "
                "Package for the function's architecture, or install ai-edge-litert for this one."
            ) from error
        self.environment = _H()
        options = _EnvironmentOptions(_OPTION_ACCELERATORS, _ANY_INT, _CPU, _OPTION_MIN_SEVERITY, _ANY_INT, _WARNING)
        self.call("CreateEnvironment", 2, options, ctypes.byref(self.environment))

    def _bind(self, name: str, argument_types: list[Any], result_type: Any) -> None:
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
        """`LiteRt<name>` itself, for a caller who calls it often and checks the status."""
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
    from litelambda_serving.litert.failures import failure

    return failure(name, status)


_library: _Library | None = None
_library_lock = allocate_lock()


def find_library() -> str:
    """Path of the runtime library: in the deployment package, else in the installed ai-edge-litert wheel.

    Raises:
        RuntimeLibraryError: neither has one, or the platform is not Linux or macOS.
    """
    names = {"linux": "libLiteRt.so", "darwin": "libLiteRt.dylib"}
    if sys.platform not in names:
        raise RuntimeLibraryError(f"LiteRT's C library is available for Linux and macOS, not for {sys.platform}")
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

    __slots__ = ("_batch", "_library", "_own", "_specs", "addresses", "handles", "sizes", "strings", "views")

    def __init__(self, library: _Library, specs: Sequence[TensorSpec], batch: int) -> None:
        self._library = library
        self._specs, self._batch = specs, batch
        count = len(specs)
        self.handles = (_H * count)()
        self._own: list[int | None] = [None] * count
        self.addresses, self.sizes, self.views = [0] * count, [0] * count, [memoryview(b"")] * count
        self.strings: dict[int, int] = {}
        try:
            for index, spec in enumerate(specs):
                num_values = _num_values(spec.shape_of(batch))
                if spec.dtype.itemsize:
                    self.place(index, num_values * spec.dtype.itemsize)
                else:
                    self.strings[index] = num_values
        except BaseException:
            self.close()
            raise

    def place(self, index: int, size: int, room: int = 0) -> None:
        """Make the buffer of a tensor, instead of the one it had; `room` is what the runtime asks for beyond `size`."""
        dtype, shape = self._specs[index].dtype, self._specs[index].shape_of(self._batch)
        handle = self._library.get(
            "CreateManagedTensorBuffer",
            _H(),
            self._library.environment,
            _HOST_MEMORY,
            _RankedTensorType(dtype.element_type, len(shape), *shape),
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
        get_buffer = ctypes.pythonapi.PyObject_GetBuffer
        get_buffer.argtypes = (ctypes.py_object, _H, _I)
        get_buffer(buffer, self._view, 0)  # 0 is PyBUF_SIMPLE: contiguous, read-only is enough
        try:
            address, length = self._view[0] or 0, self._view[2] or 0
            _check_identifier(address, length)
            self._library.get("CreateModelFromBuffer", self._model, self._library.environment, address, length)
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
                _fill(ins, index, data, signature.inputs[index])
            if outs.strings:
                from litelambda_serving.litert.string_buffers import run

                return run(runner, signature.outputs, lambda: self._check_late(signature, runner))
            runner.run()
            if runner.late:
                self._check_late(signature, runner)
            return [view.tobytes() for view in outs.views]

    def runner(self, signature_key: str, batch: int) -> SignatureRunner:
        """Prepare one signature for batches of one size, for a caller who does not share the model.

        It works until the model is closed or prepared for another size. Runs do not wait for the model's lock,
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
            if self._view[1]:
                ctypes.pythonapi.PyBuffer_Release(self._view)

    def __enter__(self) -> CompiledModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_view", None) is not None:
            self.close()

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
        """The tensors of one side of a signature, and the handle of each, which says whether two are the same."""
        library = self._library
        specs, tensors = [], []
        for index in range(library.get(f"GetNumSignature{side}s", _N(), signature).value):
            name = library.get(f"GetSignature{side}Name", ctypes.c_char_p(), signature, index).value.decode()
            tensor = library.get(f"GetSignature{side}TensorByIndex", _H(), signature, index)
            ranked = library.get("GetRankedTensorType", _RankedTensorType(), tensor)
            element_type, *layout = ranked
            dtype = _DTYPE_OF_ELEMENT.get(element_type)
            if dtype is None:
                raise LiteRtError(f"{side.lower()} {name!r} has element type {element_type}, which is not supported")
            quantization = None
            if library.get("GetQuantizationTypeId", _I(), tensor).value == _PER_TENSOR:
                scheme = library.get("GetPerTensorQuantization", _PerTensorQuantization(), tensor)
                quantization = Quantization(scheme.scale, scheme.zero_point)
            specs.append(TensorSpec(name, dtype, _shape(layout), quantization))
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
        ins = _Buffers(self._library, signature.inputs, batch)
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
        """The outputs' buffers, and see `SignatureRunner.late`.

        Refused where the runtime's own sizes differ, which would corrupt memory. But what is computed after a string
        tensor is only resized while it runs: until then the runtime compares buffers with the size of the run before.
        """
        after_strings = any(not spec.dtype.itemsize for spec in (*signature.inputs, *signature.outputs))
        late = {}
        layouts = self._output_layouts(signature, update=True)
        for index, (spec, layout) in enumerate(zip(signature.outputs, layouts, strict=True)):
            if not spec.dtype.itemsize or _shape(layout) == spec.shape_of(batch):
                continue  # the strings that are read are checked against the shape
            if not after_strings:
                raise _shape_failure(spec, layout, batch)
            late[index] = _num_values(_shape(layout)) * spec.dtype.itemsize
        outs = _Buffers(self._library, signature.outputs, batch)
        for index, room in late.items():
            outs.place(index, outs.sizes[index], room)
        for address, size in zip(outs.addresses, outs.sizes, strict=True):
            ctypes.memset(address, 0, size)  # old memory must never be sent as an answer
        # The runtime knows one buffer for each tensor: of two, it would leave one as it was.
        for index, (side, place) in signature.shared.items():
            outs.share(index, ins if side == "in" else outs, place)
        return outs, tuple(late)

    def _check_late(self, signature: Signature, runner: SignatureRunner) -> None:
        """Refuse what a run gave if it has another shape than its buffer."""
        layouts = self._output_layouts(signature, update=False)
        for index in runner.late:
            spec = signature.outputs[index]
            if _shape(layouts[index]) != spec.shape_of(runner.batch):
                raise _shape_failure(spec, layouts[index], runner.batch)

    def _output_layouts(self, signature: Signature, *, update: bool) -> Any:
        layouts = (_Layout * len(signature.outputs))()
        self._library.call(
            "GetCompiledModelOutputTensorLayouts", self._compiled, signature.index, len(layouts), layouts, update
        )
        return layouts


def _fill(buffers: _Buffers, index: int, data: Input, spec: TensorSpec) -> None:
    """Copy the values of an input, from wherever they lie, to where the runtime reads them."""
    if index in buffers.strings:
        from litelambda_serving.litert.string_buffers import fill

        fill(buffers, index, data, spec.name)
        return
    if isinstance(data, list):
        raise LiteRtError(f"input {spec.name!r} takes the bytes of {spec.dtype.name} values, got a list")
    source = memoryview(data)
    if source.nbytes != buffers.sizes[index]:
        raise LiteRtError(f"input {spec.name!r} takes {buffers.sizes[index]} bytes, got {source.nbytes}")
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


def _view(address: int, size: int) -> memoryview:
    """Native memory as a writable buffer; valid as long as its owner keeps it."""
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B") if size else memoryview(bytearray())


def _check_identifier(address: int, length: int) -> None:
    """Refuse what cannot be a model before the library parses it."""
    if length < 8 or ctypes.string_at(address + 4, 4) != b"TFL3":
        raise LiteRtError(f"not a TFLite model: {length} bytes without the identifier TFL3 at offset 4")


def _shape(layout: Sequence[int]) -> tuple[int, ...]:
    return tuple(layout[1 : 1 + (layout[0] & 127)])


def _shape_failure(spec: TensorSpec, layout: Sequence[int], batch: int) -> LiteRtError:
    return LiteRtError(
        f"output {spec.name!r} has shape {list(_shape(layout))} at batch {batch}, expected "
        f"{list(spec.shape_of(batch))}: this model cannot be resized, run its rows one by one"
    )


def _num_values(shape: Sequence[int]) -> int:
    if min(shape, default=0) < 0:
        raise LiteRtError(f"a dimension of {list(shape)} besides the batch is dynamic: use a static shape")
    return prod(shape)
