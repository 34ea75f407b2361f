"""What the deployment template promises: nothing open, nothing too wide, every log kept for a stated time."""

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from litelambda.cli import predict
from litelambda.commands.package import ARCHITECTURES, PARTS, PYTHON_VERSION
from litelambda.common.paths import FUNCTIONS, PROJECT, TEMPLATE
from litelambda_serving.settings import SETTINGS
from support.cloudformation import Evaluator, Template, alternatives, load, statements

TEMPLATES = [TEMPLATE, *sorted((PROJECT / "infra").glob("*.yaml"))]


@pytest.fixture(scope="module")
def template() -> Template:
    """template.yaml, parsed."""
    return load(TEMPLATE)


def _of_type(template: Template, *types: str) -> dict[str, Template]:
    return {name: resource for name, resource in template["Resources"].items() if resource["Type"] in types}


# Service Authorization Reference: these actions of X-Ray have no resource types.
WITHOUT_RESOURCES = {"PredictRole.SendTraces", "PredictRole.ConnectToVpc"}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_statement_allows_everything(path: Path) -> None:
    """No policy allows a wildcard action, all resources, or all principals."""
    for name, statement in statements(load(path)):
        if statement["Effect"] == "Deny":
            continue
        where = f"{name}.{statement.get('Sid', '')}"
        for action in alternatives(statement["Action"]):
            assert "*" not in action, f"{where} allows {action}"
        for resource in alternatives(statement.get("Resource", [])):
            assert resource != "*" or where in WITHOUT_RESOURCES, f"{where} reaches every resource"
        # The policy of a VPC's endpoint is about what it is asked for, not about who asks.
        assert name == "S3Endpoint" or statement.get("Principal") != "*", f"{where} trusts everyone"


def test_functions_have_written_roles(template: Template) -> None:
    """Each function's role is spelt out here: no managed policy comes in, by hand or through SAM."""
    functions = _of_type(template, "AWS::Serverless::Function")
    assert functions
    for name, function in functions.items():
        role = function["Properties"]["Role"]["Fn::GetAtt"].removesuffix(".Arn")
        assert "ManagedPolicyArns" not in template["Resources"][role]["Properties"], name
        assert "Policies" not in function["Properties"], name


def test_predict_can_only_read(template: Template) -> None:
    """The predict function may read artifacts and write its log, and captures where there is a place for them."""
    actions = {
        action
        for name, statement in statements(template)
        if name == "PredictRole" and "Resource" in statement
        for action in alternatives(statement["Action"])
    }
    captures = {"s3:PutObject", "kms:GenerateDataKey"}
    reads = {"logs:CreateLogStream", "logs:PutLogEvents", "s3:GetObject", "s3:ListBucket", "kms:Decrypt"}
    traces = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
    interfaces = {action for action in actions if action.startswith("ec2:") and action != "ec2:*"}
    assert actions == reads | captures | traces | interfaces | {"ec2:*"}


NAMES_WITHIN = {"MetricName", "PolicyName", "StageName", "DomainName", "ServiceName"}
"""Properties that name what lies within something of the stack, or what is there already."""


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_stacks_lie_side_by_side(path: Path) -> None:
    """Whatever has a name of its own in an account has the stack's in it, so that a second stack has another."""
    for name, resource in load(path)["Resources"].items():
        for key, value in resource.get("Properties", {}).items():
            if key.endswith("Name") and key not in NAMES_WITHIN and resource["Type"] != "AWS::ApiGatewayV2::Authorizer":
                assert "AWS::StackName" in json.dumps(value) or "Ref" in value, f"{name}.{key} is {value}"


def test_a_vpc_is_lambdas_to_enter_and_not_the_codes(template: Template) -> None:
    """Only with a VPC may Lambda make interfaces with the role, and the function's own code may not."""
    assert {"ConnectToVpc", "LeaveVpcToLambda"}.isdisjoint(_predict_statements(template))
    statements_ = _predict_statements(template, VpcId="vpc-1", SubnetIds="subnet-1,subnet-2")
    assert all(
        "NetworkInterface" in each or "PrivateIp" in each or "Subnets" in each
        for each in statements_["ConnectToVpc"]["Action"]
    )
    denied = statements_["LeaveVpcToLambda"]
    assert (denied["Effect"], denied["Action"]) == ("Deny", "ec2:*")
    (source,) = denied["Condition"]["ArnEquals"].values()
    assert source.endswith(":function:stack-predict")
    function = Evaluator(template, {"VpcId": "vpc-1", "SubnetIds": "subnet-1,subnet-2"}).resolve(
        template["Resources"]["PredictFunction"]["Properties"]
    )
    assert function["VpcConfig"]["SubnetIds"] == ["subnet-1", "subnet-2"]
    assert "VpcConfig" not in Evaluator(template, {}).resolve(template["Resources"]["PredictFunction"]["Properties"])


