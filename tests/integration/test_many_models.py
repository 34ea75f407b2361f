"""Many models behind one handler: versions, aliases, canaries, shadows, memory and reloads while requests run."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from math import inf

import numpy as np
import pytest

from litelambda.common.paths import FUNCTIONS
from litelambda_serving import openapi
from litelambda_serving.aliases import Aliases
from litelambda_serving.errors import ArtifactError, PayloadTooLargeError, StoreUnavailableError
from litelambda_serving.http import Request
from litelambda_serving.inference_protocol import repository as protocol_repository
from litelambda_serving.models import ModelRepository
from litelambda_serving.servable import size_in_memory
from litelambda_serving.store import open_store
from support.golden_store import golden, publish, set_aliases
from support.handler_client import load_module, send
from support.waiting import wait_until

PREDICT = "/v1/models/m:predict"
BODY = {"instances": [1.0, 2.0, 5.0]}
LOAD, UNLOAD = "/v2/repository/models/m/load", "/v2/repository/models/m/unload"


def publish_versions(root, *versions, name="m", **fields):
    """Versions of half_plus_two; the last is `latest`."""
    for version in versions:
        publish(root, name, version, golden("half_plus_two"), **fields)


def version_of(handler, path=PREDICT, key=None, body=BODY):
    answer = send(handler, "POST", path, body, {"X-Routing-Key": key} if key else None)
    assert answer.status == 200, answer.body
    return int(answer.headers["x-model-version"])


def test_versions_aliases_and_the_default(tmp_path):
    """A number, an alias, or nothing: then what MODEL_VERSION says of the function's own model."""
    publish_versions(tmp_path, 1, 2, 3)
    set_aliases(tmp_path, {"latest": 3, "stable": 2})
    handler = load_module(tmp_path, "m", MODEL_VERSION="1").handler
    assert version_of(handler) == 1
    assert version_of(handler, "/v1/models/m/labels/stable:predict") == 2
    assert version_of(handler, "/v1/models/m/versions/3:predict") == 3
    assert version_of(load_module(tmp_path, "m", MODEL_VERSION="stable").handler) == 2
    assert version_of(load_module(tmp_path).handler) == 3


def test_a_hundred_models_cost_init_nothing(tmp_path):
    """INIT opens, fetches and loads the same with a hundred models in the store as with one."""
    publish_versions(tmp_path / "one", 1)
    publish_versions(tmp_path / "many", 1)
    for index in range(99):
        shutil.copytree(tmp_path / "many/m", tmp_path / f"many/m{index}")
    script = (
        "import sys; opened = []\n"
        "sys.addaudithook(lambda name, arguments: opened.append(name) if name in ('open', 'os.scandir', 'os.listdir')"
        " and 'models-under-test' in str(arguments[0]) else None)\n"
        "import predict, json; print(json.dumps([opened, sorted(sys.modules)]))"
    )
    results = []
    for kind in ("one", "many"):
        (tmp_path / kind).rename(tmp_path / f"models-under-test-{kind}")
        environment = {**os.environ, "PYTHONPATH": str(FUNCTIONS), "MODEL_NAME": "m", "PYTHONDONTWRITEBYTECODE": "1"}
        environment["MODEL_STORE"] = (tmp_path / f"models-under-test-{kind}").as_uri()
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        results.append(json.loads(done.stdout))
    assert results[0] == results[1]
    assert results[0][0] == ["open"] * 3  # aliases, manifest, artifact


def test_least_recently_used_models_go(tmp_path):
    """The memory budget holds; what was used last stays, what went is loaded again when it is asked for."""
    data = golden("half_plus_two")
    for name in ("a", "b", "c"):
        publish(tmp_path, name, 1, data)
    warnings = []
    repository = ModelRepository(
        open_store(tmp_path.as_uri()), 1, memory_bytes=2 * size_in_memory(len(data)), warn=warnings.append
    )
    for name in ("a", "b", "a", "c"):
        repository.get(name)
    assert repository.loaded_names() == ["a", "c"]
    held = repository.get("a")
    repository.get("b")
    repository.get("c")
    assert repository.loaded_names() == ["b", "c"]
    held.warm_up()  # a request that still runs it is not disturbed
    assert repository.get("a") is not held
    assert repository.num_changes == 6 + 4  # versions loaded and dropped
    assert warnings == []


