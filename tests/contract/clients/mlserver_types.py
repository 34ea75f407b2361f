"""MLServer's own types, which are the protocol's in pydantic, accept every body of ours."""

import json
from urllib.request import Request, urlopen

from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    Parameters,
    RepositoryIndexResponse,
    RequestInput,
    RequestOutput,
)


def fetch(address, path, body=None):
    data = body.encode() if isinstance(body, str) else body
    with urlopen(Request(f"http://{address}{path}", data, {"Content-Type": "application/json"})) as response:
        return json.load(response)


def check_metadata(address):
    server = MetadataServerResponse.model_validate(fetch(address, "/v2"))
    assert server.name == "litelambda"
    model = MetadataModelResponse.model_validate(fetch(address, "/v2/models/tiny"))
    assert model.inputs[0].shape == [-1, 4]


def check_repository_index(address):
    index = RepositoryIndexResponse.model_validate(fetch(address, "/v2/repository/index", "{}"))
    assert {"tiny", "half_plus_two"} <= {item.name for item in index.root}


def check_strings(address):
    request = InferenceRequest(
        inputs=[RequestInput(name="text", shape=[1, 2], datatype="BYTES", data=["red", "gr\u00fcn"])]
    )
    body = fetch(address, "/v2/models/strings/infer", request.model_dump_json(exclude_none=True))
    outputs = {output.name: output for output in InferenceResponse.model_validate(body).outputs}
    assert outputs["echo"].data.root == ["red", "gr\u00fcn"]


def check_infer(address):
    request = InferenceRequest(
        id="9", inputs=[RequestInput(name="x", shape=[1, 4], datatype="FP32", data=[0.1, 0.2, 0.3, 0.4])]
    )
    body = fetch(address, "/v2/models/tiny/infer", request.model_dump_json(exclude_none=True))
    response = InferenceResponse.model_validate(body)
    assert (response.id, response.model_name, response.model_version) == ("9", "tiny", "2")
    assert response.outputs[0].shape == [1, 3]
    assert len(response.outputs[0].data.root) == 3


def check_null_is_absence(address):
    data = [0.1, 0.2, 0.3, 0.4]
    tensor = RequestInput(name="x", shape=[1, 4], datatype="FP32", data=data, parameters=Parameters())
    request = InferenceRequest(inputs=[tensor], outputs=[RequestOutput(name="probabilities")], parameters=Parameters())
    every_field = request.model_dump(exclude_unset=False, exclude_none=False)
    assert "null" in json.dumps(every_field)
    answers = [
        fetch(address, "/v2/models/tiny/infer", json.dumps(fields)) for fields in (every_field, request.model_dump())
    ]
    assert answers[0] == answers[1]
