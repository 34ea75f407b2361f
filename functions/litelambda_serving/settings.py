"""The function's environment, read once at INIT: every variable, its default and its meaning in one table."""

from __future__ import annotations

from os.path import abspath, dirname, exists, join

from litelambda_serving.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SETTINGS", "TRUST_SETTINGS", "Setting", "Settings"]

_MB_PER_VCPU = 1769  # Lambda gives one vCPU at this memory size, and in proportion above and below
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_PATH_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/")
_HEX_DIGITS = frozenset("0123456789abcdef")


class Setting:
    """One environment variable.

    Attributes:
        name: the variable.
        default: what holds when it is absent; None when it must be set.
        meaning: a sentence for the reference table.
    """

    __slots__ = ("default", "meaning", "name")

    def __init__(self, name: str, default: str | None, meaning: str) -> None:
        self.name = name
        self.default = default
        self.meaning = meaning


SETTINGS = (
    Setting(
        "MODEL_STORE",
        None,
        "Store URL: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or file:///path (a path inside the "
        "package: bundled).",
    ),
    Setting(
        "MODEL_NAME", "", "Model loaded at INIT and served by default; empty loads each model on its first request."
    ),
    Setting("MODEL_VERSION", "latest", "Version number or alias of that model."),
    Setting(
        "MODEL_MANIFEST_SHA256",
        "",
        "Digest of that version's manifest, with MODEL_VERSION its number: the function serves this version of this "
        "model alone, even if the store has others, and INIT saves a round trip.",
    ),
    Setting(
        "MODEL_PUBLIC_KEY",
        "",
        "Key that versions must be signed with, or they are refused: what `litelambda keygen` prints, several with "
        "commas, or a PEM file, absolute or in the package. Empty: no signature is asked for.",
    ),
    Setting(
        "MODEL_MINIMUM_VERSION",
        "",
        "Oldest version that is served, of every model or by model (fruit=3,digits=7); older ones are refused.",
    ),
    Setting(
        "MODEL_DECRYPTION_KEY",
        "",
        "File with the key of models that were encrypted with one, absolute or in the package; keys of KMS need none.",
    ),
    Setting(
        "MODEL_MEMORY_MB",
        "",
        "Memory for all loaded models together; beyond it the least recently used go. Empty: half of the function's.",
    ),
    Setting(
        "ALIAS_REFRESH_SECONDS", "60", "Age from which on aliases are read again, in the background; 0: every request."
    ),
    Setting(
        "MODEL_CONTROL",
        "none",
        "explicit: callers may load and unload models (V2's repository extension) in the environment that answers. "
        "none: they may not.",
    ),
    Setting(
        "ACCESS_POLICY",
        "",
        "Who may do what with which model, as JSON or as its file, absolute or in the package; empty: whoever the API "
        "lets through may do everything.",
    ),
    Setting(
        "CORS_ALLOW_ORIGIN", "", "Origin whose pages may call from a browser, or * for any; empty: none is allowed."
    ),
    Setting(
        "BASE_PATH", "", "Path of a custom domain's mapping, /ml or /ml/v1, under which the API is called; empty: none."
    ),
    Setting(
        "REQUEST_STORE",
        "",
        'Where requests may lie that callers name, {"s3": "s3://bucket/prefix/key"}, instead of sending them: '
        "s3://bucket/prefix, several with commas. The function's role reads them, up to an eighth of its memory. "
        "Empty: nowhere.",
    ),
    Setting(
        "RESPONSE_STREAMING",
        "",
        "Who invokes the function with response streaming, so that answers of up to 200 MB leave in parts: "
        "function-url, rest-api, or both with a comma. Needs the lean bootstrap. Empty: answers are buffered.",
    ),
    Setting(
        "CUSTOM_CODE",
        "",
        "File with the function's own preprocess and postprocess, absolute or in the package; empty: custom_code.py in "
        "the package, where `litelambda package --code` puts it, if it is there.",
    ),
    Setting(
        "CAPTURE_STORE",
        "",
        "Where requests and answers are kept, a URL like MODEL_STORE's, in the format of SageMaker's data capture. "
        "Empty: they are not kept.",
    ),
    Setting("CAPTURE_PERCENT", "100", "Share of the predictions that is kept."),
    Setting(
        "CAPTURE_REDACT",
        "",
        "Names of fields and tensors whose values are not kept, separated by commas; a request that may have such "
        "values without names is not kept at all.",
    ),
    Setting("CAPTURE_MAX_KB", "256", "Largest request, and largest answer, that is kept."),
    Setting(
        "CAPTURE_SECONDS",
        "60",
        "Age from which on what is kept is written, after an answer was sent; 0: after every answer.",
    ),
    Setting(
        "PAGE",
        "off",
        "on: a browser that opens / gets a page to try the models in. open: the page, though not what it asks for, is "
        "also for callers whom ACCESS_POLICY gives no right. off: / answers with JSON, as it does every other client.",
    ),
    Setting(
        "DRIFT_WINDOW",
        "",
        "Requests that are counted, and then compared with the baseline of the version that answered them: whether "
        "inputs or answers have drifted. Empty: they are not counted.",
    ),
    Setting("NUM_THREADS", "", "Inference threads; empty: one per vCPU that the function's memory buys."),
    Setting(
        "LOG_LEVEL",
        "INFO",
        "DEBUG, INFO, WARNING or ERROR. DEBUG adds a trace of INIT; "
        "WARNING drops the lines of requests that did not fail, and their metrics with them.",
    ),
    Setting(
        "TRACING",
        "PassThrough",
        "Active: the parts of the requests that Lambda samples are sent to X-Ray. PassThrough: they are not.",
    ),
    Setting(
        "METRICS_NAMESPACE", "litelambda", "CloudWatch namespace of the metrics in the request lines; empty: none."
    ),
)