def test_a_canary_gets_its_share(tmp_path):
    """A tenth of the keys see the canary, each always; without a key it is chance, of the same odds."""
    publish_versions(tmp_path, 1, 2)
    set_aliases(tmp_path, {"latest": 1, "canary": {"latest": {"2": 10}}})
    handler = load_module(tmp_path, "m").handler
    versions = {key: version_of(handler, key=f"user-{key}") for key in range(400)}
    assert 20 <= Counter(versions.values())[2] <= 65
    assert versions == {key: version_of(handler, key=f"user-{key}") for key in range(400)}
    assert 0 < Counter(version_of(handler) for _ in range(400))[2] < 100
    assert {version_of(handler, "/v1/models/m/versions/1:predict") for _ in range(30)} == {1}


def test_shares_only_grow_into_each_other():
    """When a canary's share is raised, every key that saw it still does."""
    keys = [f"user-{number}" for number in range(500)]
    small, large = (Aliases({"latest": 1}, {}, {"latest": {2: share}}) for share in (10.0, 30.0))
    before = {key for key in keys if small.choose("m", "latest", key) == 2}
    assert before < {key for key in keys if large.choose("m", "latest", key) == 2}
    nobody, everybody = (Aliases({"latest": 1}, {}, {"latest": {2: share}}) for share in (0.0, 100.0))
    assert {nobody.choose("m", "latest", key) for key in keys} == {1}
    assert {everybody.choose("m", "latest", key) for key in keys} == {2}
    assert {everybody.choose("m", "latest") for _ in keys} == {2}


@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_a_broken_canary_or_shadow_fails_nobody(tmp_path, capsys, kind):
    """A version that cannot be loaded is left out, with a warning in the log."""
    publish_versions(tmp_path, 1, 2)
    (tmp_path / "m/2/model.tflite").write_bytes(b"broken")
    set_aliases(tmp_path, {"latest": 1, kind: {"latest": {"2": 100} if kind == "canary" else 2}})
    handler = load_module(tmp_path, "m").handler
    assert [version_of(handler) for _ in range(3)] == [1, 1, 1]
    warnings = [line for line in capsys.readouterr().out.splitlines() if '"WARNING"' in line]
    assert len(warnings) == 1
    assert "left out" in warnings[0]


def test_a_shadow_is_compared_and_never_returned(tmp_path, capsys):
    """The shadow runs on the same rows; the log counts where it decides otherwise, the answer is the version's own."""
    publish(tmp_path, "m", 1, golden("tiny_int8"))
    publish(tmp_path, "m", 2, golden("tiny_int8"))
    rows = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]]
    set_aliases(tmp_path, {"latest": 1})
    plain = send(load_module(tmp_path, "m").handler, "POST", PREDICT, {"instances": rows})
    set_aliases(tmp_path, {"latest": 1, "shadow": {"latest": 2}})
    shadowed = load_module(tmp_path, "m")
    capsys.readouterr()
    answer = send(shadowed.handler, "POST", PREDICT, {"instances": rows})
    assert answer.body == plain.body
    assert answer.headers["x-model-version"] == "1"
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert {name: line[name] for name in ("Version", "shadow_version", "ShadowRows", "ShadowDisagreements")} == {
        "Version": "1", "shadow_version": 2, "ShadowRows": 2, "ShadowDisagreements": 0,
    }  # fmt: skip
    assert line["shadow_max_abs_difference"] == 0


