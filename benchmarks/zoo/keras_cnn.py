"""Train the Keras ``Sequential`` CNN and export it with tf2onnx, once per seed.

    python -m benchmarks.zoo.keras_cnn --digits mnist10k.npz

writes ``mnist_cnn_0.onnx`` to ``mnist_cnn_3.onnx``. Needs the extra ``frameworks``. The layout is
TensorFlow's, NHWC, so tf2onnx puts a Transpose on the way into the convolutions and out of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras
import onnx
import tensorflow as tf
import tf2onnx
from keras import layers

from .digits import Digits, load, split

MODELS = Path(__file__).parents[1] / "models"
OPSET = 17


def build() -> Any:
    """The network: 26 x 26 x 32, 13 x 13 x 32, 11 x 11 x 64, 5 x 5 x 64, 64, 10."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


def train(network: Any, digits: Digits, epochs: int) -> None:
    """Adam with a falling rate, 64 digits a step."""
    steps = epochs * -(-len(digits.labels) // 64)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    network.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    network.fit(digits.pixels("nhwc"), digits.labels, batch_size=64, epochs=epochs, verbose=2)


def export(network: Any, path: Path) -> None:
    """Write ``network`` as ONNX: ``image`` float32 ``[batch, 28, 28, 1]`` to ``probabilities``."""

    def probabilities(image: Any) -> dict[str, Any]:
        return {"probabilities": network(image, training=False)}

    signature = [tf.TensorSpec((None, 28, 28, 1), tf.float32, name="image")]
    model, _ = tf2onnx.convert.from_function(
        tf.function(probabilities), input_signature=signature, opset=OPSET
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the Keras CNNs.")
    parser.add_argument(
        "--digits", type=Path, required=True, help="the .npz of benchmarks.zoo.digits"
    )
    parser.add_argument("--output", type=Path, default=MODELS, help="folder for the models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    training, _ = split(load(options.digits))
    for seed in options.seeds:
        keras.utils.set_random_seed(seed)
        network = build()
        train(network, training, options.epochs)
        export(network, options.output / f"mnist_cnn_{seed}.onnx")


if __name__ == "__main__":
    main()
