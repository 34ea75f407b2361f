"""The deployment package: what is in it, that it is the same every time, and that it works where Lambda puts it."""

import base64
import dataclasses
import io
import json
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer

from litelambda.commands import bytecode as bytecode_module
from litelambda.commands import package as package_module
from litelambda.commands import wheels
from litelambda.commands.package import ARCHITECTURES, MACHINES, PYTHON_VERSION, PackageResult, package
from litelambda.common.errors import PackageError, UsageError
from litelambda.common.interpreters import find_interpreter
from litelambda.common.paths import FUNCTIONS
from litelambda.data.tokenizer_training import train_tokenizer
from litelambda_serving.errors import SettingsError
from support.golden_store import golden, publish
from support.odd_texts import odd_texts

HERE = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())
ELF_MACHINES = {"x86_64": 62, "arm64": 183}

# Runs with no site-packages and nothing but the bundle; every attempt to write into it fails as on a read-only volume.
PRELUDE = """
import errno, json, os, sys
bundle = sys.argv[1]
def refuse_writing(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(bundle):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "read-only file system", arguments[0])
sys.addaudithook(refuse_writing)
sys.path.insert(0, bundle)
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PackageResult]:
    """The package of each architecture."""
    return {arch: package(arch, tmp_path_factory.mktemp(arch)) for arch in ARCHITECTURES}


def _names(result: PackageResult) -> set[str]:
    return set(zipfile.ZipFile(result.archive).namelist())


def _without_bytecode(result: PackageResult) -> set[str]:
    """What a bundle has where there is no interpreter to compile it: the sources."""
    return {re.sub(r"\.pyc$", ".py", name) for name in _names(result) if "__pycache__" not in name}


def _run(interpreter: str, bundle: Path, code: str, stdin: str = "", **environment: str) -> object:
    """Run code on the bundle alone, in a fresh interpreter; return the JSON it prints last."""
    command = [interpreter, "-I", "-S", "-c", PRELUDE + code, str(bundle)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_contents(packages: dict[str, PackageResult], arch: str) -> None:
    """The package holds the handlers, what they share, the S3 client, the runtime's library and licenses: no more."""
    serving = {path.relative_to(FUNCTIONS).as_posix() for path in (FUNCTIONS / "litelambda_serving").rglob("*.py")}
    sources = {"predict.py"} | {path for path in serving if not path.startswith("litelambda_serving/scoring/")}
    licenses = {"litelambda.txt", "obstore.txt", "obstore-crates.txt", "ai-edge-litert.txt"}
    page = FUNCTIONS / "litelambda_serving" / "page"
    texts_of_page = {
        path.relative_to(FUNCTIONS).as_posix() for path in page.iterdir() if path.suffix in (".html", ".css", ".js")
    }
    others = {"obstore/_obstore.abi3.so", "lib/libLiteRt.so", "lean-bootstrap", "litelambda_serving/amazon_trust.pem"}
    others.add(f"litelambda_serving/native/native-{MACHINES[arch]}.so")
    expected = sources | others | texts_of_page | {f"licenses/{name}" for name in licenses}
    if packages[arch].bytecode:
        expected -= serving
        expected |= {f"{path}c" for path in sources - {"predict.py"}} | {"__pycache__/predict.cpython-313.pyc"}
    assert _names(packages[arch]) == expected


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_folder_and_zip_are_the_same(packages: dict[str, PackageResult], arch: str) -> None:
    """The folder that `sam build` ships and the zip hold the same files, readable by everyone, one executable."""
    result = packages[arch]
    with zipfile.ZipFile(result.archive) as archive:
        for entry in archive.infolist():
            path = result.directory / entry.filename
            assert archive.read(entry) == path.read_bytes()
            mode = 0o100755 if path.name == "lean-bootstrap" else 0o100644
            assert entry.external_attr >> 16 == path.stat().st_mode == mode
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    on_disk = {path.relative_to(result.directory).as_posix() for path in result.directory.rglob("*") if path.is_file()}
    assert on_disk == _names(result)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nothing_heavy_inside(packages: dict[str, PackageResult], arch: str) -> None:
    """No numpy, boto3, TensorFlow, type stubs, tests or package metadata travel along."""
    unwanted = re.compile(r"numpy|boto|tensorflow|keras|pydantic|protobuf|arro3|fsspec|auth/|\.pyi$|tests?/|dist-info")
    assert not [name for name in _names(packages[arch]) if unwanted.search(name)]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_libraries_are_for_the_architecture(packages: dict[str, PackageResult], arch: str) -> None:
    """Both shared libraries are ELF files of the function's architecture, whatever machine packaged them."""
    for name in ("lib/libLiteRt.so", "obstore/_obstore.abi3.so"):
        header = (packages[arch].directory / name).read_bytes()[:20]
        assert header[:4] == b"\x7fELF"
        assert int.from_bytes(header[18:20], "little") == ELF_MACHINES[arch]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_size_budget(packages: dict[str, PackageResult], arch: str) -> None:
    """The zip stays within what was promised."""
    assert packages[arch].size_bytes == packages[arch].archive.stat().st_size
    assert packages[arch].size_bytes <= {"x86_64": 9_000_000, "arm64": 8_000_000}[arch]


