"""Access policies: which callers a rule knows, what it gives them, and what is not a policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litelambda_serving.access import ACTIONS, MAX_POLICY_CHARACTERS, Policy
from litelambda_serving.errors import AccessDeniedError, SettingsError

EVENTS = Path(__file__).parents[2] / "events"
SESSION = "arn:aws:sts::123456789012:assumed-role/client/client"
ROLE = "arn:aws:iam::123456789012:role/client"
CLAIMS = {
    "sub": "8a2f",
    "iss": "https://issuer.example",
    "scope": "models/predict models/read",
    "cognito:groups": "[analysts owners]",
    "email": "someone@example.com",
}


def event(name, **context):
    """An event of tests/events, with further fields of its context."""
    loaded = json.loads((EVENTS / f"{name}.json").read_text())
    loaded["requestContext"] |= context
    return loaded


def policy(*callers, actions=("predict",), models=("fruit",)):
    return Policy({"rules": [{"callers": list(callers), "actions": list(actions), "models": list(models)}]})


IAM_V2 = event("http_api_v2_predict")
FUNCTION_URL = event("function_url_predict")
JWT_V2 = event("http_api_v2_predict", authorizer={"jwt": {"claims": CLAIMS, "scopes": ["models/admin"]}})
LAMBDA_V2 = event("http_api_v2_predict", authorizer={"lambda": {"sub": "8a2f", "tier": "gold"}})
IAM_V1 = event("rest_v1_predict")
KEY_V1 = event("rest_v1_predict", identity={"apiKeyId": "k3yid", "apiKey": "the secret", "userArn": None})
JWT_V1 = event("rest_v1_predict", authorizer={"claims": CLAIMS, "scopes": ["models/admin"]}, identity={})
LAMBDA_V1 = event("rest_v1_predict", authorizer={"principalId": "8a2f", "tier": "gold", "latency": 3}, identity={})
ALB = event("alb_predict")


@pytest.mark.parametrize(
    ("sent", "caller", "known"),
    [
        (IAM_V2, SESSION, True),
        (IAM_V2, ROLE, True),
        (IAM_V2, ROLE.replace("role/", "role/apps/team/"), True),
        (IAM_V2, ROLE.replace("123456789012", "210987654321"), False),
        (IAM_V2, ROLE.replace("client", "client2"), False),
        (IAM_V2, ROLE.replace("role/", "user/"), False),
        (IAM_V2, SESSION.replace("client/client", "client/other"), False),
        (IAM_V1, ROLE, True),
        (event("function_url_predict", authorizer={"iam": {"userArn": SESSION}}), ROLE, True),
        (event("http_api_v2_predict", authorizer={"iam": {"userArn": SESSION + "/role/boss"}}), ROLE, False),
        (event("http_api_v2_predict", identity={"userArn": SESSION}, authorizer=None), ROLE, False),
        (event("http_api_v2_predict", authorizer={"claims": CLAIMS}), "claim:sub=8a2f", False),
        (JWT_V2, "claim:sub=8a2f", True),
        (JWT_V2, "claim:sub=8a2", False),
        (JWT_V2, "claim:email=8a2f", False),
        (JWT_V2, "claim:cognito:groups=owners", True),
        (JWT_V2, "claim:cognito:groups=own", False),
        (JWT_V2, "scope:models/read", True),
        (JWT_V2, "scope:models/admin", False),  # the route's, not the token's
        (JWT_V2, ROLE, False),
        (JWT_V1, "claim:sub=8a2f", True),
        (JWT_V1, "scope:models/admin", False),
        (LAMBDA_V2, "claim:tier=gold", True),
        (LAMBDA_V1, "claim:principalId=8a2f", True),
        (LAMBDA_V1, "claim:tier=gold", True),
        (KEY_V1, "api-key:k3yid", True),
        (KEY_V1, "api-key:the", False),
        (event("http_api_v2_predict", identity={"apiKeyId": "k3yid"}), "api-key:k3yid", False),
        (event("alb_predict", authorizer={"claims": CLAIMS}, identity={"userArn": SESSION}), ROLE, False),
        (ALB, "*", True),
        (IAM_V2, "*", True),
    ],
)
def test_whom_a_rule_knows(sent, caller, known):
    """The signer's ARN or its role's, a token's claims and scopes, a key's identifier: verified, and as a whole."""
    assert policy(caller).rights_of(sent).has("predict", "fruit") is known


@given(st.dictionaries(st.sampled_from(["authorization", "x-api-key", "x-amzn-oidc-data", "scope"]), st.text()))
def test_headers_say_nothing_of_the_caller(headers):
    """What a client can write itself gives no right."""
    sent = {**event("alb_predict"), "headers": {**headers, "x-amzn-oidc-identity": "8a2f", "sub": "8a2f"}}
    assert not policy("claim:sub=8a2f", ROLE, "api-key:k3yid").rights_of(sent)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_right_is_for_one_action_and_the_models_named(action):
    """Nothing else comes with it; `*` stands for all of a kind."""
    rights = policy(ROLE, actions=[action]).rights_of(IAM_V2)
    assert [each for each in ACTIONS if rights.has(each, "fruit")] == [action]
    assert not rights.has(action, "digits")
    assert rights.has(action)  # of the server itself
    assert policy(ROLE, actions=["*"]).rights_of(IAM_V2).has(action, "fruit")
    assert policy(ROLE, actions=[action], models=["*"]).rights_of(IAM_V2).has(action, "digits")
    server = policy(ROLE, actions=[action], models=[]).rights_of(IAM_V2)
    assert (server.has(action), server.has(action, "fruit")) == (True, False)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (IAM_V2, SESSION),
        (JWT_V2, "subject 8a2f"),
        (LAMBDA_V1, "subject 8a2f"),
        (KEY_V1, "API key k3yid"),
        (event("http_api_v2_predict", authorizer={"jwt": {"claims": {"email": "x@y.z"}}}), "a token without a subject"),
        (ALB, "an anonymous caller"),
    ],
)
def test_a_refusal_names_caller_action_and_model(sent, shown):
    """And no claim but the token's subject."""
    with pytest.raises(AccessDeniedError) as caught:
        policy("claim:nobody=1").rights_of(sent).check("predict", "fruit")
    assert str(caught.value).startswith(f"{shown} is not allowed 'predict' of the model 'fruit': ")
    assert (caught.value.caller, caught.value.action, caught.value.model) == (shown, "predict", "fruit")
    assert not [value for name, value in CLAIMS.items() if name != "sub" and value in str(caught.value)]


