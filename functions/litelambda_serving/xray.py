"""X-Ray subsegments of a request, sent to Lambda's daemon as its documentation says, without the SDK.

Loaded where TRACING is Active: the SDK would cost 360 ms of INIT for the same datagram. What Lambda itself records, the
invocation and its initialization, is in segments of its own, of which these are a part.

Source: docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html and xray-api-sendingdata.html.
"""

from __future__ import annotations

import os
import time
from _socket import AF_INET, SOCK_DGRAM, socket

from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from litelambda_serving.http import Response

__all__ = ["Tracer"]

_HEADER = '{"format": "json", "version": 1}\n'


class Tracer:
    """Sends what a request's parts took, of the invocations that Lambda samples."""

    def __init__(self, daemon_address: str, warn: Callable[[str], None]) -> None:
        """Remember where the daemon is.

        Args:
            daemon_address: `host:port`, as in AWS_XRAY_DAEMON_ADDRESS.
            warn: called once when the daemon cannot be reached.
        """
        host, _, port = daemon_address.rpartition(":")
        self._peer = (host, int(port))
        self._warn = warn
        self._warned = False

    def send(
        self,
        header: str,
        response: Response,
        began_ns: int,
        init: Mapping[str, float] | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> None:
        """Send the subsegments of a request that was just answered, unless its invocation is not sampled.

        Args:
            header: of Lambda, as in _X_AMZN_TRACE_ID.
            response: what was answered.
            began_ns: `time.perf_counter_ns()` of the request's beginning.
            init: how long the parts of INIT took, of the environment's first request.
            trace: the fields of the request's own trace, see `trace_context`; another one's is noted.
        """
        parts = dict(part.partition("=")[::2] for part in header.split(";"))
        if parts.get("Sampled") != "1" or not parts.get("Root") or not parts.get("Parent"):
            return
        document = _subsegment(response, began_ns, time.perf_counter_ns(), time.time())
        document.update(trace_id=parts["Root"], parent_id=parts["Parent"], type="subsegment")
        if init is not None:
            document["annotations"]["cold_start"] = True
            document["metadata"] = {"default": {"init": init}}
        if trace and trace["trace_id"] != parts["Root"][2:].replace("-", ""):
            document["annotations"]["w3c_trace_id"] = trace["trace_id"]
        connection = socket(AF_INET, SOCK_DGRAM)
        connection.setblocking(False)  # a request never waits for its trace
        try:
            connection.sendto((_HEADER + dumps(document)).encode(), self._peer)
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(f"X-Ray's daemon at {self._peer[0]}:{self._peer[1]} does not take traces: {error}")
        finally:
            connection.close()


def _subsegment(response: Response, began_ns: int, ended_ns: int, now: float) -> dict[str, Any]:
    """A request as a subsegment, its parts as subsegments of that."""

    def part(name: str, start_ns: int, end_ns: int) -> dict[str, Any]:
        start, end = (now - (ended_ns - each) / 1e9 for each in (start_ns, end_ns))
        return {"id": os.urandom(8).hex(), "name": name, "start_time": start, "end_time": end}

    document = part("litelambda", began_ns, ended_ns)
    document["annotations"] = {"route": response.route or "none", "status": response.status}
    if response.model:
        document["annotations"].update(model=response.model, version=str(response.version))
    if response.status >= 400:
        document["fault" if response.status >= 500 else "error"] = True
    if response.timing is not None:
        run_began, run_ended, load_began, _, loaded = response.timing
        decode = part("decode", began_ns, run_began)
        if load_began >= began_ns:
            decode["subsegments"] = [part("load", load_began, loaded)]
        document["subsegments"] = [decode, part("run", run_began, run_ended), part("encode", run_ended, ended_ns)]
    return document
