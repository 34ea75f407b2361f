"""The runtime of the peer MLServer, which has none for LiteRT: `mlserver start` imports it by its name."""

from __future__ import annotations

from ai_edge_litert.interpreter import Interpreter
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class LiteRt(MLModel):  # type: ignore[misc]  # of another environment
    """One model."""

    async def load(self) -> bool:
        """In the worker's process."""
        interpreter = Interpreter(self.settings.parameters.uri, num_threads=1)
        self._run = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
        self._dtypes = {name: each["dtype"] for name, each in self._run.get_input_details().items()}
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the model."""
        inputs = {
            each.name: NumpyCodec.decode_input(each).astype(self._dtypes[each.name], copy=False).reshape(each.shape)
            for each in payload.inputs
        }
        outputs = [NumpyCodec.encode_output(name, value) for name, value in self._run(**inputs).items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)