RULE = {"callers": ["*"], "actions": ["predict"], "models": ["fruit"]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is not JSON"),
        ("{" * 100_000, "takes more than 65536 characters"),
        ('{"rules":' + "[" * 60_000, "is not JSON"),
        ({}, "the key 'rules' alone"),
        ({"rules": {}}, "the key 'rules' alone"),
        ({"rules": [], "version": 1}, "the key 'rules' alone"),
        ({"rules": [RULE, "x"]}, "rule 2: expected an object"),
        ({"rules": [{**RULE, "effect": "deny"}]}, "rule 1: expected an object with exactly the keys"),
        ({"rules": [{"callers": ["*"], "actions": ["predict"]}]}, "rule 1: expected an object with exactly the keys"),
        ({"rules": [{**RULE, "callers": []}]}, "rule 1: 'callers': expected a list of texts, not empty"),
        ({"rules": [{**RULE, "callers": "*"}]}, "rule 1: 'callers': expected a list of texts"),
        ({"rules": [{**RULE, "callers": [ROLE + "*"]}]}, "is not one, expected '\\*', an ARN"),
        ({"rules": [{**RULE, "callers": ["arn:aws:s3:::bucket"]}]}, "is not one"),
        ({"rules": [{**RULE, "callers": ["claim:sub"]}]}, "is not one"),
        ({"rules": [{**RULE, "callers": ["claim:=x"]}]}, "is not one"),
        ({"rules": [{**RULE, "callers": ["scope:a b"]}]}, "is not one"),
        ({"rules": [{**RULE, "callers": ["somebody"]}]}, "is not one"),
        ({"rules": [{**RULE, "actions": ["predictt"]}]}, "has 'predictt', expected predict, explain, metadata"),
        ({"rules": [{**RULE, "actions": [1]}]}, "'actions': expected a list of texts"),
        ({"rules": [{**RULE, "models": ["fru*"]}]}, "has 'fru\\*', expected names of models or '\\*'"),
        ({"rules": [{**RULE, "models": ["../x"]}]}, "expected names of models"),
    ],
)
def test_what_is_not_a_policy_is_refused(document, message):
    """Whole, with the place and what was expected: half a policy is none."""
    with pytest.raises(SettingsError, match=message):
        Policy.read(document if isinstance(document, str) else json.dumps(document))


def test_a_policy_is_read_from_a_file(tmp_path):
    """Its path is absolute, or in the package; a file that is not there is refused, not an open door."""
    file = tmp_path / "access.json"
    file.write_text(json.dumps({"rules": [RULE]}))
    assert Policy.read(str(file)).rights_of(ALB).has("predict", "fruit")
    file.write_text(" " * (MAX_POLICY_CHARACTERS + 1))
    with pytest.raises(SettingsError, match="takes more than"):
        Policy.read(str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        Policy.read(str(file))
    with pytest.raises(SettingsError, match="is not a file"):
        Policy.read("access.json")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([SESSION, "[a", "]", "*"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["jwt", "iam", "lambda", "claims", "userArn", "apiKeyId", "scope", "elb"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from(["2.0", "1.0", None]), VALUES, VALUES)
def test_no_context_breaks_it_or_opens_it(version, authorizer, identity):
    """Whatever stands where an identity would, there is an answer, and a rule for someone else gives no right."""
    sent = {"version": version, "requestContext": {"authorizer": authorizer, "identity": identity}}
    rights = policy("arn:aws:iam::123456789012:role/boss", "claim:sub=boss", "scope:boss").rights_of(sent)
    assert not rights
    assert str(rights.denied("predict", "fruit"))