@pytest.mark.parametrize(("base", "key"), [("/ml", "ml"), ("/ml/v1", "ml/v1"), ("", None)])
def test_a_domains_mapping_has_the_base_path(base: str, key: str | None) -> None:
    """API Gateway's key of a mapping is the path without its first slash; none is the whole domain."""
    domain = load(PROJECT / "infra" / "domain.yaml")
    mapping = Evaluator(domain, {"BasePath": base}).resolve(domain["Resources"]["Mapping"]["Properties"])
    assert mapping.get("ApiMappingKey") == key


def _predict_statements(template: Template, **values: str) -> dict[str, Template]:
    """What the function's role allows in a stack with these parameters, by statement."""
    role = Evaluator(template, values).resolve(template["Resources"]["PredictRole"]["Properties"])
    (policy,) = role["Policies"]
    return {each["Sid"]: each for each in policy["PolicyDocument"]["Statement"] if isinstance(each, dict)}


def test_captures_are_written_below_their_prefix_alone(template: Template) -> None:
    """Without a place for captures the function can write none; with one, below it, with the stack's own key."""
    assert {"WriteCaptures", "EncryptCaptures"}.isdisjoint(_predict_statements(template))
    allowed = _predict_statements(template, CaptureStore="s3://kept/of/fruit", KmsKeyArn=OTHER_VALUES["KmsKeyArn"])
    assert allowed["WriteCaptures"]["Action"] == "s3:PutObject"
    assert allowed["WriteCaptures"]["Resource"].endswith(":s3:::kept/of/fruit/*")
    assert allowed["EncryptCaptures"]["Action"] == "kms:GenerateDataKey"
    assert allowed["EncryptCaptures"]["Resource"] == OTHER_VALUES["KmsKeyArn"]


def test_traces_are_sent_where_tracing_is_active(template: Template) -> None:
    """With Tracing=Active the function may send to X-Ray, is told to, and Lambda samples; by default none of them."""
    for tracing in ("PassThrough", "Active"):
        function = Evaluator(template, {"Tracing": tracing}).resolve(template["Resources"]["PredictFunction"])
        assert function["Properties"]["Tracing"] == tracing
        assert function["Properties"]["Environment"]["Variables"]["TRACING"] == tracing
        assert ("SendTraces" in _predict_statements(template, Tracing=tracing)) == (tracing == "Active")
    assert "SendTraces" not in _predict_statements(template)


PATHS = {"/", "/healthz", "/openapi.json", "/ping", "/invocations", "/v1/{proxy+}", "/v2", "/v2/{proxy+}"}


def test_every_route_is_authorised(template: Template) -> None:
    """Routes follow the Authorization parameter, by default signed requests, but for preflights and an open page."""
    routes = {name: route["Properties"] for name, route in _of_type(template, "AWS::ApiGatewayV2::Route").items()}
    open_routes = ("OPTIONS ", "GET /")
    authorized = {name: route for name, route in routes.items() if not route["RouteKey"].startswith(open_routes)}
    assert {route["RouteKey"] for route in authorized.values()} == {f"ANY {path}" for path in PATHS}
    for name in authorized:
        assert _authorization(template, name) == ("AWS_IAM", None, None)
        assert _authorization(template, name, Authorization="NONE") == ("NONE", None, None)
        assert _authorization(template, name, Authorization="API_KEY") == ("AWS_IAM", None, None)
    assert template["Parameters"]["Authorization"]["Default"] == "AWS_IAM"


def _authorization(template: Template, route: str, **values: str) -> tuple[Any, ...]:
    resolved = Evaluator(template, values).resolve(template["Resources"][route]["Properties"])
    return tuple(resolved.get(name) for name in ("AuthorizationType", "AuthorizerId", "AuthorizationScopes"))


def test_the_page_is_open_where_the_owner_says_so(template: Template) -> None:
    """Page=open lets everyone read the document at /, and no other value does; there is no page by default."""
    (page,) = (
        each
        for each in _of_type(template, "AWS::ApiGatewayV2::Route").values()
        if each["Properties"]["RouteKey"].startswith("GET ")
    )
    assert (page["Properties"]["RouteKey"], page["Properties"]["AuthorizationType"]) == ("GET /", "NONE")
    assert template["Conditions"][page["Condition"]] == {"Fn::Equals": [{"Ref": "Page"}, "open"]}
    assert template["Parameters"]["Page"]["Default"] == "off"


def test_tokens_are_checked_by_the_api(template: Template) -> None:
    """With JWT every authorized route asks for a token of the issuer, for the audience, with one of the scopes."""
    values = {"Authorization": "JWT", "JwtIssuer": "https://issuer.example", "JwtAudience": "a,b", "JwtScopes": "x,y"}
    routes = _of_type(template, "AWS::ApiGatewayV2::Route")
    for name in (name for name, route in routes.items() if route["Properties"]["RouteKey"].startswith("ANY ")):
        assert _authorization(template, name, **values) == ("JWT", "<JwtAuthorizer>", ["x", "y"])
        assert _authorization(template, name, **{**values, "JwtScopes": ""}) == ("JWT", "<JwtAuthorizer>", None)
    authorizer = template["Resources"]["JwtAuthorizer"]
    assert template["Conditions"][authorizer["Condition"]] == {"Fn::Equals": [{"Ref": "Authorization"}, "JWT"]}
    resolved = Evaluator(template, values).resolve(authorizer["Properties"])
    assert resolved["JwtConfiguration"] == {"Issuer": "https://issuer.example", "Audience": ["a", "b"]}
    rule = template["Rules"]["JwtNeedsIssuer"]
    needed = [each["Assert"]["Fn::Not"][0]["Fn::Equals"] for each in rule["Assertions"]]
    assert needed == [[{"Ref": "JwtIssuer"}, ""], [{"Ref": "JwtAudience"}, ""]]