@pytest.mark.parametrize("form", ["json", "npy", "v2", "prepared"])
def test_a_shadow_prepares_raw_values_in_its_own_way(tmp_path, capsys, form):
    """Versions with other scalings each prepare the request's raw values; values that are prepared fit one only."""
    scalings = [{"kind": "numbers", "scale": scale, "offset": 0.0} for scale in (0.5, 0.25)]
    for version, scaling in enumerate(scalings, start=1):
        fields = {"format_version": 2, "preprocessing": {"x": scaling}}
        publish(tmp_path, "m", version, data=golden("half_plus_two"), **fields)
    set_aliases(tmp_path, {"latest": 1, "shadow": {"latest": 2}})
    handler = load_module(tmp_path, "m").handler
    buffer = io.BytesIO()
    np.save(buffer, np.float32([8]))
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [8]}
    body, headers = {
        "json": ({"instances": [8]}, {}),
        "npy": (buffer.getvalue(), {"Content-Type": "application/x-npy"}),
        "v2": ({"inputs": [tensor]}, {}),
        "prepared": ({"instances": [4], "prepared": True}, {}),
    }[form]
    path = "/v2/models/m/infer" if form == "v2" else PREDICT
    answer = send(handler, "POST", path, body, headers).json()
    assert (answer["outputs"][0]["data"] if form == "v2" else answer["predictions"]) == [8 * 0.5 / 2 + 2]
    log = capsys.readouterr().out
    if form == "prepared":
        assert '"shadow_error":"another preprocessing"' in log
    else:
        assert '"shadow_max_abs_difference":1.0' in log  # 8 * 0.25 / 2 + 2 is 3


def test_a_shadow_with_other_inputs_is_named_not_run(tmp_path, capsys):
    """A shadow of another signature is told of in the log."""
    publish(tmp_path, "m", 1, golden("half_plus_two"))
    publish(tmp_path, "m", 2, golden("tiny_int8"))
    set_aliases(tmp_path, {"latest": 1, "shadow": {"latest": 2}})
    assert version_of(load_module(tmp_path, "m").handler) == 1
    assert '"shadow_error":"another signature"' in capsys.readouterr().out


def test_moving_an_alias_is_a_rollback(tmp_path):
    """A moved alias is seen after its time to live, without a restart; moved back, the old version answers again."""
    publish_versions(tmp_path, 1, 2)
    handler = load_module(tmp_path, "m", ALIAS_REFRESH_SECONDS="0").handler
    assert version_of(handler) == 2
    set_aliases(tmp_path, {"latest": 1})
    wait_until(lambda: version_of(handler) == 1)
    set_aliases(tmp_path, {"latest": 2})
    wait_until(lambda: version_of(handler) == 2)


@pytest.mark.parametrize("damage", ["unreadable aliases", "no aliases", "broken version"])
def test_the_old_version_serves_while_the_new_one_cannot(tmp_path, capsys, damage):
    """Whatever is wrong with the store's new state, requests go on; when it is mended, they follow."""
    publish_versions(tmp_path, 1, 2)
    set_aliases(tmp_path, {"latest": 1})
    handler = load_module(tmp_path, "m", ALIAS_REFRESH_SECONDS="0").handler
    artifact = tmp_path / "m/2/model.tflite"
    good = artifact.read_bytes()
    if damage == "broken version":
        artifact.write_bytes(good[:-1])
        set_aliases(tmp_path, {"latest": 2})
    elif damage == "no aliases":
        (tmp_path / "m/aliases.json").unlink()
    else:
        (tmp_path / "m/aliases.json").write_text("{")
    logged = []

    def is_warned():
        assert version_of(handler) == 1
        logged.append(capsys.readouterr().out)
        return "could not be refreshed" in "".join(logged)

    wait_until(is_warned)
    assert [version_of(handler) for _ in range(50)] == [1] * 50
    artifact.write_bytes(good)
    set_aliases(tmp_path, {"latest": 2})
    wait_until(lambda: version_of(handler) == 2)


def test_young_aliases_are_not_asked_for(tmp_path):
    """Within the time to live, no request touches the store."""
    publish_versions(tmp_path, 1)
    handler = load_module(tmp_path, "m", ALIAS_REFRESH_SECONDS="3600").handler
    shutil.rmtree(tmp_path / "m")
    assert [version_of(handler) for _ in range(5)] == [1] * 5


