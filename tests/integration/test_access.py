"""A function with an access policy: what each caller may ask of the deployed handler, and no way around."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litelambda.common.paths import PROJECT
from litelambda_serving.errors import SettingsError
from litelambda_serving.http import Response
from support.golden_store import golden, publish
from support.handler_client import EVENTS, Answer, Context, load_module
from support.markdown import blocks_of

ROW = {"instances": [[0.1, 0.2, 0.3, 0.4]]}
TENSOR = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.1, 0.2, 0.3, 0.4]}]}
ACTIONS = ["predict", "explain", "metadata", "repository", "admin"]
RULES = [{"callers": [f"claim:sub={action}"], "actions": [action], "models": ["tiny"]} for action in ACTIONS]
RULES += [
    {"callers": [f"claim:sub=not-{action}"], "actions": [each for each in ACTIONS if each != action], "models": ["*"]}
    for action in ACTIONS
]
RULES += [
    {"callers": ["claim:sub=owner"], "actions": ["*"], "models": ["*"]},
    {"callers": ["claim:sub=probe"], "actions": ["metadata"], "models": []},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    for name in ("tiny", "other"):
        publish(root, name, data=golden("tiny_int8"))
    return root


@pytest.fixture(scope="module")
def handler(store):
    """A function with the rules above, whose callers may load models where the rules say so; both are in memory."""
    policy = json.dumps({"rules": RULES})
    handler = load_module(store, "tiny", ACCESS_POLICY=policy, MODEL_CONTROL="explicit").handler
    assert send(handler, "owner", "GET", "/v2/models/other/ready").status == 200
    return handler


def event(subject: str, method: str, path: str, body: Any = None, **fields: Any) -> dict[str, Any]:
    """An HTTP API's event of a caller whose token has this subject; "" for one without a token."""
    sent: dict[str, Any] = json.loads((EVENTS / "http_api_v2_predict.json").read_text())
    claims = {"jwt": {"claims": {"sub": subject, "email": "someone@example.com"}, "scopes": None}}
    sent["requestContext"] |= {"authorizer": claims if subject else None}
    sent["requestContext"]["http"]["method"] = method
    return {
        **sent,
        "rawPath": path,
        "body": body if body is None or isinstance(body, str) else json.dumps(body),
        **fields,
    }


def send(handler: Any, subject: str, method: str, path: str, body: Any = None, **fields: Any) -> Answer:
    return Answer(handler(event(subject, method, path, body, **fields), Context()))


# Method, path, body, the action that it needs, and whether it is about a model or about the server.
ROUTES = [
    ("POST", "/v1/models/tiny:predict", ROW, "predict", True),
    ("POST", "/v1/models/tiny/versions/1:predict", ROW, "predict", True),
    ("POST", "/v1/models/tiny/labels/latest:predict", ROW, "predict", True),
    ("POST", "/v1/models/%74iny:predict", ROW, "predict", True),
    ("POST", "/v1/models/tiny%3Apredict", ROW, "predict", True),
    ("POST", "/v1/models/tiny:classify", {"examples": [{"x": [0.1, 0.2, 0.3, 0.4]}]}, "predict", True),
    ("POST", "/v1/models/tiny:regress", {"examples": [{"x": [0.1, 0.2, 0.3, 0.4]}]}, "predict", True),
    ("POST", "/v1/models/tiny:explain", ROW, "explain", True),
    ("POST", "/v1/models/tiny/versions/1:explain", ROW, "explain", True),
    ("GET", "/v1/models/tiny", None, "metadata", True),
    ("HEAD", "/v1/models/tiny", None, "metadata", True),
    ("GET", "/v1/models/tiny/versions/1", None, "metadata", True),
    ("GET", "/v1/models/tiny/labels/latest/metadata", None, "metadata", True),
    ("GET", "/v1/models", None, "metadata", False),
    ("POST", "/v2/models/tiny/infer", TENSOR, "predict", True),
    ("POST", "/v2/models/tiny/versions/latest/infer", TENSOR, "predict", True),
    ("POST", "/v2/models/tiny/explain", TENSOR, "explain", True),
    ("POST", "/v2/models/tiny/generate", TENSOR, "predict", True),
    ("GET", "/v2/models/tiny", None, "metadata", True),
    ("GET", "/v2/models/tiny/", None, "metadata", True),
    ("GET", "/v2/models/tiny/versions/1/ready", None, "metadata", True),
    ("GET", "/v2/models/tiny/config", None, "metadata", True),
    ("GET", "/v2/models/tiny/stats", None, "metadata", True),
    ("GET", "/v2/models/stats", None, "metadata", False),
    ("GET", "/v2", None, "metadata", False),
    ("GET", "/v2/health/live", None, "metadata", False),
    ("GET", "/v2/health/ready", None, "metadata", False),
    ("POST", "/v2/repository/index", None, "repository", False),
    ("POST", "/v2/repository/models/tiny/load", None, "repository", True),
    ("POST", "/v2/repository/models/tiny/unload", None, "repository", True),
    ("GET", "/v2/logging", None, "admin", False),
    ("GET", "/v2/systemsharedmemory/status", None, "admin", False),
    ("GET", "/", None, "metadata", False),
    ("GET", "/healthz", None, "metadata", False),
    ("GET", "/openapi.json", None, "metadata", False),
    ("GET", "/ping", None, "metadata", True),
    ("POST", "/invocations", json.dumps(ROW), "predict", True),
]


