"""A stack as `litelambda deploy` leaves it, in moto's AWS: a bucket, and a function with two versions and an alias."""

from __future__ import annotations

import json
import time
from typing import Any

import boto3

REGION = "us-east-1"
FUNCTION = "litelambda-predict"
GROUP = f"/aws/lambda/{FUNCTION}"
_TRUST = {"Version": "2012-10-17", "Statement": []}
_VARIABLES = {"MODEL_NAME": "fruit", "MODEL_VERSION": "3", "METRICS_NAMESPACE": "litelambda"}
_FUNCTION = {
    "FunctionName": FUNCTION,
    "Code": {"ZipFile": "def handler(event, context): pass"},
    "Handler": "index.handler",
    "Runtime": "python3.13",
    "MemorySize": 512,
    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
    "Environment": {"Variables": _VARIABLES},
}
_TEMPLATE: dict[str, Any] = {
    "Parameters": {name: {"Type": "String", "Default": ""} for name in ("ModelName", "ModelManifestSha256")},
    "Resources": {
        "ArtifactBucket": {
            "Type": "AWS::S3::Bucket",
            "DeletionPolicy": "RetainExceptOnCreate",
            "Properties": {"BucketName": "artifacts"},
        },
        "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": _TRUST}},
        "Function": {"Type": "AWS::Lambda::Function", "Properties": _FUNCTION},
        "Version": {
            "Type": "AWS::Lambda::Version",
            "DeletionPolicy": "Retain",
            "Properties": {"FunctionName": {"Ref": "Function"}},
        },
    },
    "Outputs": {
        "FunctionName": {"Value": {"Ref": "Function"}},
        "ArtifactBucket": {"Value": {"Ref": "ArtifactBucket"}},
        "ApiUrl": {"Value": f"https://a1b2c3d4.execute-api.{REGION}.amazonaws.com"},
    },
}


def client(service: str) -> Any:
    """A client of moto's."""
    return boto3.client(service, REGION)  # type: ignore[call-overload] # boto3's stubs want literals


def deploy(name: str = "litelambda") -> None:
    """Make the stack, with version 2 of its function live."""
    client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(_TEMPLATE))
    functions = client("lambda")
    functions.update_function_code(FunctionName=FUNCTION, ZipFile=b"another")
    functions.publish_version(FunctionName=FUNCTION)
    functions.create_alias(FunctionName=FUNCTION, Name="live", FunctionVersion="2")
    client("logs").create_log_group(logGroupName=GROUP)
    client("logs").create_log_stream(logGroupName=GROUP, logStreamName="one")


def log(*lines: Any, age_ms: int = 0) -> None:
    """Have the function write lines: texts, or what JSON is made of."""
    at = int(time.time() * 1000) - age_ms
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    events = [{"timestamp": at, "message": text} for text in texts]
    client("logs").put_log_events(logGroupName=GROUP, logStreamName="one", logEvents=events)


def measure(namespace: str, metric: str, *values: float) -> None:
    """Record samples of a metric of the function, in time for a query of the same second, which ends at its start."""
    about = {
        "MetricName": metric,
        "Dimensions": [{"Name": "FunctionName", "Value": FUNCTION}],
        "Timestamp": time.time() - 2,
    }
    data = [{**about, "Value": value} for value in values]
    client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=data)