def test_a_pinned_function_never_follows_an_alias(tmp_path):
    """With a number in MODEL_VERSION no refresh is begun."""
    publish_versions(tmp_path, 1)
    module = load_module(tmp_path, "m", MODEL_VERSION="1", ALIAS_REFRESH_SECONDS="0")
    publish_versions(tmp_path, 2)
    assert [version_of(module.handler) for _ in range(20)] == [1] * 20
    assert not module._repository._refreshes


class FrozenStore:
    """A store whose conditional reads hang, as a connection does that was frozen with its process."""

    def __init__(self, store):
        self._store = store
        self.thawed = threading.Event()
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def fetch_changed(self, key, max_bytes, tag):
        if tag:
            self.asked += 1
            self.thawed.wait(20)
            raise StoreUnavailableError("the connection died")
        return self._store.fetch_changed(key, max_bytes, tag)


class RecordedLock:
    """A lock that notes how long its taker would wait, and makes that short."""

    def __init__(self, lock):
        self._lock = lock
        self.timeouts = []

    def acquire(self, timeout):
        self.timeouts.append(timeout)
        return self._lock.acquire(timeout=0.01)

    def release(self):
        self._lock.release()


def test_a_refresh_that_a_freeze_cut_off_delays_nobody_for_long(tmp_path):
    """Requests go on beside a refresh that hangs, one waits a moment at most, and a dead one is begun again."""
    publish_versions(tmp_path, 1)
    store = FrozenStore(open_store(tmp_path.as_uri()))
    warnings = []
    repository = ModelRepository(store, 1, refresh_seconds=0, warn=warnings.append)
    repository.get("m")
    repository.get("m")
    refresh = repository._refreshes["m"]
    refresh._started += 3600
    finished = refresh._finished = RecordedLock(refresh._finished)
    for _ in range(200):
        assert repository.get("m").manifest.version == 1
    wait_until(lambda: store.asked)
    assert (store.asked, finished.timeouts) == (1, [])
    refresh._started -= 3610
    repository.get("m")
    assert finished.timeouts == [0.5]
    repository.get("m")  # another has just waited
    refresh._started -= 10
    repository.run_concurrently(1)  # a server, which is not frozen
    repository.get("m")
    assert finished.timeouts == [0.5]
    store.thawed.set()
    wait_until(lambda: warnings)
    assert "the connection died" in warnings[0]
    repository.get("m")
    wait_until(lambda: store.asked >= 2)


def test_fifty_reloads_under_load_fail_and_mix_nothing(tmp_path):
    """While an alias moves fifty times, every request is answered, whole, by one of the versions."""
    rows = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]] * 20
    models = {1: "tiny_int8", 2: "tiny_int8", 3: "tiny_int8"}
    for version, name in models.items():
        publish(tmp_path, "m", version, golden(name), labels=[f"v{version}"] * 3)
    set_aliases(tmp_path, {"latest": 1})
    # Memory for one model and a half: every move evicts and loads.
    module = load_module(tmp_path, "m", ALIAS_REFRESH_SECONDS="0", MODEL_MEMORY_MB="1", METRICS_NAMESPACE="",
                         LOG_LEVEL="ERROR")  # fmt: skip
    expected = send(module.handler, "POST", PREDICT, {"instances": rows}).body
    seen, failures, stop = Counter(), [], threading.Event()

    def load():
        while not stop.is_set():
            v1 = send(module.handler, "POST", PREDICT, {"instances": rows})
            classified = send(module.handler, "POST", "/v1/models/m:classify", {"examples": [{"x": rows[0]}] * 3})
            seen[v1.headers.get("x-model-version")] += 1
            labels = {pair[0] for row in classified.json().get("results", [[["none", 0]]]) for pair in row}
            if v1.status != 200 or v1.body != expected or labels != {f"v{classified.headers.get('x-model-version')}"}:
                failures.append((v1.status, classified.status, labels, classified.headers))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for move in range(50):
            target = move % 3 + 1
            set_aliases(tmp_path, {"latest": target})
            count = seen[str(target)]
            wait_until(lambda: seen[str(target)] > count or failures)  # noqa: B023 - waited for at once
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert set(seen) == {"1", "2", "3"}