def test_keys_have_an_api_of_their_own(template: Template) -> None:
    """With API_KEY the HTTP API is closed, and the REST API asks each method but a preflight for a key of the plan."""
    keys = Evaluator(template, {"Authorization": "API_KEY", "CorsAllowOrigin": "*"})
    assert keys.resolve(template["Resources"]["HttpApi"]["Properties"])["DisableExecuteApiEndpoint"] is True
    assert "DisableExecuteApiEndpoint" not in Evaluator(template, {}).resolve(template["Resources"]["HttpApi"])
    nested = template["Resources"]["RestApi"]
    assert template["Conditions"][nested["Condition"]] == {"Fn::Equals": [{"Ref": "Authorization"}, "API_KEY"]}
    assert keys.resolve(nested["Properties"]["Parameters"])["WithPreflights"] == "true"
    rest = load(PROJECT / "infra" / "rest-api.yaml")
    for name, method in _of_type(rest, "AWS::ApiGateway::Method").items():
        is_preflight = method["Properties"]["HttpMethod"] == "OPTIONS"
        assert (method["Properties"]["ApiKeyRequired"], method.get("Condition")) == (
            (False, "HasPreflights") if is_preflight else (True, None)
        ), name
    values = {"QuotaLimit": "9", "QuotaPeriod": "WEEK", "ThrottlingRateLimit": "3", "ThrottlingBurstLimit": "5"}
    plan = Evaluator(rest, values).resolve(rest["Resources"]["UsagePlan"]["Properties"])
    assert plan["Quota"] == {"Limit": "9", "Period": "WEEK"}
    assert plan["Throttle"] == {"RateLimit": "3", "BurstLimit": "5"}
    # Without it the API would read every body as text, which destroys tensors and pictures.
    assert rest["Resources"]["Api"]["Properties"]["BinaryMediaTypes"] == ["*/*"]


@pytest.mark.parametrize("with_streaming", ["true", "false"])
@pytest.mark.parametrize("with_preflights", ["true", "false"])
def test_a_stage_has_every_method(with_preflights: str, with_streaming: str) -> None:
    """The deployment that a REST API's stage shows comes after all methods that there are then, as they are then."""
    rest = load(PROJECT / "infra" / "rest-api.yaml")
    values = {"WithPreflights": with_preflights, "WithStreaming": with_streaming}
    evaluator = Evaluator(rest, values)
    for method in _of_type(rest, "AWS::ApiGateway::Method").values():
        integration = evaluator.resolve(method["Properties"]["Integration"])
        streams = (
            integration["Uri"].endswith("/response-streaming-invocations") and "/2021-11-15/" in integration["Uri"]
        )
        assert (streams, integration.get("ResponseTransferMode")) == (
            (True, "STREAM") if with_streaming == "true" else (False, None)
        )
    shown = evaluator.resolve(rest["Resources"]["Stage"]["Properties"]["DeploymentId"]).strip("<>")
    methods = _of_type(rest, "AWS::ApiGateway::Method")
    there = {name for name, each in methods.items() if with_preflights == "true" or "Condition" not in each}
    assert set(rest["Resources"][shown]["DependsOn"]) == there


@pytest.mark.parametrize("authorization", ["AWS_IAM", "JWT", "API_KEY", "NONE"])
def test_answers_are_streamed_where_that_is_asked_for(template: Template, authorization: str) -> None:
    """A function URL asks for signatures unless everyone may call; with API keys the REST API streams instead of it."""
    values = {"Authorization": authorization, "ResponseStreaming": "on"}
    on, off = Evaluator(template, values), Evaluator(template, {"Authorization": authorization})
    resources = {"FunctionUrl", "AnyoneMayCallFunctionUrl", "AnyoneMayInvokeByFunctionUrl"}
    there = {name for name in resources if on.resolve({"Condition": template["Resources"][name]["Condition"]})}
    assert not any(off.resolve({"Condition": template["Resources"][name]["Condition"]}) for name in resources)
    environment = on.resolve(template["Resources"]["PredictFunction"]["Properties"]["Environment"])["Variables"]
    if authorization == "API_KEY":
        assert (there, environment["RESPONSE_STREAMING"]) == (set(), "rest-api")
        assert on.resolve(template["Resources"]["RestApi"]["Properties"]["Parameters"])["WithStreaming"] == "true"
        return
    assert there == (resources if authorization == "NONE" else {"FunctionUrl"})
    url = on.resolve(template["Resources"]["FunctionUrl"]["Properties"])
    assert (url["AuthType"], url["InvokeMode"], environment["RESPONSE_STREAMING"]) == (
        *("NONE" if authorization == "NONE" else "AWS_IAM", "RESPONSE_STREAM"),
        "function-url",
    )
    stock = Evaluator(template, {**values, "Bootstrap": "stock"})
    assert not stock.resolve({"Condition": "HasFunctionUrl"})
    resolved = stock.resolve(template["Resources"]["PredictFunction"]["Properties"]["Environment"])
    assert not resolved["Variables"]["RESPONSE_STREAMING"]