@pytest.mark.parametrize(("method", "path", "body", "action", "of_model"), ROUTES)
def test_each_route_needs_its_right(handler, capsys, method, path, body, action, of_model):
    """With it alone the route answers; with all other rights, or none, it is a 403 that says what, and a record."""
    assert send(handler, action, method, path, body).status != 403
    capsys.readouterr()
    for subject in (f"not-{action}", "nobody", ""):
        answer = send(handler, subject, method, path, body)
        assert answer.status == 403
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        (record,) = (line["audit"] for line in lines if "audit" in line)
        who = f"subject {subject}" if subject else "an anonymous caller"
        assert (record["actor"], record["outcome"]) == (who, "refused")
        if subject == f"not-{action}":
            assert (record["action"], record.get("model")) == (action, "tiny" if of_model else None)
        if method == "HEAD":
            assert answer.body == b""
            continue
        said = f"'{action}'" if subject == f"not-{action}" else "anything"
        about = " of the model 'tiny'" if of_model and subject == f"not-{action}" else ""
        assert answer.json()["error"].startswith(f"{who} is not allowed {said}{about}: ask the owner")
        assert "example.com" not in answer.body.decode()


def test_a_route_answers_as_without_a_policy(store, handler):
    """Whoever has the right gets the same bytes as from a function without a policy."""
    plain = load_module(store, "tiny").handler
    for method, path, body, action, _ in ROUTES:
        if action in ("predict", "explain") or path.endswith(("metadata", "config")):
            assert send(handler, "owner", method, path, body).body == send(plain, "", method, path, body).body


def test_another_model_is_out_of_reach(handler):
    """A right for one model is none for another, one that does not exist included: they cannot be told apart."""
    for method, path, body, action, _ in ROUTES:
        if "iny" in path:
            answers = [
                send(handler, action, method, re.sub("tiny|%74iny", name, path), body) for name in ("other", "missing")
            ]
            assert {answer.status for answer in answers} == {403}
            assert len({answer.body.replace(b"other", b"missing") for answer in answers}) == 1
    for name in ("other", "missing"):
        named = {"x-amzn-sagemaker-custom-attributes": f"tfs-model-name={name}"}
        for content_type in ("application/json", "text/csv", "application/octet-stream"):
            answer = send(
                handler, "predict", "POST", "/invocations", ROW, headers={**named, "content-type": content_type}
            )
            assert answer.status == 403


@pytest.mark.parametrize(
    ("method", "path", "action", "names"),
    [
        ("GET", "/v1/models", "metadata", lambda found: found["models"]),
        ("GET", "/healthz", "metadata", lambda found: found["models"]),
        ("GET", "/v2/models/stats", "metadata", lambda found: [each["name"] for each in found["model_stats"]]),
        ("POST", "/v2/repository/index", "repository", lambda found: [each["name"] for each in found]),
        (
            "GET", "/openapi.json", "metadata",
            lambda found: sorted({path.split("/")[3].partition(":")[0] for path in found["paths"]
                                  if re.match("/v[12]/models/(?!stats)", path)}),
        ),
    ],
)  # fmt: skip
def test_lists_show_what_one_may_see(handler, method, path, action, names):
    """Each list has the models that the caller has the list's right for, and says nothing of others."""
    for subject, expected in ((action, ["tiny"]), ("owner", ["other", "tiny"])):
        answer = send(handler, subject, method, path)
        assert names(answer.json()) == expected
        assert ("other" in answer.body.decode()) == (subject == "owner")


def test_the_server_alone(handler):
    """A rule without models is for probes and metadata of the server: no model is shown."""
    for path in ("/", "/v2/health/ready", "/v2", "/healthz", "/v1/models"):
        answer = send(handler, "probe", "GET", path)
        assert (answer.status, b"tiny" in answer.body) == (200, False)
    assert send(handler, "probe", "GET", "/v1/models/tiny").status == 403


def test_a_preflight_says_nothing_of_models(handler):
    """OPTIONS, which a browser sends without a token, answers alike for each model, there or not."""
    answers = [send(handler, "", "OPTIONS", f"/v1/models/{name}:predict") for name in ("tiny", "missing")]
    assert [(answer.status, answer.body, answer.headers) for answer in answers] == [
        (204, b"", {"content-type": "application/json", "allow": "POST, OPTIONS"})
    ] * 2


@pytest.mark.parametrize(
    "fields",
    [
        {"body": "no base64!", "isBase64Encoded": True},
        {"body": "x" * 7_000_000},
        {"headers": {"content-encoding": "br"}, "body": "x"},
        {"headers": {"content-type": "application/octet-stream"}, "body": "AAAA", "isBase64Encoded": True},
    ],
)
def test_a_body_is_not_read_for_a_caller_without_rights(handler, fields):
    """Whatever it is, the answer is about the caller."""
    assert send(handler, "nobody", "POST", "/v1/models/tiny:predict", **fields).status == 403