TRUST_SETTINGS = ("MODEL_PUBLIC_KEY", "MODEL_MINIMUM_VERSION", "MODEL_DECRYPTION_KEY")
"""Those that `litelambda_serving.trust` reads, which is imported where one of them is set."""


class Settings:
    """Validated settings.

    Attributes:
        model_store: URL of the store.
        model_name: the default model, or "".
        model_version: a version number or an alias, as text.
        manifest_sha256: lower-case hex digest, or "".
        model_memory_bytes: for all loaded models together.
        alias_refresh_seconds: >= 0.
        model_control: whether callers may load and unload models.
        access_policy: a document, the path of its file, or "".
        cors_allow_origin: an origin, "*" or "".
        base_path: "/ml", or "".
        request_store: where requests by reference may lie, prefixes without a slash at the end, or "".
        response_streaming: who invokes with response streaming, or "".
        custom_code: path of the file with the function's own code, or "".
        page: whether browsers get a page at /: "on", "open" to everyone, or "".
        num_threads: >= 1.
        log_level: one of DEBUG, INFO, WARNING, ERROR.
        tracing: whether the parts of sampled requests are sent to X-Ray.
        metrics_namespace: CloudWatch namespace, or "".
    """

    model_store: str
    model_name: str
    model_version: str
    manifest_sha256: str
    model_memory_bytes: int
    alias_refresh_seconds: float
    model_control: bool
    access_policy: str
    cors_allow_origin: str
    base_path: str
    request_store: str
    response_streaming: str
    custom_code: str
    page: str
    num_threads: int
    log_level: str
    tracing: bool
    metrics_namespace: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read and check the function's environment.

        Raises:
            SettingsError: a variable is missing or impossible; the message says what it may be.

        >>> Settings.from_environment({"MODEL_STORE": "s3://bucket", "NUM_THREADS": "2"}).num_threads
        2
        """
        values = {setting.name: environment.get(setting.name) or setting.default for setting in SETTINGS}
        if "METRICS_NAMESPACE" in environment:
            values["METRICS_NAMESPACE"] = environment["METRICS_NAMESPACE"]
        for setting in SETTINGS:
            if values[setting.name] is None:
                raise SettingsError(f"{setting.name} is not set. {setting.meaning}")
        self = cls()
        self.model_store = values["MODEL_STORE"] or ""
        self.model_name = values["MODEL_NAME"] or ""
        self.model_version = values["MODEL_VERSION"] or ""
        self.manifest_sha256 = _digest(values["MODEL_MANIFEST_SHA256"] or "", self.model_name, self.model_version)
        self.model_memory_bytes = _memory_bytes(values["MODEL_MEMORY_MB"] or "", environment)
        self.alias_refresh_seconds = _seconds(values["ALIAS_REFRESH_SECONDS"] or "")
        self.model_control = _choice("MODEL_CONTROL", values["MODEL_CONTROL"] or "", ("none", "explicit")) == "explicit"
        self.access_policy = values["ACCESS_POLICY"] or ""
        self.cors_allow_origin = _origin(values["CORS_ALLOW_ORIGIN"] or "")
        self.base_path = _base_path(values["BASE_PATH"] or "")
        self.request_store = _prefixes(values["REQUEST_STORE"] or "")
        self.response_streaming = _callers(values["RESPONSE_STREAMING"] or "")
        self.custom_code = _custom_code(values["CUSTOM_CODE"] or "")
        self.page = _choice("PAGE", values["PAGE"] or "", ("on", "open", "off")).removesuffix("off")
        self.num_threads = _num_threads(values["NUM_THREADS"] or "", environment)
        self.log_level = _choice("LOG_LEVEL", (values["LOG_LEVEL"] or "").upper(), _LOG_LEVELS)
        self.tracing = _choice("TRACING", values["TRACING"] or "", ("PassThrough", "Active")) == "Active"
        self.metrics_namespace = values["METRICS_NAMESPACE"] or ""
        return self

    @property
    def pinned(self) -> tuple[str, int, str] | None:
        """Name, version and manifest digest of the only model that may be served; None where none is pinned."""
        return (self.model_name, int(self.model_version), self.manifest_sha256) if self.manifest_sha256 else None


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
    return value


def _digest(value: str, model: str, version: str) -> str:
    value = value.lower()
    if value and (len(value) != 64 or not _HEX_DIGITS.issuperset(value)):
        raise SettingsError(f"MODEL_MANIFEST_SHA256 is {value!r}, expected 64 hexadecimal digits")
    if value and not version.isdecimal():
        raise SettingsError(
            f"MODEL_MANIFEST_SHA256 pins one version, but MODEL_VERSION is the alias {version!r}: set its number"
        )
    if value and not model:
        raise SettingsError("MODEL_MANIFEST_SHA256 pins one model, but MODEL_NAME is not set: set its name")
    return value


def _memory_bytes(value: str, environment: Mapping[str, str]) -> int:
    if value:
        if not value.isdecimal() or not 1 <= int(value) <= 10240:
            raise SettingsError(f"MODEL_MEMORY_MB is {value!r}, expected a number from 1 to 10240")
        return int(value) << 20
    memory_mb = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return (int(memory_mb) if memory_mb.isdecimal() else _MB_PER_VCPU) << 19


def _seconds(value: str) -> float:
    digits = value.replace(".", "", 1)
    if not digits.isdecimal() or not 0 <= float(value) <= 86400:
        raise SettingsError(f"ALIAS_REFRESH_SECONDS is {value!r}, expected a number from 0 to 86400")
    return float(value)


def _origin(value: str) -> str:
    if value and value != "*" and (not value.startswith(("https://", "http://")) or not value.isprintable()):
        raise SettingsError(f"CORS_ALLOW_ORIGIN is {value!r}, expected '*', 'https://host' or an empty value")
    return value


def _base_path(value: str) -> str:
    path = value.rstrip("/")
    if path and (not path.startswith("/") or "//" in path or not _PATH_CHARACTERS.issuperset(path)):
        raise SettingsError(f"BASE_PATH is {value!r}, expected a path of letters, digits, '_', '.', '-' and '/': /ml")
    return path


def _prefixes(value: str) -> str:
    prefixes = [each.rstrip("/") for each in value.split(",")] if value else []
    for each in prefixes:
        bucket, slash, folder = each.removeprefix("s3://").partition("/")
        if not each.startswith("s3://") or not bucket or not slash or {"", ".", ".."}.intersection(folder.split("/")):
            raise SettingsError(f"REQUEST_STORE has {each!r}, expected s3://bucket/prefix, several with commas")
    return ",".join(prefixes)


def _callers(value: str) -> str:
    if not {"function-url", "rest-api", ""}.issuperset(value.split(",")):
        raise SettingsError(f"RESPONSE_STREAMING is {value!r}, expected function-url, rest-api, or both with a comma")
    return value


def _custom_code(value: str) -> str:
    path = join(dirname(dirname(abspath(__file__))), value or "custom_code.py")
    if exists(path):
        return path
    if value:
        raise SettingsError(
            f"CUSTOM_CODE is {value!r}, but {path} is not a file: package the function with --code, or set an "
            "absolute path"
        )
    return ""


def _num_threads(value: str, environment: Mapping[str, str]) -> int:
    if value:
        if not value.isdecimal() or not 1 <= int(value) <= 64:
            raise SettingsError(f"NUM_THREADS is {value!r}, expected a number from 1 to 64")
        return int(value)
    memory_mb = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return max(1, int(memory_mb) // _MB_PER_VCPU) if memory_mb.isdecimal() else 1
