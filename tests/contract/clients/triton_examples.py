"""What Triton's own example clients do and expect: simple_http_infer, its aio twin, health_metadata, image_client.

Left out is what only Triton can be or has: the server's name, shared memory, a configuration sent along with a load.
"""

from pathlib import Path

import numpy as np
import tritonclient.http as triton
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([10, -1], np.int32)
QUERY = {"test_1": 1, "test_2": 2}
UNKNOWN = "Request for unknown model"
NOT_OFFERED = "501"
MOBILENET = np.load(Path(__file__).parents[2] / "golden" / "mobilenet.npz")


def make_inputs(module):
    a = module.InferInput("a", [2, 3], "FP32").set_data_from_numpy(A, binary_data=False)
    b = module.InferInput("b", [2], "INT32").set_data_from_numpy(B, binary_data=True)
    return [a, b]


def make_outputs(module):
    return [
        module.InferRequestedOutput("total", binary_data=True),
        module.InferRequestedOutput("twice", binary_data=False),
    ]


def assert_right(result):
    assert result.as_numpy("total").tolist() == (A.sum(axis=1) + B).tolist()
    assert result.as_numpy("twice").tolist() == (B * 2).tolist()


def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except InferenceServerException as error:
        return error
    raise AssertionError("no error was raised")


def check_simple_infer(address):
    client = triton.InferenceServerClient(address)
    for outputs in (make_outputs(triton), None):
        for request in (None, "gzip", "deflate"):
            for response in (None, "gzip", "deflate"):
                result = client.infer(
                    "two_by_two", make_inputs(triton), outputs=outputs, query_params=QUERY, headers={"test": "1"},
                    request_compression_algorithm=request, response_compression_algorithm=response,
                )  # fmt: skip
                assert_right(result)
    assert len(client.get_inference_statistics(model_name="two_by_two")["model_stats"]) == 1
    error = error_of(client.infer, "wrong_model_name", make_inputs(triton), outputs=make_outputs(triton))
    assert error.message().startswith(UNKNOWN), error


async def check_simple_infer_aio(address):
    client = aio.InferenceServerClient(address)
    try:
        for outputs in (make_outputs(aio), None):
            for request in (None, "gzip", "deflate"):
                for response in (None, "gzip", "deflate"):
                    result = await client.infer(
                        "two_by_two", make_inputs(aio), outputs=outputs, query_params=QUERY,
                        request_compression_algorithm=request, response_compression_algorithm=response,
                    )  # fmt: skip
                    assert_right(result)
        statistics = await client.get_inference_statistics(model_name="two_by_two")
        assert len(statistics["model_stats"]) == 1
        try:
            await client.infer("wrong_model_name", make_inputs(aio))
        except InferenceServerException as error:
            assert error.message().startswith(UNKNOWN), error
        else:
            raise AssertionError("no error was raised")
    finally:
        await client.close()


def check_health_and_metadata(address):
    client = triton.InferenceServerClient(address)
    assert client.is_server_live(query_params=QUERY)
    assert client.is_server_ready()
    assert client.is_model_ready("two_by_two")
    assert client.get_model_metadata("two_by_two", query_params=QUERY)["name"] == "two_by_two"
    for ask in (client.get_model_metadata, client.get_model_config, client.get_inference_statistics):
        assert UNKNOWN in error_of(ask, "wrong_model_name").message()
    assert not client.is_model_ready("wrong_model_name")


def check_model_control(address):
    client = triton.InferenceServerClient(address)
    client.load_model("two_by_two")
    assert client.is_model_ready("two_by_two")
    for options in ({"config": '{"max_batch_size": "16"}'}, {"config": "{}", "files": {"file:1/model.tflite": b"x"}}):
        assert "failed to load" in error_of(client.load_model, "two_by_two", **options).message()
    assert "failed to load" in error_of(client.load_model, "wrong_model_name").message()


def check_what_a_function_has_not_is_said(address):
    client = triton.InferenceServerClient(address)
    for ask, *arguments in (
        (client.get_system_shared_memory_status,),
        (client.register_system_shared_memory, "region", "/key", 64),
        (client.unregister_system_shared_memory,),
        (client.get_cuda_shared_memory_status, "region"),
        (client.register_cuda_shared_memory, "region", b"handle", 0, 64),
        (client.unregister_cuda_shared_memory, "region"),
        (client.get_trace_settings,),
        (client.get_trace_settings, "two_by_two"),
        (client.get_log_settings,),
    ):
        assert error_of(ask, *arguments).status() == NOT_OFFERED, ask


def describe_images(client):
    """Batch size, input, output, format and size, as image_client reads them off a model."""
    metadata, config = client.get_model_metadata("mobilenet"), client.get_model_config("mobilenet")
    (tensor,), (output,), (configured,) = metadata["inputs"], metadata["outputs"], config["input"]
    batched = config["max_batch_size"] > 0
    assert output["datatype"] == "FP32"
    assert sum(size > 1 for size in output["shape"][batched:]) == 1
    assert len(tensor["shape"]) == 3 + batched
    assert configured["format"] == "FORMAT_NHWC"
    return config["max_batch_size"], tensor, output, tensor["shape"][batched:]


def check_images(address):
    client = triton.InferenceServerClient(address)
    max_batch_size, tensor, output, size = describe_images(client)
    assert size == [32, 32, 3]
    assert max_batch_size >= 8
    pixels = (MOBILENET["pictures"].astype(np.float32) / 127.5) - 1  # its scaling INCEPTION
    for batch in (1, 8):
        for start in range(0, 8, batch):
            rows = pixels[start : start + batch]
            sent = triton.InferInput(tensor["name"], rows.shape, tensor["datatype"]).set_data_from_numpy(rows)
            wanted = triton.InferRequestedOutput(output["name"], class_count=3)
            answer = client.infer("mobilenet", [sent], outputs=[wanted]).as_numpy(output["name"])
            assert len(answer) == batch
            for classes, expected in zip(answer, MOBILENET["answers"][start:], strict=False):
                assert_classes(classes, expected)


def assert_classes(classes, expected):
    """Three classes, best first; the first is Keras' own wherever its lead is more than int8 weights can change."""
    values, indices, labels = zip(*("".join(chr(code) for code in text).split(":") for text in classes), strict=True)
    assert list(labels) == [f"class {index}" for index in indices]
    assert sorted(map(float, values), reverse=True) == list(map(float, values))
    best, second = np.sort(expected)[:-3:-1]
    assert abs(float(values[0]) - best) < 0.2
    if best - second > 0.3:
        assert int(indices[0]) == expected.argmax()
