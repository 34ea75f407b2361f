"""Tells whether a flatbuffer can run batches; one that cannot is converted for exactly one row.

With an open batch such a graph computes sizes at run time, the runtime refuses some of its operators, and XNNPACK runs
fewer of them; with a batch of one all sizes are constants. Rows run one by one, as they would have anyway.
"""

from __future__ import annotations

import numpy as np

from litelambda.artifact.flatbuffer import SIGNATURE, read_signatures, takes_sizes_at_run_time
from litelambda.artifact.serving_process import ServedArtifact, serve_in_child
from litelambda.common.errors import VerificationError


def needs_one_row(artifact: bytes) -> bool:
    """Whether a flatbuffer with an open batch computes with sizes and fails when it is given two rows, or one.

    Args:
        artifact: the flatbuffer, with the signature "predict".
    """
    (signature,) = (each for each in read_signatures(artifact) if each.key == SIGNATURE)
    if not takes_sizes_at_run_time(artifact) or any(tensor.shape[:1] != (-1,) for tensor in signature.inputs):
        return False
    if any(tensor.dtype == "string" or -1 in tensor.shape[1:] for tensor in signature.inputs):
        return False
    runs = {tensor.name: np.zeros((1, 1, *tensor.shape[1:]), tensor.dtype) for tensor in signature.inputs}
    try:
        serve_in_child(ServedArtifact(artifact, signature), runs, [1, 2])
    except VerificationError:
        return True
    return False
