"""What users of tritonclient's asynchronous HTTP client do, unchanged."""

import asyncio

import numpy as np
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

ROWS = np.array([[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]], np.float32)


def make_input(binary=True, rows=ROWS):
    tensor = triton.InferInput("x", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return tensor


async def check_health_and_metadata(address):
    async with triton.InferenceServerClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("tiny")
        assert not await client.is_model_ready("nope")
        assert (await client.get_server_metadata())["name"] == "litelambda"
        assert (await client.get_model_metadata("tiny"))["inputs"][0]["name"] == "x"
        assert (await client.get_model_config("tiny"))["name"] == "tiny"


async def check_infer_json_and_binary(address):
    async with triton.InferenceServerClient(address) as client:
        expected = (await client.infer("tiny", [make_input()])).as_numpy("probabilities")
        assert expected.shape == (2, 3)
        for binary in (True, False):
            outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
            result = await client.infer("tiny", [make_input(binary)], outputs=outputs, request_id="x")
            assert np.array_equal(result.as_numpy("probabilities"), expected)
            assert result.get_response()["id"] == "x"


async def check_strings(address):
    values = np.array([[b"red", b"\xff\x00"]], object)
    async with triton.InferenceServerClient(address) as client:
        tensor = triton.InferInput("text", [1, 2], "BYTES")
        tensor.set_data_from_numpy(values)
        result = await client.infer("strings", [tensor])
        assert result.as_numpy("echo").tolist() == values.tolist()


async def check_large_answers_come_compressed_and_are_read(address):
    async with triton.InferenceServerClient(address) as client:
        rows = np.tile(ROWS, (1000, 1))
        for request_algorithm in (None, "gzip", "deflate"):
            for response_algorithm in (None, "gzip", "deflate"):
                result = await client.infer(
                    "tiny",
                    [make_input(rows=rows)],
                    request_compression_algorithm=request_algorithm,
                    response_compression_algorithm=response_algorithm,
                )
                assert result.as_numpy("probabilities").shape == (2000, 3)


async def check_many_at_once(address):
    async with triton.InferenceServerClient(address) as client:
        results = await asyncio.gather(*(client.infer("tiny", [make_input()]) for _ in range(16)))
        assert len({result.as_numpy("probabilities").tobytes() for result in results}) == 1


async def check_classification(address):
    async with triton.InferenceServerClient(address) as client:
        outputs = [triton.InferRequestedOutput("probabilities", class_count=1)]
        answer = (await client.infer("tiny", [make_input()], outputs=outputs)).as_numpy("probabilities")
        assert answer.shape == (2, 1)
        assert answer[0][0].count(b":") == 2


async def check_errors(address):
    async with triton.InferenceServerClient(address) as client:
        for model, rows, status in (("nope", ROWS, "404"), ("tiny", ROWS[:, :2], "400")):
            try:
                await client.infer(model, [make_input(rows=rows)])
            except InferenceServerException as error:
                assert error.status() == status, error
                assert error.message()
            else:
                raise AssertionError("no error was raised")


async def check_repository_and_statistics(address):
    async with triton.InferenceServerClient(address) as client:
        assert {"tiny", "half_plus_two"} <= {entry["name"] for entry in await client.get_model_repository_index()}
        await client.load_model("two_by_two")
        await client.unload_model("two_by_two")
        assert (await client.get_inference_statistics("tiny"))["model_stats"][0]["name"] == "tiny"