def _denied(template: Template, **values: str) -> dict[str, Any]:
    """What the artifact bucket's policy denies everyone, by name."""
    policy = Evaluator(template, values).resolve(template["Resources"]["ArtifactBucketPolicy"]["Properties"])
    return {each["Sid"]: each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Deny"}


def test_versions_are_immutable(template: Template) -> None:
    """By default the bucket refuses to overwrite or delete versions, whoever asks; a parameter leaves it to IAM."""
    on, off = _denied(template), _denied(template, ImmutableVersions="off")
    assert set(on) - set(off) == {"WriteKnowingly", "WriteVersionsOnce", "DeleteNothing"}
    assert set(on["DeleteNothing"]["Action"]) == {"s3:DeleteObject", "s3:DeleteObjectVersion"}
    assert {each["Principal"] for each in on.values()} == {"*"}
    lock = Evaluator(template, {"ObjectLockMode": "COMPLIANCE", "ObjectLockDays": "30"})
    bucket = lock.resolve(template["Resources"]["ArtifactBucket"]["Properties"])
    assert bucket["ObjectLockEnabled"] is True
    assert bucket["ObjectLockConfiguration"]["Rule"] == {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": "30"}}
    assert not [
        name
        for name in Evaluator(template, {}).resolve(template["Resources"]["ArtifactBucket"]["Properties"])
        if "Lock" in name
    ]


def test_a_preflight_needs_no_signature(template: Template) -> None:
    """With CORS on, and only then, OPTIONS is open on each path that has an authorized ANY route."""
    routes = _of_type(template, "AWS::ApiGatewayV2::Route")
    preflights = [route for route in routes.values() if route["Properties"]["RouteKey"].startswith("OPTIONS ")]
    assert {route["Properties"]["RouteKey"] for route in preflights} == {f"OPTIONS {path}" for path in PATHS}
    for route in preflights:
        assert route["Condition"] == "HasCors"
        assert route["Properties"]["AuthorizationType"] == "NONE"
        assert route["Properties"]["Target"] == {"Fn::Sub": "integrations/${PredictIntegration}"}


def test_no_other_door(template: Template) -> None:
    """Functions are reached through the API alone: no events and no function URLs beside it."""
    for name, function in _of_type(template, "AWS::Serverless::Function").items():
        assert not {"Events", "FunctionUrlConfig"} & set(function["Properties"]), name


def test_api_logs_and_throttles(template: Template) -> None:
    """Every stage writes access logs as JSON, without payloads, throttles, and has no metrics that are billed."""
    for name, stage in _of_type(template, "AWS::ApiGatewayV2::Stage").items():
        properties = stage["Properties"]
        fields = json.loads(properties["AccessLogSettings"]["Format"])
        assert not any("body" in value.lower() or "header" in value.lower() for value in fields.values()), name
        assert {"ThrottlingRateLimit", "ThrottlingBurstLimit"} <= set(properties["DefaultRouteSettings"]), name
        assert properties["DefaultRouteSettings"]["DetailedMetricsEnabled"] is False, name
    (settings,) = load(PROJECT / "infra" / "rest-api.yaml")["Resources"]["Stage"]["Properties"]["MethodSettings"]
    assert settings["MetricsEnabled"] is False


def test_every_function_logs_into_a_group_with_retention(template: Template) -> None:
    """Each function writes into a log group of the template, and each group forgets."""
    groups = _of_type(template, "AWS::Logs::LogGroup")
    for name, group in groups.items():
        assert "RetentionInDays" in group["Properties"], name
    for name, function in _of_type(template, "AWS::Serverless::Function").items():
        assert function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"] in groups, name


def test_every_bucket_is_closed(template: Template) -> None:
    """Each bucket is encrypted, blocks public access, refuses plain HTTP and survives the stack."""
    buckets = _of_type(template, "AWS::S3::Bucket")
    policies = {
        policy["Properties"]["Bucket"]["Ref"]: policy["Properties"]["PolicyDocument"]["Statement"]
        for policy in _of_type(template, "AWS::S3::BucketPolicy").values()
    }
    assert "ArtifactBucket" in buckets
    for name, bucket in buckets.items():
        properties = bucket["Properties"]
        assert properties["BucketEncryption"], name
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}, name
        assert any(
            statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": False}}
            for statement in policies[name]
        ), name
        assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain"), name


def test_artifacts_are_versioned_and_logged(template: Template) -> None:
    """The artifact bucket keeps versions, expires old ones, and logs who reads them."""
    properties = template["Resources"]["ArtifactBucket"]["Properties"]
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["LoggingConfiguration"]["DestinationBucketName"] == {"Ref": "AccessLogBucket"}
    assert any("NoncurrentVersionExpiration" in rule for rule in properties["LifecycleConfiguration"]["Rules"])


@pytest.mark.parametrize("events", ["none", "writes", "all"])
def test_requests_for_artifacts_are_recorded_where_they_are_asked_for(template: Template, events: str) -> None:
    """A trail of this bucket's objects alone, which writes where its policy lets it; by default there is none."""
    evaluator = Evaluator(template, {"DataEvents": events})
    has_trail = {"Condition": template["Resources"]["DataEventTrail"]["Condition"]}
    assert evaluator.resolve(has_trail) == (events != "none")
    assert not Evaluator(template, {"DataEvents": events, "ModelStore": "s3://other/models"}).resolve(has_trail)
    policy = evaluator.resolve(template["Resources"]["AccessLogBucketPolicy"]["Properties"]["PolicyDocument"])
    sids = {each.get("Sid") for each in policy["Statement"] if isinstance(each, dict)}
    assert ("CloudTrailMayWriteDataEvents" in sids) == (events != "none")
    (selector,) = template["Resources"]["DataEventTrail"]["Properties"]["AdvancedEventSelectors"]
    fields = [each for each in evaluator.resolve(selector["FieldSelectors"]) if isinstance(each, dict)]
    assert {each["Field"]: each.get("Equals") for each in fields}.get("readOnly") == (
        None if events == "all" else ["false"]
    )
    assert [each["StartsWith"] for each in fields if each["Field"] == "resources.ARN"] == [["<ArtifactBucket.Arn>/"]]


def test_environment_is_what_the_code_reads(template: Template) -> None:
    """The predict function's environment names every setting that the code reads, and no other."""
    variables = template["Resources"]["PredictFunction"]["Properties"]["Environment"]["Variables"]
    # Own code and key files lie in the package.
    names = {setting.name for setting in SETTINGS} - {"CUSTOM_CODE", "MODEL_DECRYPTION_KEY"}
    assert set(variables) == {"AWS_LAMBDA_EXEC_WRAPPER"} | names


def test_defaults_agree_with_the_code(template: Template) -> None:
    """A setting left alone means the same in the template and in the code."""
    variables = template["Resources"]["PredictFunction"]["Properties"]["Environment"]["Variables"]
    for setting in SETTINGS:
        value = variables.get(setting.name)
        if value is not None and setting.default is not None:
            assert Evaluator(template, {}).resolve(value) == setting.default, setting.name


def test_the_wrapper_is_shipped(template: Template) -> None:
    """What AWS_LAMBDA_EXEC_WRAPPER names is an executable of the shipped code; the stock client is a parameter away."""
    variables = template["Resources"]["PredictFunction"]["Properties"]["Environment"]["Variables"]
    condition, path, otherwise = variables["AWS_LAMBDA_EXEC_WRAPPER"]["Fn::If"]
    assert {"Fn::Equals": [{"Ref": "Bootstrap"}, "lean"]} in template["Conditions"][condition]["Fn::And"]
    assert otherwise == {"Ref": "AWS::NoValue"}
    assert os.access(FUNCTIONS / Path(path).relative_to("/var/task"), os.X_OK)


def test_handlers_exist(template: Template) -> None:
    """Every handler is a module at the root of its code, on the interpreter that the bytecode is for."""
    for name, function in _of_type(template, "AWS::Serverless::Function").items():
        module, _, attribute = function["Properties"]["Handler"].partition(".")
        assert (PROJECT / function["Properties"]["CodeUri"] / f"{module}.py").is_file(), name
        assert attribute == "handler", name
        assert function["Properties"]["Runtime"] == f"python{PYTHON_VERSION}", name


def test_build_targets_exist(template: Template) -> None:
    """Each function that is built has its makefile target, through a makefile by architecture and optional part."""
    architectures = template["Parameters"]["Architecture"]["AllowedValues"]
    assert set(architectures) == set(ARCHITECTURES)
    targets = re.findall(r"^build-(\w+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    functions = _of_type(template, "AWS::Serverless::Function")
    built = {name: each for name, each in functions.items() if not each["Metadata"].get("SkipBuild")}
    assert set(functions) - set(built) == {"PreTrafficFunction"}
    for name, function in built.items():
        assert name in targets
        assert function["Metadata"]["BuildMethod"] == "makefile", name
        assert function["Metadata"]["ContextPath"] == {"Fn::Sub": "infra/make/${Architecture}/${PackageWith}"}
    for architecture, parts in product(architectures, template["Parameters"]["PackageWith"]["AllowedValues"]):
        command = ["make", "--makefile", f"infra/make/{architecture}/{parts}/Makefile", "--dry-run", "package"]
        commands = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
        wanted = "".join(f"--with {part} " for part in parts.split(",") if part != "nothing")
        assert f"package --arch {architecture} {wanted.strip()}".strip() in " ".join(commands.split())
        assert commands.count("--with") == wanted.count("--with")


def test_the_template_offers_every_part(template: Template) -> None:
    """PackageWith takes what `litelambda package --with` does, and adds nothing by default."""
    parameter = template["Parameters"]["PackageWith"]
    assert parameter["Default"] == "nothing"
    assert {part for value in parameter["AllowedValues"] for part in value.split(",")} == {"nothing", *PARTS}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_reference_resolves(path: Path) -> None:
    """Every !Ref, !GetAtt, !Sub and condition names something that the template has, and every parameter is used."""
    template = load(path)
    known = {*template.get("Parameters", {}), *template["Resources"]}
    for name, resource in template["Resources"].items():  # SAM makes resources of what it publishes
        if "AutoPublishAlias" in resource.get("Properties", {}):
            known |= {f"{name}Alias{resource['Properties']['AutoPublishAlias']}", f"{name}.Version"}
    used = set(_references({key: template.get(key, {}) for key in ("Conditions", "Resources", "Outputs")}))
    assert {name for name in used if not name.startswith("AWS::")} <= known
    assert set(template.get("Parameters", {})) <= used


@pytest.mark.parametrize(
    ("authorization", "url", "headers"),
    [
        ("AWS_IAM", "https://<HttpApi>.execute-api.eu-west-1.amazonaws.com", {}),
        ("JWT", "https://<HttpApi>.execute-api.eu-west-1.amazonaws.com", {"Authorization": "Bearer $TOKEN"}),
        ("API_KEY", "<RestApi.Outputs.Url>", {"x-api-key": "$API_KEY"}),
    ],
)
def test_it_says_how_to_call_it(template: Template, authorization: str, url: str, headers: dict[str, str]) -> None:
    """The output CallCommand is a command of ours, with what the API's authorization wants."""
    for model in ("", "fruit"):
        evaluator = Evaluator(template, {"Authorization": authorization, "ModelName": model})
        said = str(evaluator.resolve(template["Outputs"]["CallCommand"]["Value"]))
        program, name, *words = shlex.split(said)
        assert (program, name) == ("litelambda", "predict")
        parameters = predict.command.make_context(name, words).params
        assert (parameters["model"], parameters["url"]) == (model or "NAME", url)
        assert dict(parameters["headers"]) == headers


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "Ref":
                yield item
            elif key == "Fn::GetAtt":
                yield item.split(".")[0]
            elif key == "Fn::Sub":
                text, local = (item, {}) if isinstance(item, str) else item
                names = {name.split(".")[0] for name in re.findall(r"\$\{([\w.:]+)\}", text)}
                yield from names - set(local)
                yield from _references(local)
            else:
                yield from _references(item)


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("", True),
        ("s3://my-models/models", True),
        ("s3://my-models/a/b.c", True),
        ("file:///var/task/models", True),
        ("s3://my-models", False),
        ("s3://my-models/", False),
        ("s3://my-models/models/", False),
        ("https://example.com/models", False),
    ],
)
def test_model_store_pattern(template: Template, value: str, *, accepted: bool) -> None:
    """The ModelStore parameter takes what the read policy can be derived from: a bucket and a prefix, or a file URL."""
    pattern = template["Parameters"]["ModelStore"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, value)) is accepted