def test_over_budget_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zip over the budget is refused, with the largest files named, and nothing is left behind."""
    small = {"arm64": dataclasses.replace(ARCHITECTURES["arm64"], budget_bytes=1_000_000)}
    monkeypatch.setattr(package_module, "ARCHITECTURES", small)
    with pytest.raises(PackageError, match=r"the budget is 1,000,000.*_obstore\.abi3\.so"):
        package("arm64", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_reproducible(packages: dict[str, PackageResult], tmp_path: Path) -> None:
    """Made twice, in different folders, the zip is the same byte for byte; a bundle of before is replaced."""
    again = package("x86_64", tmp_path)
    assert again.sha256 == packages["x86_64"].sha256
    (again.directory / "stray.py").touch()
    assert package("x86_64", tmp_path).sha256 == again.sha256
    assert not (again.directory / "stray.py").exists()


def test_bytecode_is_used_as_it_is(packages: dict[str, PackageResult]) -> None:
    """Bytecode is unchecked-hash, and its tracebacks name the path on Lambda."""
    result = packages["arm64"]
    if result.bytecode is None:
        pytest.skip(result.notes[0])
    for path in result.directory.rglob("*.pyc"):
        assert int.from_bytes(path.read_bytes()[4:8], "little") == 0b01, path  # hash-based, check_source unset
    interpreter = find_interpreter(PYTHON_VERSION)
    assert interpreter
    code = (
        "import marshal, sys; code = marshal.loads(open(sys.argv[1], 'rb').read()[16:]); "
        "print(code.co_filename, 'composition root' in repr(code.co_consts))"
    )
    pyc = result.directory / "__pycache__" / "predict.cpython-313.pyc"
    shown = subprocess.run([interpreter.path, "-c", code, pyc], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["/var/task/predict.py", "False"]  # its docstring is not for INIT to read


def test_without_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no matching interpreter is, the package is made without bytecode and says so."""
    monkeypatch.setattr(bytecode_module, "find_interpreter", lambda _version: None)
    result = package("arm64", tmp_path)
    assert result.bytecode is None
    assert "no bytecode" in result.notes[0]
    assert not list(result.directory.rglob("*.pyc"))


