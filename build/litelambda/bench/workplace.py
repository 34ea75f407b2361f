"""Where contenders are unpacked and started: a temporary folder, an interpreter, and an S3 that has the model."""

from __future__ import annotations

import compileall
import platform
import py_compile
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import obstore
import PIL

from litelambda.bench.contenders import (
    BUCKET,
    FLATBUFFER_KEY,
    ONNX_KEY,
    PREFIX,
    SEALED_PREFIX,
    TASK_ROOT,
    TOKENIZER_KEY,
    Contender,
)
from litelambda.bench.emulator.environment import Environment, lambda_environ, make_interpreter
from litelambda.bench.emulator.object_store import LoopbackS3
from litelambda.bench.peers import convert_to_onnx, make_peer_environment
from litelambda.bench.sealed import Sealed, seal
from litelambda.bench.subject import Subject
from litelambda.commands.bundle import copy_sources
from litelambda.commands.bytecode import load_optimized
from litelambda.common.errors import BenchError
from litelambda.common.extras import require_extra
from litelambda_serving.litert import find_library

_HANDLERS = Path(__file__).parent / "handlers"


def require_runtime() -> None:
    """Check that the real runtime client and what the peer handlers import can run here.

    Raises:
        BenchError: this is not Linux.
        UsageError: a package is missing; the message says what to install.
    """
    if not sys.platform.startswith("linux"):
        raise BenchError(
            f"the benchmarks start Lambda's own runtime client, which runs on Linux only, not {sys.platform}"
        )
    require_extra("bench")


class Workplace:
    """Unpacks each package once, on first use; a context manager that removes what it made.

    Args:
        subject: the model to serve.
        package: an unpacked deployment package to use as it is, instead of the sources; one that has no bytecode for
            this interpreter is compiled in a copy, and a note says so.
        latency_ms: time to first byte of the S3.
        bytes_per_second: bandwidth of each of its streams, or None.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        package: Path | None = None,
        latency_ms: float = 0.0,
        bytes_per_second: float | None = None,
    ) -> None:
        if package is not None and not (package / "predict.py").is_file():
            raise BenchError(f"--package {package} has no predict.py: expected an unpacked deployment package")
        self._subject = subject
        self._package = package.resolve() if package else None
        self.notes: list[str] = []
        self._trees: dict[str, Path] = {}
        self._sealed: Sealed | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="litelambda-bench-")
        self._directory = Path(self._folder.name)
        self._python = make_interpreter(self._directory / "python")
        objects = {f"{BUCKET}/{PREFIX}/{key}": data for key, data in subject.objects.items()}
        objects[f"{BUCKET}/{FLATBUFFER_KEY}"] = subject.artifact
        if subject.text:
            objects[f"{BUCKET}/{TOKENIZER_KEY}"] = subject.tokenizer
        self._s3 = LoopbackS3(objects, latency_ms=latency_ms, bytes_per_second=bytes_per_second)

    def prepare(self, contenders: Sequence[Contender]) -> list[Contender]:
        """Make what contenders need of their own; those that cannot have it are left out, and a note says why."""
        able = []
        for contender in contenders:
            try:
                if contender.environment:
                    make_peer_environment(*contender.environment)
                if contender.settings.get("MODEL_KEY") == ONNX_KEY:
                    self._s3.add(f"{BUCKET}/{ONNX_KEY}", convert_to_onnx(self._subject.artifact))
            except BenchError as error:
                self.notes.append(f"without {contender.name}: {error}")
            else:
                able.append(contender)
        return able

    def start(self, contender: Contender, *, cache_bytecode: bool = False) -> Environment:
        """Start a contender and wait until it is ready.

        Args:
            contender: which one.
            cache_bytecode: whether Python may write bytecode beside what it imports, as an installer would have done.
                A deployed function never can, and a user's package is never written to.

        Raises:
            BenchError: INIT failed.
        """
        tree = self._tree(contender.package)
        extra = {name: value.replace(TASK_ROOT, str(tree)) for name, value in contender.settings.items()}
        if contender.sealed:
            extra |= self._seal()
        extra["AWS_ENDPOINT_URL_S3"] = self._s3.url
        if tree == self._package or not cache_bytecode:
            extra["PYTHONDONTWRITEBYTECODE"] = "1"
        python = self._python
        if contender.environment:
            python, extra["PYTHONPATH"] = make_peer_environment(*contender.environment), ""
        command = [str(python), "-m", "awslambdaric", contender.handler]
        if contender.wrapper:
            extra["AWS_LAMBDA_EXEC_WRAPPER"] = str(tree / contender.wrapper)
            command.insert(0, extra["AWS_LAMBDA_EXEC_WRAPPER"])
        environ = lambda_environ(contender.handler, tree, extra)
        try:
            return Environment(command, tree, environ, self._directory / f"{contender.name}.log")
        except BenchError as error:
            raise BenchError(f"{contender.name}: {error}") from error

    def _seal(self) -> Mapping[str, str]:
        """The settings of who serves the model signed and encrypted, which is made on first use."""
        if self._sealed is None:
            self._sealed = seal(self._subject, self._directory)
            for key, data in self._sealed.objects.items():
                self._s3.add(f"{BUCKET}/{SEALED_PREFIX}/{key}", data)
        return self._sealed.settings

    def _tree(self, package: str) -> Path:
        if package not in self._trees:
            self._trees[package] = self._unpack(package)
        return self._trees[package]

    def _unpack(self, package: str) -> Path:
        target = self._directory / package
        if package == "bundled":
            shutil.copytree(self._tree("functions"), target, symlinks=True)
            for key, data in self._subject.objects.items():
                path = target / "models" / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            return target
        if package == "functions":
            if self._package and _has_bytecode(self._package):
                return self._package
            if self._package:
                tag = sys.implementation.cache_tag
                self.notes.append(f"the package has no bytecode for {tag}: measured this version's code instead")
                shutil.copytree(self._package, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
                copy_sources("predict", target, platform.machine())
            else:
                copy_sources("predict", target, platform.machine())
                _link_installed(target)
        else:
            target.mkdir()
            shutil.copy(_HANDLERS / f"{package}.py", target)
        return _compile(target, optimize=2 if package == "functions" else 0)

    def __enter__(self) -> Self:
        self._s3.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._s3.__exit__(*error)
        self._folder.cleanup()


def _link_installed(tree: Path) -> None:
    """Put what the package would hold beside the sources: the installed obstore, tokenizers, Pillow, the library."""
    decoder = Path(PIL.__file__).parent
    folders = [Path(obstore.__file__).parent, decoder, decoder.with_name("pillow.libs")]
    if (tokenizers := find_spec("tokenizers")) is not None and tokenizers.origin:
        folders.append(Path(tokenizers.origin).parent)
    for folder in folders:
        (tree / folder.name).symlink_to(folder, target_is_directory=True)
    library = Path(find_library())
    (tree / "lib").mkdir()
    (tree / "lib" / library.name).symlink_to(library)


def _has_bytecode(tree: Path) -> bool:
    return (tree / "__pycache__" / f"predict.{sys.implementation.cache_tag}.pyc").is_file()


def _compile(tree: Path, optimize: int) -> Path:
    """Add bytecode that is never checked against its source, as the deployment package has it."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(tree, quiet=2, invalidation_mode=mode, optimize=optimize):
        raise BenchError(f"a module of {tree} cannot be compiled by {sys.implementation.cache_tag}")
    load_optimized(tree)
    return tree