def test_samconfig_names_known_parameters(template: Template) -> None:
    """samconfig.toml overrides only parameters that exist, alike for build, deploy and `sam local`."""
    config = tomllib.loads((PROJECT / "samconfig.toml").read_text(encoding="utf-8"))
    for environment in (value for value in config.values() if isinstance(value, dict)):
        overrides = {
            command: environment[command]["parameters"].get("parameter_overrides", "")
            for command in ("build", "deploy", "local_invoke", "local_start_api")
            if command in environment
        }
        assert len(set(overrides.values())) <= 1
        for override in overrides.values():
            for assignment in override.split():
                assert assignment.split("=")[0] in template["Parameters"]


def test_snapshots_and_provisioned_environments_exclude_each_other(template: Template) -> None:
    """Both are off by default, and the template refuses them together, since no linter would."""
    assert template["Parameters"]["SnapStart"]["Default"] == "off"
    assert template["Parameters"]["ProvisionedConcurrency"]["Default"] == 0
    rule = template["Rules"]["SnapStartExcludesProvisionedConcurrency"]
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "SnapStart"}, "on"]}
    assert [assertion["Assert"] for assertion in rule["Assertions"]] == [
        {"Fn::Equals": [{"Ref": "ProvisionedConcurrency"}, "0"]}
    ]