def test_a_route_that_asks_for_no_right_answers_no_one(store, monkeypatch):
    """What a route forgets is refused, for callers who have every right too."""
    module = load_module(store, "tiny", ACCESS_POLICY=json.dumps({"rules": RULES}))
    monkeypatch.setattr("litelambda_serving.router._answer_method", lambda *_, **__: Response(200, "secret"))
    answer = send(module.handler, "owner", "GET", "/v1/models/tiny")
    assert (answer.status, b"secret" in answer.body) == (403, False)


SENDERS = sorted(path.stem for path in EVENTS.glob("*.json") if "requestContext" in json.loads(path.read_text()))


@pytest.mark.parametrize("name", SENDERS)
def test_every_sender_is_asked(handler, name):
    """A caller whom no rule knows is refused in the form of whoever sent the event: each API, a URL, a balancer."""
    sent = json.loads((EVENTS / f"{name}.json").read_text())
    answer = handler(sent, Context())
    assert (answer["statusCode"], "tiny" in answer["body"]) == (403, False)
    if "elb" in sent["requestContext"]:
        assert answer["statusDescription"] == "403 Forbidden"


def test_an_event_that_is_not_http_is_not_answered(handler):
    """Whoever invokes the function directly with something else learns that alone."""
    for sent in ({}, [], {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": "owner"}}}}}):
        answer = handler(sent, Context())
        assert (answer["statusCode"], "not an HTTP event" in answer["body"]) == (400, True)


def test_a_wrong_policy_fails_init(store):
    """The function does not start, so that it is not open, and says what is wrong."""
    for policy, message in (('{"rules": 5}', "the key 'rules' alone"), ("access.json", "is not a file")):
        with pytest.raises(SettingsError, match=message):
            load_module(store, "tiny", ACCESS_POLICY=policy)


def test_the_policy_of_the_documentation(store):
    """The policy that the how-to page shows is one, and gives its callers what the page says."""
    (policy,) = blocks_of(PROJECT / "docs" / "how-to" / "access.md", "json")
    handler = load_module(store, "tiny", ACCESS_POLICY=policy).handler

    def status(method, path, **authorizer):
        sent = event("", method, path, ROW if method == "POST" else None)
        sent["requestContext"]["authorizer"] = authorizer
        return handler(sent, Context())["statusCode"]

    arn = "arn:aws:sts::111122223333:assumed-role/{}/session"
    shop, operations = ({"iam": {"userArn": arn.format(name)}} for name in ("shop", "operations"))
    analyst = {"jwt": {"claims": {"cognito:groups": "[analysts staff]"}}}
    asked = [("POST", "/v1/models/fruit:predict"), ("POST", "/v1/models/tiny:predict"), ("GET", "/v1/models")]
    assert [status(*each, **shop) for each in asked] == [404, 403, 200]
    assert [status(*each, **analyst) for each in asked] == [404, 200, 200]
    assert [status(*each, **operations) for each in asked] == [404, 200, 200]
    assert [status(*each) for each in asked] == [403, 403, 200]


PARTS = ["v1", "v2", "models", "tiny", "other", "missing", "versions", "labels", "1", "latest", "infer", "ready",
         "metadata", "explain", "stats", "config", "repository", "index", "load", "health", "live", "healthz", "",
         "openapi.json", "tiny:predict", "other:predict", "other%3Apredict", "oth%65r", "1:predict", "latest:explain",
         "..", "%2e%2e", "trace", "setting", "generate"]  # fmt: skip
PATHS = st.lists(st.sampled_from(PARTS), max_size=8).map(lambda parts: "/" + "/".join(parts))
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "get", "post"])
BODIES = st.sampled_from([None, json.dumps(ROW), json.dumps(TENSOR), "{", '{"ready": true}'])


@settings(max_examples=300, deadline=None)
@given(METHODS, PATHS | st.sampled_from([path for _, path, *_ in ROUTES]), BODIES, st.sampled_from(["nobody", ""]))
def test_no_event_without_a_right_is_answered(handler, method, path, body, subject):
    """Whoever has no rule at all gets a 403 for every method, path and body."""
    assert send(handler, subject, method, path, body).status == 403


@settings(max_examples=300, deadline=None)
@given(METHODS, PATHS, BODIES, st.sampled_from(ACTIONS))
def test_no_path_leads_to_another_model(handler, method, path, body, action):
    """With rights for one model, no path answers about another: not its name, and no status but a path's own."""
    answer = send(handler, action, method, path, body)
    if answer.status == 200:
        assert b'"other"' not in answer.body
        assert answer.headers.get("x-model-version") is None or "tiny" in path
    # Neither found nor missing: what is not about the caller's model is refused before anything is looked up.
    elif "tiny" not in path:
        assert answer.status in (400, 403, 405, 501)
