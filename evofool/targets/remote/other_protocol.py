"""Which protocol a server speaks, by the JSON that it sends."""

from typing import Any


def other_protocol(value: Any, used: str) -> str:
    """Of a server's JSON: which other protocol it belongs to, as the end of a sentence; "" if to none that is known.

    used: the protocol by which it was asked, "own", "kserve", "mlflow" or "template".
    """
    if not isinstance(value, dict):
        return ""
    if value.get("format") == "evofool.target" or value.keys() & {"logits", "probabilities", "top"}:
        found, how = "own", 'evofool\'s own contract: name the server as "http://...", without request='
    elif value.keys() >= {"model_name", "outputs"} or value.keys() >= {"inputs", "outputs", "platform"}:
        found, how = "kserve", 'the Open Inference Protocol: name the server as "kserve://HOST/v2/models/NAME"'
    elif "predictions" in value:
        found = "mlflow"
        how = (
            'how MLflow and TensorFlow Serving answer: name the server as "mlflow+http://HOST/invocations", or give '
            "request=FILE and answer=predictions"
        )
    else:
        return ""
    # A template may be for predictions, and its answer= says already where these are.
    return "" if found == used or (found, used) == ("mlflow", "template") else f"; this is {how}"