def test_a_version_that_comes_back_must_be_the_same(tmp_path):
    """What INIT was pinned to stays pinned when the model is unloaded and loaded again."""
    digest = publish(tmp_path, "m", 1, golden("half_plus_two"))
    pin = {"MODEL_VERSION": "1", "MODEL_MANIFEST_SHA256": digest, "MODEL_CONTROL": "explicit"}
    handler = load_module(tmp_path, "m", **pin).handler
    assert version_of(handler) == 1
    manifest = tmp_path / "m" / "1" / "manifest.json"
    published = manifest.read_text()
    manifest.write_text(published + "\n")
    assert send(handler, "POST", UNLOAD, {}).status == 500  # it could not be had back
    assert version_of(handler) == 1
    manifest.write_text(published)
    assert send(handler, "POST", UNLOAD, {}).status == 200
    manifest.write_text(published + "\n")
    assert send(handler, "POST", PREDICT, BODY).status == 500
    manifest.write_text(published)
    assert version_of(handler) == 1


def test_a_pinned_function_serves_one_version_whatever_the_store_holds(tmp_path):
    """Planted versions, moved aliases and other models of the store are not found: a digest closes the world."""
    digest = publish(tmp_path, "m", 1, golden("half_plus_two"))
    module = load_module(
        tmp_path,
        "m",
        MODEL_VERSION="1",
        MODEL_MANIFEST_SHA256=digest,
        MODEL_CONTROL="explicit",
        ALIAS_REFRESH_SECONDS="0",
    )
    handler = module.handler
    publish(tmp_path, "m", 66, golden("half_plus_two"))
    publish(tmp_path, "other", 1, golden("half_plus_two"))
    set_aliases(tmp_path, {"latest": 66, "stable": 66, "canary": {"latest": {"1": 1}}})
    assert {version_of(handler) for _ in range(5)} == {1}
    assert version_of(handler, "/v1/models/m/versions/1:predict") == 1
    v2 = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]}
    refused = {
        "/v1/models/m/versions/66:predict": (BODY, 404),
        "/v1/models/m/labels/latest:predict": (BODY, 404),
        "/v1/models/m/labels/stable:predict": (BODY, 400),
        "/v1/models/other:predict": (BODY, 404),
        "/v2/models/m/versions/66/infer": (v2, 404),
        "/v2/models/other/infer": (v2, 404),
        "/v2/repository/models/other/load": ({}, 404),
    }
    found = {path: send(handler, "POST", path, body).status for path, (body, _) in refused.items()}
    assert found == {path: status for path, (_, status) in refused.items()}
    assert send(handler, "POST", "/v2/repository/models/m/load", {}).status == 200
    index = send(handler, "POST", "/v2/repository/index", "").json()
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [("m", "1", "READY")]
    assert "models/other" not in send(handler, "GET", "/openapi.json").body.decode()
    assert version_of(handler) == 1


@pytest.mark.parametrize(
    "document",
    [{"latest": 2}, {"latest": 1, "canary": {"latest": {"2": 10}}}, {"latest": 1, "shadow": {"latest": 2}}],
    ids=["target", "canary", "shadow"],
)
def test_a_version_without_a_digest_is_refused(tmp_path, capsys, document):
    """An alias that reaches a version whose manifest nobody vouched for fails INIT, and never replaces what serves."""
    publish_versions(tmp_path, 1, 2)
    set_aliases(tmp_path, {"latest": 1})
    handler = load_module(tmp_path, "m", ALIAS_REFRESH_SECONDS="0").handler
    pins = json.loads((tmp_path / "m/aliases.json").read_text())["versions"]
    set_aliases(tmp_path, {**document, "versions": {"1": pins["1"]}})
    assert version_of(handler) == 1
    wait_until(lambda: "reaches version 2, whose digest is not in 'versions'" in capsys.readouterr().out)
    assert {version_of(handler) for _ in range(20)} == {1}
    with pytest.raises(ArtifactError, match="reaches version 2, whose digest"):
        load_module(tmp_path, "m")


