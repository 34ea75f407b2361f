"""What Lambda's event source mapping does with a queue, on moto: batches, real attributes, partial failures, redrive.

moto's own mapping delivers one record at a time and knows no `ReportBatchItemFailures`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

REGION = "eu-west-1"


class Queues:
    """A queue with a dead-letter queue behind it."""

    def __init__(self, sqs: Any, name: str, max_receive_count: int = 5, visibility_timeout_s: int = 0) -> None:
        self.sqs = sqs
        self.dead_url: str = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        arn = self._attributes(self.dead_url, "QueueArn")["QueueArn"]
        self.url: str = sqs.create_queue(
            QueueName=name,
            Attributes={
                "VisibilityTimeout": str(visibility_timeout_s),
                "RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": max_receive_count}),
            },
        )["QueueUrl"]
        self.arn = self._attributes(self.url, "QueueArn")["QueueArn"]

    def send(self, body: Any) -> None:
        """Put a message into the queue; anything but text is sent as JSON."""
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body if isinstance(body, str) else json.dumps(body))

    def dead(self) -> list[str]:
        """Bodies of the dead letters."""
        bodies: list[str] = []
        while messages := self.sqs.receive_message(QueueUrl=self.dead_url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                bodies.append(message["Body"])
                self.sqs.delete_message(QueueUrl=self.dead_url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def poll(self, invoke: Callable[[dict[str, Any]], Any], batch_size: int = 10) -> bool:
        """Deliver one batch; return whether there was any.

        As Lambda does: an exception, or an identifier that was not in the batch, fails all of it; an empty list of
        failures none.
        """
        answer = self.sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=batch_size,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return False
        try:
            result = invoke({"Records": [self._record(message) for message in messages]})
        except Exception:  # noqa: BLE001 - whatever the function died of, Lambda keeps the messages
            return True
        failed = {failure.get("itemIdentifier") for failure in (result or {}).get("batchItemFailures", [])}
        if not failed <= {message["MessageId"] for message in messages}:
            return True
        for message in messages:
            if message["MessageId"] not in failed:
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return True

    def drain(self, invoke: Callable[[dict[str, Any]], Any], batch_size: int = 10, max_batches: int = 100_000) -> int:
        """Deliver batches until the queue is empty; return how many there were."""
        batches = 0
        while self.poll(invoke, batch_size):
            batches += 1
            assert batches < max_batches, "the queue never empties"
        return batches

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": message.get("MessageAttributes", {}),
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self.arn,
            "awsRegion": REGION,
        }

    def _attributes(self, url: str, name: str) -> dict[str, str]:
        attributes: dict[str, str] = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"]
        return attributes
