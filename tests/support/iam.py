"""IAM in small: what requests to AWS need, seen at an AWS on loopback, and what the statements of a template allow."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.parse import parse_qsl, unquote

from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from support.cloudformation import Evaluator, statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from support.cloudformation import Template

ACCOUNT, REGION = "123456789012", "eu-west-1"


@dataclass(frozen=True)
class Call:
    """A right that a request needs.

    Attributes:
        action: IAM's name of it.
        resource: an ARN.
        context: condition keys and their values; those that the request does not have are absent.
    """

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)


@dataclass(frozen=True)
class Grant:
    """One action of one statement on one resource.

    Attributes:
        sid: of the statement.
        action: allowed, or denied.
        resource: with wildcards; "*" where the statement has all but some.
        conditions: by operator.
        excepted: those that it is not about.
    """

    sid: str
    action: str
    resource: str
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False, compare=False)
    excepted: tuple[str, ...] = ()

    def covers(self, call: Call) -> bool:
        """Whether it is about this call, conditions included."""
        return (
            self.action in (call.action, "s3:*")
            and fnmatchcase(call.resource, self.resource)
            and not any(fnmatchcase(call.resource, each) for each in self.excepted)
            and all(
                _holds(operator, key, value, call.context)
                for operator, tests in self.conditions.items()
                for key, value in tests.items()
            )
        )


def grants(
    template: Template, resource: str, values: Mapping[str, str], names: Mapping[str, str], effect: str = "Allow"
) -> set[Grant]:
    """The statements of a resource's policies, one action and one resource each.

    Args:
        template: as `support.cloudformation.load` reads it.
        resource: a role, or a policy.
        values: of parameters.
        names: ARNs of other resources, as `DataBucket.Arn`.
        effect: Allow or Deny.
    """
    text = json.dumps(Evaluator(template, values).resolve(template["Resources"][resource]))
    for name, arn in names.items():
        text = text.replace(f"<{name}>", arn)
    found = set()
    for _, statement in statements({"Resources": {resource: json.loads(text)}}):
        if statement["Effect"] == effect and {"Resource", "NotResource"} & set(statement):
            conditions, excepted = statement.get("Condition", {}), tuple(_listed(statement.get("NotResource", [])))
            for action in _listed(statement["Action"]):
                for target in _listed(statement.get("Resource", "*")):
                    found.add(Grant(statement["Sid"], action, target, conditions, excepted))
    return found


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Note what each request to a moto server needs, as long as the block runs."""
    calls: list[Call] = []
    answer = DomainDispatcherApplication.__call__

    def note(self: Any, environ: dict[str, Any], start_response: Any) -> Any:
        is_s3 = "/s3/aws4_request" in environ["HTTP_AUTHORIZATION"]
        body = b"" if is_s3 else environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if not is_s3:
            environ["wsgi.input"] = io.BytesIO(body)

        def started(status: str, *rest: Any) -> Any:
            calls.extend(_s3_calls(environ, int(status[:3])) if is_s3 else _calls(environ, body))
            return start_response(status, *rest)

        return answer(self, environ, started)

    with patch.object(DomainDispatcherApplication, "__call__", note):
        yield calls


def missing(calls: Iterable[Call], allowed: set[Grant]) -> set[Call]:
    """Calls that no statement allows."""
    return {call for call in calls if not any(grant.covers(call) for grant in allowed)}


def unused(calls: Iterable[Call], allowed: set[Grant]) -> set[Grant]:
    """Statements without a call that needs them."""
    calls = list(calls)
    return {grant for grant in allowed if not any(grant.covers(call) for call in calls)}


def _calls(environ: Mapping[str, Any], body: bytes) -> list[Call]:
    """Of KMS and SQS, whose action is a header, and of STS, whose answer to who one is needs no right."""
    if b"Action=GetCallerIdentity" in body:
        return []
    service, _, action = environ["HTTP_X_AMZ_TARGET"].partition(".")
    fields = json.loads(body)
    if service == "TrentService":
        context = {
            f"kms:EncryptionContext:{name}": value for name, value in fields.get("EncryptionContext", {}).items()
        }
        return [Call(f"kms:{action}", fields["KeyId"], context)]
    assert service == "AmazonSQS", service
    return [Call(f"sqs:{action}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{fields['QueueUrl'].rpartition('/')[2]}")]


# Source: docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
def _s3_calls(environ: Mapping[str, Any], status: int) -> list[Call]:
    method = environ["REQUEST_METHOD"]
    bucket, _, key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    arn = f"arn:aws:s3:::{bucket}"
    if not key:
        assert method == "GET", (method, environ["PATH_INFO"])
        assert "list-type" in query, query
        return [Call("s3:ListBucket", arn, {"s3:prefix": query.get("prefix", "")})]
    action = _action(method, query)
    calls = [Call(action, f"{arn}/{key}", _context(environ, method, query))]
    if status == 404 and action.startswith("s3:GetObject"):
        calls.append(Call("s3:ListBucket", arn))  # without it S3 would say 403, and no one could tell it from a refusal
    return calls


def _action(method: str, query: Mapping[str, str]) -> str:
    if method in ("GET", "HEAD"):
        assert not {"acl", "tagging", "uploadId"} & set(query), query
        return "s3:GetObjectVersion" if "versionId" in query else "s3:GetObject"
    if method == "DELETE":
        return "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
    assert method in ("PUT", "POST"), method
    return "s3:PutObject"


def _context(environ: Mapping[str, Any], method: str, query: Mapping[str, str]) -> dict[str, str]:
    """What a write's conditions are; absent headers are absent keys."""
    if method not in ("PUT", "POST"):
        return {}
    names = {"s3:if-none-match": "HTTP_IF_NONE_MATCH", "s3:if-match": "HTTP_IF_MATCH"}
    begins_or_continues = "uploads" in query or "partNumber" in query
    return {
        "s3:ObjectCreationOperation": "false" if begins_or_continues else "true",
        **{key: environ[header] for key, header in names.items() if header in environ},
    }


def _holds(operator: str, key: str, value: Any, context: Mapping[str, str]) -> bool:
    expected = _listed(value)
    if operator == "Null":
        return (key not in context) == (expected == ["true"])
    if operator.endswith("IfExists") and key not in context:
        return True
    if operator == "Bool":
        return context.get(key, "") in [str(each).lower() for each in expected]
    if operator.removesuffix("IfExists") in ("StringEquals", "StringLike"):
        return any(fnmatchcase(context.get(key, ""), each) for each in expected)
    assert operator == "NumericLessThan", operator
    return key in context and float(context[key]) < float(expected[0])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