def test_snapstart_forces_the_stock_client(template: Template) -> None:
    """The lean bootstrap's condition holds only without snapshots."""
    assert template["Conditions"]["LeanBootstrap"] == {
        "Fn::And": [{"Fn::Equals": [{"Ref": "Bootstrap"}, "lean"]}, {"Fn::Not": [{"Condition": "HasSnapStart"}]}]
    }


# A second value of each parameter, beside others that have to be set for it to matter.
OTHER_VALUES = {
    "ModelStore": "s3://other/models",
    "ModelName": "fruit",
    "ModelVersion": "7",
    "ModelManifestSha256": "0" * 64,
    "ModelPublicKey": "A" * 44,
    "ModelMinimumVersion": "3",
    "ModelKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "ModelMemoryMb": "300",
    "AliasRefreshSeconds": "5",
    "ModelControl": "explicit",
    "Architecture": "x86_64",
    "PackageWith": "images",
    "MemorySize": "1024",
    "Timeout": "20",
    "NumThreads": "2",
    "ReservedConcurrency": "7",
    "Bootstrap": "stock",
    "SnapStart": "on",
    "ProvisionedConcurrency": "3",
    "DeploymentPreference": "Canary10Percent5Minutes",
    "Authorization": "NONE",
    "AccessPolicy": "packaged",
    "JwtIssuer": "https://issuer.example",
    "JwtAudience": "models",
    "JwtScopes": "models/predict",
    "QuotaLimit": "7",
    "QuotaPeriod": "MONTH",
    "WebAclArn": "arn:aws:wafv2:eu-west-1:123456789012:regional/webacl/name/id",
    "ImmutableVersions": "off",
    "ObjectLockMode": "GOVERNANCE",
    "ObjectLockDays": "7",
    "DataEvents": "all",
    "ThrottlingRateLimit": "7",
    "ThrottlingBurstLimit": "7",
    "CorsAllowOrigin": "https://example.com",
    "DomainName": "api.example.com",
    "DomainCertificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/1234abcd",
    "HostedZoneId": "Z123",
    "BasePath": "/ml",
    "VpcId": "vpc-1",
    "SubnetIds": "subnet-1,subnet-2",
    "RouteTableIds": "rtb-1",
    "CaptureStore": "s3://kept/fruit",
    "CapturePercent": "5",
    "CaptureRedact": "name",
    "CaptureMaxKb": "64",
    "CaptureSeconds": "9",
    "Page": "open",
    "ResponseStreaming": "on",
    "RequestStore": "s3://asked/fruit",
    "DriftWindow": "500",
    "LogLevel": "DEBUG",
    "Tracing": "Active",
    "LogRetentionDays": "7",
    "MetricsNamespace": "other",
    "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:topic",
    "AlarmDurationMs": "7",
    "Dashboard": "off",
    "KmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
}
# Lambda's documentation: a version is the code and the configuration. These belong to the function as a whole, to its
# alias, or to SAM.
NOT_OF_A_VERSION = {
    *("FunctionName", "CodeUri", "ReservedConcurrentExecutions", "ProvisionedConcurrencyConfig"),
    *("AutoPublishAlias", "VersionDescription", "DeploymentPreference"),
}


