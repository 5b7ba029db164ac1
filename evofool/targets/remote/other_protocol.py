"""Which protocol a server speaks, by the JSON that it sends."""

from typing import Any


def other_protocol(value: Any) -> str:
    """Of a server's JSON: which protocol it belongs to, as the end of a sentence; "" if it belongs to none that is known."""
    if not isinstance(value, dict):
        return ""
    if value.get("format") == "evofool.target" or value.keys() & {"logits", "probabilities", "top"}:
        return '; this is evofool\'s own contract: name the server as "http://..."'
    if value.keys() >= {"model_name", "outputs"} or value.keys() >= {"inputs", "outputs", "platform"}:
        return '; this is the Open Inference Protocol: name the server as "kserve://HOST/v2/models/NAME"'
    if "predictions" in value:
        return (
            '; this is how MLflow and TensorFlow Serving answer: name the server as "mlflow+http://HOST/invocations", or '
            "give request=FILE and answer=predictions"
        )
    return ""
