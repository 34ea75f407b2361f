"""The function's environment."""

from __future__ import annotations

import re

import pytest
import yaml

from litelambda.common.paths import PROJECT, TEMPLATE
from litelambda_serving.errors import SettingsError
from litelambda_serving.server_settings import ServerSettings
from litelambda_serving.settings import SETTINGS, Settings

STORE = {"MODEL_STORE": "s3://bucket/models"}
DIGEST = "0" * 64


def test_defaults():
    """Only the store must be set."""
    settings = Settings.from_environment(STORE)
    assert settings.model_name == ""
    assert settings.model_version == "latest"
    assert settings.num_threads == 1
    assert settings.log_level == "INFO"
    assert settings.metrics_namespace == "litelambda"


@pytest.mark.parametrize(("memory_mb", "threads"), [("128", 1), ("1769", 1), ("3538", 2), ("10240", 5), ("odd", 1)])
def test_one_thread_for_each_whole_vcpu(memory_mb, threads):
    """Threads follow the CPU share that Lambda gives with memory."""
    settings = Settings.from_environment({**STORE, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memory_mb})
    assert settings.num_threads == threads


def test_empty_values_mean_the_default_but_for_metrics():
    """A template hands on empty parameters; an empty namespace is how metrics are turned off."""
    settings = Settings.from_environment({**STORE, "MODEL_VERSION": "", "LOG_LEVEL": "", "METRICS_NAMESPACE": ""})
    assert (settings.model_version, settings.log_level, settings.metrics_namespace) == ("latest", "INFO", "")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "MODEL_STORE is not set"),
        ({**STORE, "LOG_LEVEL": "LOUD"}, "LOG_LEVEL is 'LOUD', expected one of DEBUG"),
        ({**STORE, "NUM_THREADS": "many"}, "expected a number from 1 to 64"),
        ({**STORE, "NUM_THREADS": "0"}, "expected a number from 1 to 64"),
        ({**STORE, "BASE_PATH": "ml"}, "expected a path of letters"),
        ({**STORE, "BASE_PATH": "/a//b"}, "expected a path of letters"),
        ({**STORE, "BASE_PATH": "/a?b"}, "expected a path of letters"),
        ({**STORE, "MODEL_MANIFEST_SHA256": "abc"}, "64 hexadecimal digits"),
        ({**STORE, "MODEL_MANIFEST_SHA256": DIGEST}, "set its number"),
        ({**STORE, "MODEL_MANIFEST_SHA256": DIGEST, "MODEL_VERSION": "3"}, "set its name"),
        ({**STORE, "MODEL_CONTROL": "poll"}, "MODEL_CONTROL is 'poll', expected one of none, explicit"),
    ],
)
def test_a_wrong_environment_says_what_it_may_be(environment, message):
    """Each impossible value is refused by name, with what was expected."""
    with pytest.raises(SettingsError, match=message):
        Settings.from_environment(environment)


def test_a_digest_pins_a_numbered_version():
    """Digest and number together are accepted."""
    pinned = {**STORE, "MODEL_NAME": "m", "MODEL_VERSION": "3", "MODEL_MANIFEST_SHA256": DIGEST.upper()}
    assert Settings.from_environment(pinned).pinned == ("m", 3, DIGEST)
    assert Settings.from_environment(STORE).pinned is None


def test_template_and_docs_know_every_setting():
    """The table of docs/reference/settings.md and the template's environment are this table, no more and no less."""
    names = {setting.name for setting in SETTINGS}
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("!", lambda *_: None)
    template = yaml.load(TEMPLATE.read_text(), loader)
    variables = template["Resources"]["PredictFunction"]["Properties"]["Environment"]["Variables"]
    # The first is the runtime's to read; own code lies in the package where the function looks for it.
    assert set(variables) - {"AWS_LAMBDA_EXEC_WRAPPER"} == names - {"CUSTOM_CODE", "MODEL_DECRYPTION_KEY"}
    section = (PROJECT / "docs" / "reference" / "settings.md").read_text().partition("\n## ")[0]
    assert set(re.findall(r"^\| `([A-Z0-9_]+)`", section, re.MULTILINE)) == names


def test_vertex_names_port_and_routes():
    """AIP_HTTP_PORT is the port unless PORT is set, and each route of Vertex AI's leads to the one that answers it."""
    vertex = {"AIP_HTTP_PORT": "7080", "AIP_PREDICT_ROUTE": "/a:predict", "AIP_HEALTH_ROUTE": "/a"}
    settings = ServerSettings.from_environment(vertex)
    assert (settings.port, settings.routes) == (7080, {"/a:predict": "/invocations", "/a": "/ping"})
    assert ServerSettings.from_environment({**vertex, "PORT": "9000"}).port == 9000
    plain = ServerSettings.from_environment({})
    assert (plain.port, plain.routes) == (8080, {})
    for wrong, message in (
        ({"AIP_HTTP_PORT": "x"}, "AIP_HTTP_PORT is 'x', expected a number"),
        ({"AIP_PREDICT_ROUTE": "a"}, "AIP_PREDICT_ROUTE is 'a', expected a path that begins with '/'"),
    ):
        with pytest.raises(SettingsError, match=message):
            ServerSettings.from_environment(wrong)
