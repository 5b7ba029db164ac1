"""MLflow's scoring protocol: POST /invocations with {"inputs": numbers}, answered by {"predictions": ...}.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/#inference-server-specification
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from evofool.errors import TargetError
from evofool.targets.remote.client import HttpClient, Message
from evofool.targets.remote.numbers import Numbers
from evofool.targets.remote.other_protocol import other_protocol
from evofool.targets.remote.protocol import Codec
from evofool.targets.remote.responses import brief
from evofool.targets.spec import Spec


class MLflow:
    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def describe(self, client: HttpClient) -> dict[str, Any]:
        return {"missing": "nothing: MLflow's servers do not"}

    def checked(self, described: dict[str, Any]) -> dict[str, Any]:
        return described

    def codec(self, described: Mapping[str, Any], shape: tuple[int, int, int]) -> Codec:
        numbers = Numbers.of(self._spec, shape)

        def encode(images: list[np.ndarray]) -> Message:
            return Message("POST", json.dumps({"inputs": numbers.array(images).tolist()}).encode())

        def entries(answer: Any, images: int) -> list[Any]:
            found = answer.get("predictions") if isinstance(answer, dict) else None
            if not isinstance(found, list):
                raise TargetError(
                    f'the answer is {brief(answer)}; it has to have "predictions", a list{other_protocol(answer, "mlflow")}'
                )
            return found

        return Codec(encode, entries, numbers.preprocessing, None, {"protocol": "mlflow", **numbers.details()})