def _version(template: Template, values: dict[str, str]) -> tuple[Template, str]:
    """What a version is made of, and its description."""
    properties = Evaluator(template, values).resolve(template["Resources"]["PredictFunction"]["Properties"])
    made_of = {name: value for name, value in properties.items() if name not in NOT_OF_A_VERSION}
    return made_of, properties["VersionDescription"]


@pytest.mark.parametrize(
    "others", [{}, {"SnapStart": "on"}, {"Bootstrap": "stock"}, {"KmsKeyArn": OTHER_VALUES["KmsKeyArn"]}], ids=str
)
@pytest.mark.parametrize("parameter", OTHER_VALUES)
def test_a_parameter_that_changes_the_function_publishes_a_version(
    template: Template, parameter: str, others: dict[str, str]
) -> None:
    """The description, whose change makes CloudFormation publish, changes when the version would; else it stays."""
    made_of, description = _version(template, others)
    changed_made_of, changed_description = _version(template, {**others, parameter: OTHER_VALUES[parameter]})
    assert (description != changed_description) == (made_of != changed_made_of)


def test_every_parameter_is_tried(template: Template) -> None:
    """The list above has every parameter, and most of them change the function."""
    assert set(OTHER_VALUES) == set(template["Parameters"])
    before, _ = _version(template, {})
    after = {name for name, value in OTHER_VALUES.items() if _version(template, {name: value})[0] != before}
    assert {
        "ModelName",
        "ModelVersion",
        "ModelManifestSha256",
        "MemorySize",
        "LogLevel",
        "Bootstrap",
        "Timeout",
    } < after
    assert not {"ReservedConcurrency", "ProvisionedConcurrency", "Authorization", "LogRetentionDays"} & after


def test_the_own_store_spelt_out_is_no_change(template: Template) -> None:
    """Naming the stack's own bucket changes neither function nor description: Lambda would refuse to publish."""
    assert _version(template, {}) == _version(template, {"ModelStore": "s3://<ArtifactBucket>/models"})