def test_code_of_its_own(packages: dict[str, PackageResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function's own code is `custom_code.py` at the root, where INIT looks for it, and all else is as without."""
    monkeypatch.setattr(bytecode_module, "find_interpreter", lambda _version: None)
    (tmp_path / "shop.py").write_text("def preprocess(rows):\n    return rows\n")
    result = package("arm64", tmp_path / "out", code=tmp_path / "shop.py")
    assert _names(result) - _without_bytecode(packages["arm64"]) == {"custom_code.py"}
    assert (result.directory / "custom_code.py").read_text() == (tmp_path / "shop.py").read_text()
    with pytest.raises(UsageError, match=r"expected a Python file \(\.py\)"):
        package("arm64", tmp_path / "out", code=tmp_path / "none.py")


def test_an_access_policy(packages: dict[str, PackageResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is `access.json` at the root, where the template has the function look; one that is wrong is not packaged."""
    monkeypatch.setattr(bytecode_module, "find_interpreter", lambda _version: None)
    policy = tmp_path / "who.json"
    policy.write_text('{"rules": [{"callers": ["*"], "actions": ["predict"], "models": ["fruit"]}]}')
    result = package("arm64", tmp_path / "out", access_policy=policy)
    assert _names(result) - _without_bytecode(packages["arm64"]) == {"access.json"}
    assert (result.directory / "access.json").read_text() == policy.read_text()
    policy.write_text('{"rules": "all"}')
    with pytest.raises(SettingsError, match="the key 'rules' alone"):
        package("arm64", tmp_path / "out", access_policy=policy)


def test_wheels_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash that no wheel has is an error that names the lock."""
    (tmp_path / "functions.txt").write_text(f"obstore==0.12.1 --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    monkeypatch.setattr(wheels, "REQUIREMENTS", tmp_path)
    with pytest.raises(PackageError, match=r"functions\.txt"):
        package("arm64", tmp_path / "out")


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    """A folder named `function` that is no bundle is not replaced."""
    (tmp_path / "function").mkdir()
    (tmp_path / "function" / "mine.py").touch()
    with pytest.raises(UsageError, match="in the way"):
        package("x86_64", tmp_path)
    assert (tmp_path / "function" / "mine.py").exists()


def test_unknown_architecture(tmp_path: Path) -> None:
    """An unknown architecture is wrong usage, and the message lists the known ones."""
    with pytest.raises(UsageError, match="x86_64, arm64"):
        package("riscv64", tmp_path)  # type: ignore[arg-type]  # the point of the test


def test_a_shim_that_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executable with the right name that does not run is no interpreter; the next one is tried."""
    for folder, script in (("shims", "exit 127"), ("other", "echo pypy 3.9.1"), ("good", "echo cpython 3.9.18")):
        (tmp_path / folder).mkdir()
        executable = tmp_path / folder / "python3.9"
        executable.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        executable.chmod(0o755)
    monkeypatch.setenv("PATH", ":".join(str(tmp_path / folder) for folder in ("shims", "other", "good")))
    found = find_interpreter("3.9")
    assert found is not None
    assert (found.path, found.version) == (tmp_path / "good" / "python3.9", "3.9.18")


on_linux = pytest.mark.skipif(
    sys.platform != "linux" or HERE is None, reason="the bundle's libraries are for Linux on x86_64 or arm64"
)


@pytest.fixture(scope="module")
def interpreter() -> str:
    """The interpreter that Lambda has; where there is none here, the package has sources, which this one reads."""
    found = find_interpreter(PYTHON_VERSION)
    return str(found.path) if found else sys.executable


@on_linux
def test_runs_from_a_read_only_folder(packages: dict[str, PackageResult], interpreter: str) -> None:
    """Read-only and without site-packages, the bundle loads its own library and client, and writes nothing."""
    assert HERE
    bundle = packages[HERE].directory
    code = """
from litelambda_serving.litert import load_library
from litelambda_serving.store import open_store
load_library()
open_store("s3://bucket/prefix")
maps = open("/proc/self/maps").read()
print(json.dumps([f"{bundle}/{name}" in maps for name in ("lib/libLiteRt.so", "obstore/_obstore.abi3.so")]))
"""
    assert _run(interpreter, bundle, code, AWS_REGION="eu-west-1") == [True, True]
    on_disk = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert on_disk == _names(packages[HERE])


@on_linux
def test_the_handler_predicts(packages: dict[str, PackageResult], interpreter: str, tmp_path: Path) -> None:
    """The packaged handler, alone, loads a model at INIT and answers a prediction."""
    assert HERE
    publish(tmp_path, "tiny", data=golden("tiny_int8"))
    event = (Path(__file__).parents[2] / "events" / "http_api_v2_predict.json").read_text(encoding="utf-8")
    code = "import predict; print(json.dumps(predict.handler(json.load(sys.stdin), None)))"
    settings = {"MODEL_STORE": tmp_path.as_uri(), "MODEL_NAME": "tiny"}
    answer = _run(interpreter, packages[HERE].directory, code, event, **settings)
    assert isinstance(answer, dict)
    assert answer["statusCode"] == 200
    (row,) = json.loads(answer["body"])["predictions"]
    assert sum(row) == pytest.approx(1, abs=0.01)


@pytest.fixture(scope="module")
def with_parts(tmp_path_factory: pytest.TempPathFactory) -> PackageResult:
    """The package of this machine's architecture with the decoder of pictures and the tokenizers."""
    return package(HERE or "x86_64", tmp_path_factory.mktemp("parts"), parts=["images", "text"])


def test_parts_are_added_to_what_was_there(packages: dict[str, PackageResult], with_parts: PackageResult) -> None:
    """Pillow without fonts and AVIF in 3.6 MB, the tokenizers' compiled module alone in 3 MB, and their licenses."""
    plain = packages[with_parts.arch]
    added = _names(with_parts) - _names(plain)
    assert _names(plain) <= _names(with_parts)
    assert {name.split("/")[0] for name in added} == {"PIL", "pillow.libs", "tokenizers", "licenses"}
    assert {"licenses/pillow/LICENSE", "licenses/tokenizers.txt", "licenses/tokenizers-crates.txt"} <= added
    assert [name for name in added if name.startswith("tokenizers/")] == ["tokenizers/tokenizers.abi3.so"]
    assert not [name for name in added if re.search("avif|freetype|harfbuzz|lcms|_imagingft", name)]
    assert with_parts.size_bytes < plain.size_bytes + 6_600_000


def test_parts_are_the_predict_functions(tmp_path: Path) -> None:
    """The batch function has every part; a part that does not exist is wrong usage."""
    with pytest.raises(UsageError, match="has every part already"):
        package("x86_64", tmp_path, "score", ["images"])
    with pytest.raises(UsageError, match="part 'sounds': expected one of images, text"):
        package("x86_64", tmp_path, parts=["sounds"])  # type: ignore[list-item]  # the point of the test


PICTURES = """
import base64, io
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
pictures = {name: io.BytesIO(base64.b64decode(text)) for name, text in json.load(sys.stdin).items()}
pixels = {name: Image.open(file).convert("RGB").resize((1, 1)).getpixel((0, 0)) for name, file in pictures.items()}
print(json.dumps(pixels))
"""


@on_linux
def test_the_handler_answers_a_picture(with_parts: PackageResult, tmp_path: Path) -> None:
    """With the part, the packaged handler loads the decoder at INIT of a model of pictures and answers a JPEG."""
    interpreter = find_interpreter(PYTHON_VERSION)
    if interpreter is None:
        pytest.skip(f"there is no CPython {PYTHON_VERSION} here")
    document = {"kind": "image", "scale": 0.5, "offset": 0.0}
    publish(tmp_path, "photos", data=golden("image_2x3"), format_version=2, preprocessing={"image": document})
    stream = io.BytesIO()
    Image.new("RGB", (30, 20), (200, 100, 0)).save(stream, "JPEG")
    event = json.loads((Path(__file__).parents[2] / "events" / "http_api_v2_predict_base64.json").read_bytes())
    event["rawPath"] = event["requestContext"]["http"]["path"] = "/v1/models/photos:predict"
    event["headers"] = {"content-type": "image/jpeg"}
    event["body"], event["isBase64Encoded"] = base64.b64encode(stream.getvalue()).decode(), True
    code = """import predict
loaded = [name in sys.modules for name in ("PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.WebPImagePlugin")]
print(json.dumps([loaded, predict.handler(json.load(sys.stdin), None)]))
"""
    settings = {"MODEL_STORE": tmp_path.as_uri(), "MODEL_NAME": "photos"}
    found = _run(str(interpreter.path), with_parts.directory, code, json.dumps(event), **settings)
    assert isinstance(found, list)
    assert found[0] == [True, True, False]
    assert found[1]["statusCode"] == 200, found[1]


@on_linux
def test_the_decoder_reads_every_format(with_parts: PackageResult) -> None:
    """On Lambda's own Python, with nothing but the bundle, pictures of all five formats are decoded."""
    interpreter = find_interpreter(PYTHON_VERSION)
    if interpreter is None:
        pytest.skip(f"there is no CPython {PYTHON_VERSION} here")
    files = {}
    for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        stream = io.BytesIO()
        Image.new("RGB", (16, 16), (200, 200, 200)).save(stream, name)
        files[name] = base64.b64encode(stream.getvalue()).decode()
    found = _run(str(interpreter.path), with_parts.directory, PICTURES, json.dumps(files))
    assert found == {name: [200, 200, 200] for name in files}


TEXTS = """
from litelambda_serving.preprocessing import open_preprocessor
from litelambda_serving.tensor import DTYPES, TensorSpec, unpack_flat
document, tokenizer, texts = json.load(sys.stdin)
spec = TensorSpec("ids", DTYPES["int32"], (-1, document["length"]))
text = open_preprocessor(spec, document, {"tokenizer.json": tokenizer.encode()})
print(json.dumps(unpack_flat(text.prepare([texts]))))
"""


@on_linux
def test_the_tokenizers_read_text(with_parts: PackageResult) -> None:
    """On Lambda's own Python, with nothing but the bundle, a text has the numbers that it has here."""
    interpreter = find_interpreter(PYTHON_VERSION)
    if interpreter is None:
        pytest.skip(f"there is no CPython {PYTHON_VERSION} here")
    texts = odd_texts(60)[8:]
    tokenizer = train_tokenizer("wordpiece", 300, texts)
    document = {"kind": "text", "field": "text", "tokenizer": "tokenizer.json", "padding": 0, "length": 32}
    sent = json.dumps([document | {"max_characters": 4096}, tokenizer.decode(), texts])
    found = _run(str(interpreter.path), with_parts.directory, TEXTS, sent)
    rows = [Tokenizer.from_buffer(tokenizer).encode(text).ids[:32] for text in texts]
    assert found == [number for row in rows for number in (*row, *[0] * (32 - len(row)))]
