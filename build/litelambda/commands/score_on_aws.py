"""Scoring on AWS: a job is handed to the state machine of the batch stack, which cuts it into shards."""

from __future__ import annotations

import sys
import time
import uuid

from litelambda.commands.score import ScoreError, ScoreResult
from litelambda.common.aws import aws_client
from litelambda.common.errors import UsageError
from litelambda_serving.scoring.job import Job

__all__ = ["submit"]

_POLL_SECONDS = 2.0


def submit(job: Job, state_machine: str) -> ScoreResult:
    """Start the state machine, and wait for its end.

    Args:
        job: from an `s3://` URL to a prefix.
        state_machine: its ARN, an output of the batch stack.

    Raises:
        UsageError: the job, or the ARN, is not for AWS.
        ScoreError: the job failed.
    """
    for url in (job.input, job.output):
        if not url.startswith("s3://"):
            raise UsageError(f"--on aws takes s3:// URLs, not {url}")
    if not job.output.endswith("/"):
        raise UsageError(f"--on aws writes a part for each shard: give a prefix that ends with /, not {job.output}")
    match state_machine.split(":"):
        case ["arn", _, "states", region, _, "stateMachine", *_]:
            return ScoreResult.of(_run(job, state_machine, region))
    raise UsageError(
        f"{state_machine!r} is not arn:aws:states:REGION:ACCOUNT:stateMachine:NAME: see the stack's outputs"
    )


def _run(job: Job, state_machine: str, region: str) -> dict[str, object]:
    import orjson
    from botocore.exceptions import BotoCoreError, ClientError

    client = aws_client("stepfunctions", region)
    try:
        request = orjson.dumps(job.to_dict()).decode()
        name = f"litelambda-{uuid.uuid4().hex}"
        arn = client.start_execution(stateMachineArn=state_machine, name=name, input=request)["executionArn"]
        print(f"litelambda: started {arn}", file=sys.stderr)
        while (state := client.describe_execution(executionArn=arn))["status"] == "RUNNING":
            time.sleep(_POLL_SECONDS)
    except (BotoCoreError, ClientError) as error:
        raise ScoreError(f"Step Functions: {error}") from error
    if state["status"] != "SUCCEEDED":
        raise ScoreError(f"{arn} ended {state['status']}: {state.get('error', '')} {state.get('cause', '')}".strip())
    result: dict[str, object] = orjson.loads(state["output"])
    return result
