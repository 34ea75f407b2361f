"""What a deployed stack is now: its version, what it serves, how it fared lately, and what it cost this month."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from litelambda.common.aws import aws_client, refusals_explained
from litelambda.common.errors import UsageError
from litelambda.costs.bill_lines import lambda_lines
from litelambda.costs.prices import DEFAULT_REGION, load_prices
from litelambda.stacks.logs import FAULTS, LogLine, describe_line, is_fault, read_log
from litelambda.stacks.stack import ALIAS, Stack, read_stack

__all__ = ["Cost", "Status", "read_status"]

_HOURS = 24
_MAX_ERRORS = 5
_DAY_SECONDS = 86_400
_LEVELS_OF_REQUESTS = {None, "", "DEBUG", "INFO"}


@dataclass(frozen=True)
class Cost:
    """What Lambda bills for the function this month, so far.

    Attributes:
        usd: without the free tier, the API, logs and storage.
        requests: invocations.
        gb_seconds: their duration times the memory.
        prices: of which region, and when they were read.
    """

    usd: float
    requests: float
    gb_seconds: float
    prices: str


@dataclass(frozen=True)
class Status:
    """A stack's state.

    Attributes:
        stack: as CloudFormation has it.
        version: of the function, behind the alias.
        weights: by further version, the share of its requests while a deployment is gradual.
        model: the model and version that it loads first; "" for none.
        memory_mb: of the function.
        architecture: of the function.
        requests: of the last 24 hours.
        cold_share: of them, those that waited for INIT; None where the log does not have them, or without requests.
        errors: the last lines at level ERROR, of those hours.
        cost: of this month; None where no price is known.
    """

    stack: Stack
    version: str
    weights: dict[str, float]
    model: str
    memory_mb: int
    architecture: str
    requests: int
    cold_share: float | None
    errors: list[LogLine]
    cost: Cost | None

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "stack": self.stack.name,
            "status": self.stack.status,
            "updated": self.stack.updated.isoformat(),
            "region": self.stack.region,
            "function": self.stack.function,
            "alias": ALIAS,
            "version": self.version,
            "weights": self.weights,
            "model": self.model,
            "store": self.stack.store,
            "url": self.stack.outputs.get("ApiUrl", ""),
            "memory_mb": self.memory_mb,
            "architecture": self.architecture,
            "requests": self.requests,
            "cold_share": self.cold_share,
            "errors": [line.fields or line.text for line in self.errors],
            "cost": vars(self.cost) if self.cost else None,
        }

    def describe(self) -> str:
        """Some lines for a person."""
        cold = "unknown" if self.cold_share is None else f"{self.cold_share:.1%}"
        others = "".join(f", version {version} for {share:.0%}" for version, share in self.weights.items())
        lines = [
            f"stack        {self.stack.name}, {self.stack.status}, {self.stack.updated:%Y-%m-%d %H:%M} UTC",
            f"address      {self.stack.outputs.get('ApiUrl', 'none: it scores files')}",
            f"function     {self.stack.function}: {ALIAS} is version {self.version}{others}, "
            f"{self.memory_mb} MB, {self.architecture}",
            f"model        {self.model or 'loaded by the first request that names it'}, from {self.stack.store}",
            f"last {_HOURS} h    {self.requests:,} requests, cold starts {cold}",
        ]
        if self.cost is not None:
            lines.append(
                f"this month   {self.cost.usd:.4f} USD for Lambda: {self.cost.requests:,.0f} requests, "
                f"{self.cost.gb_seconds:,.1f} GB-s ({self.cost.prices}; without the API, logs and storage)"
            )
        lines.append(f"errors       {'none' if not self.errors else ''}".rstrip())
        return "\n".join([*lines, *(f"  {describe_line(line)}" for line in self.errors)])


def read_status(name: str) -> Status:
    """Ask CloudFormation, Lambda, CloudWatch and its logs about a stack.

    Raises:
        UsageError: the stack does not exist, or credentials are missing.
        AwsError: AWS refused.
    """
    stack = read_stack(name)
    functions = aws_client("lambda")
    with refusals_explained(f"the function {stack.function} cannot be read"):
        alias = _alias(functions, stack.function)
        configuration = functions.get_function_configuration(
            FunctionName=stack.function, **({"Qualifier": ALIAS} if alias else {})
        )
    variables = configuration.get("Environment", {}).get("Variables", {})
    requests = _requests(stack.function)
    since_ms = int((time.time() - _HOURS * 3600) * 1000)
    lines = list(read_log(stack.function, since_ms, pattern=f"{FAULTS} ?InitLatency"))
    errors = [line for line in lines if is_fault(line)]
    logs_requests = bool(alias) and variables.get("LOG_LEVEL") in _LEVELS_OF_REQUESTS
    cold = sum("InitLatency" in line.fields for line in lines)
    architecture = configuration.get("Architectures", ["x86_64"])[0]
    return Status(
        stack=stack,
        version=alias.get("FunctionVersion", configuration["Version"]),
        weights=(alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights", {}),
        model=_model(variables),
        memory_mb=configuration["MemorySize"],
        architecture=architecture,
        requests=requests,
        cold_share=cold / requests if logs_requests and requests else None,
        errors=errors[-_MAX_ERRORS:],
        cost=_cost(stack, configuration["MemorySize"], architecture),
    )


def _alias(functions: Any, function: str) -> dict[str, Any]:
    """What the alias says; empty where the function has none, as that of the batch stack."""
    try:
        found: dict[str, Any] = functions.get_alias(FunctionName=function, Name=ALIAS)
    except functions.exceptions.ResourceNotFoundException:
        return {}
    return found


def _model(variables: dict[str, str]) -> str:
    name = variables.get("MODEL_NAME", "")
    digest = variables.get("MODEL_MANIFEST_SHA256", "")
    if not name:
        return ""
    return f"{name}:{variables.get('MODEL_VERSION') or 'latest'}" + (f", pinned to {digest[:12]}…" if digest else "")


def _requests(function: str) -> int:
    """Invocations of the last hours."""
    start = datetime.now(UTC) - timedelta(hours=_HOURS)
    return int(_metrics(function, {"invocations": ("AWS/Lambda", "Invocations", "Sum")}, start, 3600)["invocations"])


def _metrics(
    function: str, asked: dict[str, tuple[str, str, str]], start: datetime, period_seconds: int
) -> dict[str, float]:
    """By name, the sum over all periods of a namespace's metric and statistic."""
    queries = [
        {
            "Id": name,
            "MetricStat": {
                "Metric": {
                    "Namespace": namespace,
                    "MetricName": metric,
                    "Dimensions": [{"Name": "FunctionName", "Value": function}],
                },
                "Period": period_seconds,
                "Stat": statistic,
            },
        }
        for name, (namespace, metric, statistic) in asked.items()
    ]
    with refusals_explained(f"the metrics of {function} cannot be read"):
        answer = aws_client("cloudwatch").get_metric_data(
            MetricDataQueries=queries, StartTime=start, EndTime=datetime.now(UTC)
        )
    return {each["Id"]: float(sum(each["Values"])) for each in answer["MetricDataResults"]}


def _cost(stack: Stack, memory_mb: int, architecture: str) -> Cost | None:
    """What this month's invocations and their duration come to, by the price table."""
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    asked = {"requests": ("AWS/Lambda", "Invocations", "Sum"), "duration_ms": ("AWS/Lambda", "Duration", "Sum")}
    found = _metrics(stack.function, asked, month, _DAY_SECONDS)
    gb_seconds = found["duration_ms"] / 1000 * memory_mb / 1024
    try:
        prices = load_prices(stack.region)
        where = stack.region
    except UsageError:
        prices = load_prices(DEFAULT_REGION)
        where = f"{DEFAULT_REGION}, for want of those of {stack.region}"
    lines = lambda_lines(prices, requests=found["requests"], gb_seconds=gb_seconds, architecture=architecture)
    read = min(line.price.read for line in lines)
    stale = "".join(f"; {warning}" for warning in prices.warnings(date.today()))
    return Cost(
        sum(line.usd for line in lines), found["requests"], gb_seconds, f"prices of {where}, read {read}{stale}"
    )