TEXTS = (
    *("ModelStore", "ModelName", "ModelVersion", "CorsAllowOrigin", "BasePath", "MetricsNamespace"),
    *("ModelPublicKey", "ModelMinimumVersion", "CaptureStore", "CaptureRedact", "RequestStore", "SubnetIds"),
)


def _longest(parameter: Template) -> str:
    """The longest value that a parameter's own limits allow."""
    limits = [*parameter.get("AllowedValues", ()), parameter.get("MaxValue", parameter["Default"])]
    candidates = [*map(str, limits), "f" * 64, "99999", "1"]
    pattern = parameter.get("AllowedPattern", "|".join(map(str, limits)))
    return max((value for value in candidates if re.fullmatch(pattern, value)), key=len)


def test_texts_have_their_share_of_a_description(template: Template) -> None:
    """Of Lambda's 256 characters 88 are left for the texts with everything else at its longest."""
    values = {name: _longest(each) for name, each in template["Parameters"].items() if name not in TEXTS}
    values |= {"KmsKeyArn": OTHER_VALUES["KmsKeyArn"], "SnapStart": "on", "VpcId": ""}
    assert (len(values["ModelManifestSha256"]), values["ModelMemoryMb"], values["MemorySize"]) == (64, "99999", "10240")
    texts = {**dict.fromkeys(TEXTS, ""), "ModelStore": "s3://" + "m" * 88}
    _, description = _version(template, {**values, **texts})
    assert len(description) == 256
    assert "m" * 88 in description


def test_a_description_is_readable(template: Template) -> None:
    """The values stand in it with a space between them."""
    _, description = _version(template, OTHER_VALUES)
    assert description == (
        "other/models fruit 7 https://example.com /ml other "
        f"{'A' * 44} 3 {'0' * 64} 1234abcd-12ab-34cd-56ef-1234567890ab 300 5 2 1024 20 DEBUG "
        "s3://kept/fruit name 5 64 9 500 s3://asked/fruit Xdoz subnet-1,subnet-2"
    )


def test_a_deployment_is_gradual_where_that_is_asked_for(template: Template) -> None:
    """By default CodeDeploy and the hook are left out; each gradual kind that CodeDeploy has turns both on."""
    parameter = template["Parameters"]["DeploymentPreference"]
    preferences = template["Mappings"]["DeploymentPreferences"]
    assert list(preferences) == parameter["AllowedValues"]
    assert parameter["Default"] == "AllAtOnce"
    for name, preference in preferences.items():
        # SAM's documentation of DeploymentPreference: what Type may be, AllAtOnce apart.
        assert re.fullmatch(
            "Canary10Percent(5|10|15|30)Minutes|Linear10PercentEvery(1Minute|[23]Minutes|10Minutes)", name
        ) or (name == "AllAtOnce")
        assert preference == {"Gradual": "false" if name == "AllAtOnce" else "true"}
    assert template["Conditions"]["DeploysGradually"] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "DeploymentPreference"}, "AllAtOnce"]}]
    }
    for name in ("PreTrafficFunction", "PreTrafficRole", "PreTrafficLogGroup"):
        assert template["Resources"][name]["Condition"] == "DeploysGradually"


def test_an_alarm_ends_a_gradual_deployment(template: Template) -> None:
    """CodeDeploy watches alarms that the nested stack has, and before any traffic invokes the hook, as its role may."""
    preference = template["Resources"]["PredictFunction"]["Properties"]["DeploymentPreference"]
    outputs = load(PROJECT / "infra" / "alarms.yaml")["Outputs"]
    for alarm in preference["Alarms"]:
        stack, _, output = alarm["Fn::GetAtt"].partition(".Outputs.")
        assert stack == "Alarms"
        assert outputs[output]["Value"] == {"Ref": output}
    assert preference["Hooks"] == {"PreTraffic": {"Ref": "PreTrafficFunction"}}
    hook = template["Resources"]["PreTrafficFunction"]["Properties"]
    assert hook["FunctionName"]["Fn::Sub"].startswith("CodeDeployHook_")  # AWSCodeDeployRoleForLambda


def test_the_hook_may_predict_and_tell(template: Template) -> None:
    """Its role allows it to invoke versions of this stack's function, to report to CodeDeploy, and to write its log."""
    found = {each["Sid"]: each for name, each in statements(template) if name == "PreTrafficRole" and "Sid" in each}
    assert {sid: each["Action"] for sid, each in found.items()} == {
        "WriteLogs": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Predict": "lambda:InvokeFunction",
        "TellCodeDeploy": "codedeploy:PutLifecycleEventHookExecutionStatus",
    }
    assert found["Predict"]["Resource"] == {"Fn::Sub": "${PredictFunction.Arn}:*"}
    variables = template["Resources"]["PreTrafficFunction"]["Properties"]["Environment"]["Variables"]
    source = (PROJECT / "infra" / "pre_traffic" / "pre_traffic.py").read_text(encoding="utf-8")
    assert set(variables) == set(re.findall(r'os\.environ(?:\.get\(|\[)"(\w+)"', source))