def test_callers_may_not_load_or_unload_by_default(tmp_path):
    """Loading and unloading by request is off until the owner turns it on; the index stays."""
    publish_versions(tmp_path, 1)
    handler = load_module(tmp_path, "m").handler
    for path in (LOAD, UNLOAD):
        answer = send(handler, "POST", path, {})
        assert answer.status == 501
        assert "Set MODEL_CONTROL=explicit" in answer.json()["error"]
    assert send(handler, "POST", "/v2/repository/index", "").status == 200
    assert version_of(handler) == 1


@pytest.mark.parametrize("damage", ["store", "aliases", "manifest", "artifact"])
def test_a_broken_store_takes_no_model_away(tmp_path, damage):
    """With explicit control, what serves is replaced by a good successor only, and kept while it cannot come back."""
    publish_versions(tmp_path, 1, 2)
    set_aliases(tmp_path, {"latest": 1})
    handler = load_module(tmp_path, "m", MODEL_CONTROL="explicit", ALIAS_REFRESH_SECONDS="3600").handler
    set_aliases(tmp_path, {"latest": 2})
    if damage == "store":
        (tmp_path / "m").rename(tmp_path / "moved")
    elif damage == "aliases":
        (tmp_path / "m/aliases.json").write_text("{")
    else:
        for version in "12":
            (tmp_path / "m" / version / ("manifest.json" if damage == "manifest" else "model.tflite")).write_bytes(b"x")
    assert send(handler, "POST", LOAD, {}).status >= 400
    assert version_of(handler) == 1
    if damage != "artifact":  # that is only known once it is fetched: the manifest of what serves is what is asked for
        assert send(handler, "POST", UNLOAD, {}).status >= 400
        assert version_of(handler) == 1


def test_load_moves_to_what_the_alias_means_now(tmp_path):
    """With explicit control, load reads the aliases again at once, and the successor serves."""
    publish_versions(tmp_path, 1, 2)
    set_aliases(tmp_path, {"latest": 1})
    handler = load_module(tmp_path, "m", MODEL_CONTROL="explicit", ALIAS_REFRESH_SECONDS="3600").handler
    set_aliases(tmp_path, {"latest": 2})
    assert version_of(handler) == 1
    assert send(handler, "POST", LOAD, {}).status == 200
    assert version_of(handler) == 2


def test_the_index_and_openapi_fit_a_response(tmp_path):
    """The index is whole or refused, the document has as many models as fit; a server without a limit has them all."""
    names = {f"model_{number}" for number in range(6)}
    for name in names:
        publish_versions(tmp_path, 1, name=name)
    said = []
    repository = ModelRepository(open_store(tmp_path.as_uri()), 1, warn=said.append)
    listing, document = Request("POST", "/v2/repository/index", {}, b""), Request("GET", "/openapi.json", {}, b"")
    listing.max_response_bytes = document.max_response_bytes = inf
    assert {each["name"] for each in json.loads(protocol_repository.index(listing, repository).body)} == names
    whole = openapi.answer(document, repository).body
    assert said == []

    listing.max_response_bytes = 500
    with pytest.raises(PayloadTooLargeError, match=r'the models take .* ask for \{"ready": true\} alone'):
        protocol_repository.index(listing, repository)
    document.max_response_bytes = len(json.dumps(whole)) // 2
    part = openapi.answer(document, repository).body
    assert len(json.dumps(part)) <= document.max_response_bytes
    described = {
        path.split("/")[3].split(":")[0] for path in json.loads(part)["paths"] if path.startswith("/v1/models/m")
    }
    assert 1 < len(described & names) < len(names)
    assert said == [f"openapi.json describes {len(described & names)} of 6 models"]
