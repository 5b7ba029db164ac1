"""Real servers, each in an environment of its own: `nox -s servers` makes these and runs this file; else it is skipped.

EVOFOOL_MLSERVER and EVOFOOL_MLFLOW are the Pythons of the environments. Both serve a network of scikit-learn for its own
digits of 8x8 pixels, trained on every second one.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evofool.errors import TargetError
from evofool.targets import target

pytestmark = pytest.mark.slow

FED = "size=8&channels=1&layout=flat&scale=16/255"  # the network was trained on numbers from 0 to 16
TRAIN = """
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
x, y = load_digits(return_X_y=True)
network = MLPClassifier((64,), random_state=0, max_iter=200).fit(x[::2], y[::2])
"""


def python_of(server: str) -> str:
    found = os.environ.get(f"EVOFOOL_{server.upper()}")
    if not found:
        pytest.skip(f"EVOFOOL_{server.upper()} does not name the Python of an environment with {server}")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as there:
        return int(there.getsockname()[1])


def until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 of the digits that the network was not trained on, one folder for each class."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    x, y = load_digits(return_X_y=True)
    for i in range(1, 1797, 6):
        (folder / str(y[i])).mkdir(exist_ok=True)
        Image.fromarray(np.round(x[i].reshape(8, 8) * 255 / 16).astype(np.uint8)).save(folder / str(y[i]) / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    python, folder, port = python_of("mlserver"), tmp_path_factory.mktemp("mlserver"), free_port()
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    model = {"name": "digits", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "./model.joblib"}}
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0}))
    (folder / "model-settings.json").write_text(json.dumps(model))
    subprocess.run([python, "-c", f"{TRAIN}import joblib\njoblib.dump(network, 'model.joblib')"], cwd=folder, check=True)
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(Path(python).with_name("mlserver")), "start", "."], cwd=folder, stdout=file, stderr=file
        )
    try:
        until_ready(f"http://127.0.0.1:{port}/v2/models/digits/ready", process, log)
        yield f"kserve://127.0.0.1:{port}/v2/models/digits"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    python, folder, port = python_of("mlflow"), tmp_path_factory.mktemp("mlflow"), free_port()
    save = "import mlflow\nmlflow.sklearn.save_model(network, 'model', pyfunc_predict_fn='predict_proba', "
    subprocess.run(
        [python, "-c", f"{TRAIN}{save}serialization_format='cloudpickle')"], cwd=folder, check=True, capture_output=True
    )
    log = folder / "log"
    command = ["models", "serve", "-m", "model", "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    path = {**os.environ, "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(Path(python).with_name("mlflow")), *command],
            cwd=folder,
            stdout=file,
            stderr=file,
            env=path,
            start_new_session=True,
        )
    try:
        until_ready(f"http://127.0.0.1:{port}/ping", process, log)
        yield f"mlflow+http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, 15)  # it starts others, which this one does not end
        process.wait()


def evofool(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "evofool", *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True)
    print(found.stdout)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    return found.stdout


def attack(spec: str, photographs: Path, folder: Path) -> None:
    """Check the target on photographs, evolve 500 images, verify them."""
    checked = evofool("targets", "check", spec, "--images", photographs, "--published", "0.94")
    assert "300 photographs; published: 0.94" in checked
    evolved = evofool(
        *("run", "mnist-cppn", "--set", f"target={spec}", "--set", "stop.evaluations=500"),
        *("--set", "stop.confidence=", "--out", folder),
    )
    assert "of 10 classes at 0.99 or more" in evolved
    assert "every image scored again" in evofool("verify", folder, "--trust")


def test_a_real_mlserver(mlserver: str, photographs: Path, tmp_path: Path) -> None:
    attack(f"{mlserver}?{FED}&output=predict_proba", photographs, tmp_path / "run")
    with pytest.raises(TargetError, match=r'mlserver .* has no such model \(HTTP 404: "Model other not found"\)'):
        target(f"{mlserver.replace('digits', 'other')}?{FED}")
    with pytest.raises(TargetError, match="its answers do not show which classes there are; give labels=FILE"):
        target(f"{mlserver}?{FED}")
    with pytest.raises(TargetError, match="this is the Open Inference Protocol"):
        target(mlserver.replace("kserve", "http"))


def test_a_real_mlflow_server(mlflow: str, photographs: Path, tmp_path: Path) -> None:
    attack(f"{mlflow}?{FED}", photographs, tmp_path / "run")
    with pytest.raises(TargetError, match="HTTP 400"):
        target(f"{mlflow}?size=9&channels=1&layout=flat")
