"""What users of KServe's inference client do, unchanged, in both of its protocols."""

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ROWS = np.array([[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]], np.float32)


def make_request(binary, **options):
    tensor = InferInput("x", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest("tiny", [tensor], **options)


async def check_v1_predict(address):
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    answer = await client.infer(f"http://{address}", {"instances": [1.0, 2.0, 5.0]}, model_name="half_plus_two")
    assert answer == {"predictions": [2.5, 3.0, 4.5]}


async def check_v1_health(address):
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_server_live(f"http://{address}")
    assert await client.is_model_ready(f"http://{address}", "tiny") is True


async def check_v1_explain(address):
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    answer = await client.explain(f"http://{address}", "tiny", {"instances": ROWS.tolist()})
    assert [len(answer[key]) for key in ("predictions", "explanations")] == [2, 2]


async def check_v1_errors(address):
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    try:
        await client.infer(f"http://{address}", {"instances": [[1.0]]}, model_name="tiny")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 400
        assert "Expecting tensor size: 4 but got: 1" in str(error)
    else:
        raise AssertionError("no error was raised")


async def check_v2_health(address):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(f"http://{address}") is True
    assert await client.is_server_ready(f"http://{address}") is True
    assert await client.is_model_ready(f"http://{address}", "tiny") is True


async def check_v2_infer_json_and_binary(address):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    answers = []
    for binary_in in (True, False):
        for binary_out in (True, False):
            request = make_request(
                binary_in,
                request_id="7",
                request_outputs=[RequestedOutput("probabilities", parameters={"binary_data": binary_out})],
            )
            response = await client.infer(f"http://{address}", request, model_name="tiny")
            (output,) = response.outputs
            assert isinstance(output, InferOutput)
            assert response.id == "7"
            assert response.model_name == "tiny"
            answers.append(output.as_numpy())
    assert answers[0].shape == (2, 3)
    assert all(np.allclose(answer, answers[0]) for answer in answers)


async def check_v2_errors(address):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    try:
        await client.infer(f"http://{address}", make_request(True), model_name="nope")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 404
        assert "nope" in str(error)
    else:
        raise AssertionError("no error was raised")
