"""Tables that a SavedModel fills from files: its own assets are read, a file that its graph names is not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litelambda.common.errors import ConversionError
from litelambda.conversion.saved_model_check import check_saved_model
from litelambda.keras_tools.backend import load_tensorflow

pytestmark = pytest.mark.slow

REFUSED = r"outside the model \(InitializeTableFromTextFileV2\): it was not loaded, and nothing of it was run"


def saved_model(folder: Path, read: Callable[[Any, str, Any], Any] | None) -> Path:
    """A SavedModel with a table of the words of a file: its asset, unless `read` gives the operator another name."""
    tf = load_tensorflow()
    words = folder / "words.txt"
    words.write_text("a\nb\n")
    index = tf.lookup.TextFileIndex

    class Reading(tf.lookup.TextFileInitializer):  # type: ignore[misc]  # TensorFlow has no types
        """Reads another file than its asset once it is in a graph."""

        def initialize(self, table: Any) -> Any:
            fill = functools.partial(fill_table, tf, table.resource_handle)
            if read is None or tf.executing_eagerly():
                return fill(self._filename)
            return read(tf, str(words), fill)

    module = tf.Module()
    reading = Reading(str(words), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
    module.table = tf.lookup.StaticHashTable(reading, -1)
    module.serve = tf.function(
        lambda words: {"y": module.table.lookup(words)}, input_signature=[tf.TensorSpec([2], tf.string, name="words")]
    )
    tf.saved_model.save(module, str(folder / "saved"), signatures={"serving_default": module.serve})
    return folder / "saved"


def fill_table(tf: Any, table: Any, name: Any) -> Any:
    return tf.raw_ops.InitializeTableFromTextFileV2(table_handle=table, filename=name, key_index=-2, value_index=-1)


def test_a_table_of_an_asset_passes(tmp_path: Path) -> None:
    """What TensorFlow saves as an asset goes through a variable and two functions to the table, and is found there."""
    assert check_saved_model(saved_model(tmp_path, None)) == "float32"


@pytest.mark.parametrize(
    "read",
    [
        lambda tf, path, fill: fill(tf.constant(path)),
        lambda tf, path, fill: fill(tf.identity(tf.constant(path))),
        lambda tf, path, fill: fill(tf.strings.join([path, ""])),
        lambda tf, path, fill: fill(tf.function(tf.identity)(tf.constant(path))),
        lambda tf, path, fill: tf.function(lambda name: [fill(name)][1:])(tf.constant(path)),
    ],
    ids=["a constant", "behind an identity", "put together", "out of a function", "into a function"],
)
def test_a_table_of_a_file_that_the_graph_names_is_refused(
    tmp_path: Path, read: Callable[[Any, str, Any], Any]
) -> None:
    """However the name gets to the table."""
    with pytest.raises(ConversionError, match=REFUSED):
        check_saved_model(saved_model(tmp_path, read))


def test_a_file_that_is_not_listed_as_an_asset_is_refused(tmp_path: Path) -> None:
    """What the initializer is called with has to be on the SavedModel's list of assets."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = saved_model(tmp_path, None)
    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (graph,) = model.meta_graphs
    graph.asset_file_def.pop()
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionError, match=REFUSED):
        check_saved_model(path)


@pytest.mark.parametrize("name", ["../variables/variables.index", "/etc/hostname", "../../words.txt"])
def test_an_asset_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    """The SavedModel's own list of assets cannot name files of the machine either."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = saved_model(tmp_path, None)
    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    model.meta_graphs[0].asset_file_def[0].filename = name
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionError, match="which is outside its folder 'assets': it was not loaded"):
        check_saved_model(path)
