"""Training shared by several devices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from litelambda.common.errors import TrainError
from litelambda.recipe.load import load_recipe
from litelambda.training.devices import device_scope

SCRIPT = """
import sys
from litelambda.keras_tools.backend import load_tensorflow
tf = load_tensorflow()
one, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(one, [tf.config.LogicalDeviceConfiguration()] * 2)
from litelambda.recipe.load import load_recipe
from litelambda.data.dataset import load_data
from litelambda.training.train import train
recipe = load_recipe(sys.argv[1], ["train.epochs=3", "train.devices=['CPU:0', 'CPU:1']"])
data = load_data(recipe.data, recipe.folder)
trained = train(recipe.model, recipe.train, data, recipe.folder, lambda *_: None)
trained.model.save(sys.argv[2])
print(trained.history["loss"][0] > trained.history["loss"][-1], type(trained.model.weights[0].value).__name__)
"""


@pytest.mark.slow
def test_two_devices_share_a_training(tiny_recipe: Path, tmp_path: Path) -> None:
    """Every batch is split between two logical CPU devices; what comes out is a plain model that learned."""
    command = [sys.executable, "-c", SCRIPT, str(tiny_recipe), str(tmp_path / "model.keras")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[0] == "True"
    assert "Mirrored" not in done.stdout
    assert (tmp_path / "model.keras").stat().st_size > 0


def test_a_device_that_is_not_there_is_named(tiny_recipe: Path) -> None:
    """The error lists what there is."""
    devices = load_recipe(tiny_recipe, ["train.devices=['GPU:7']"]).train.devices
    with pytest.raises(TrainError, match=r"train\.devices: no device GPU:7; this machine has CPU:0"):
        device_scope(devices)
