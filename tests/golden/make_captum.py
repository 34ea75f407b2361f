"""Write captum.npz: integrated gradients of an MLP and a CNN, as Captum computes them in PyTorch, with the weights.

    pip install torch captum    # in an environment of their own: the project uses neither
    python tests/golden/make_captum.py

Weights are in Keras' layout: kernels (inputs, outputs) and (height, width, inputs, outputs), pictures channels last.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import nn

ROWS, POINTS = 5, 400


def made(noise, *shape):
    """Weights that make outputs differ from row to row."""
    return noise.normal(0, 1.5 / np.sqrt(np.prod(shape[:-1])), shape)


def linear(kernel, bias):
    """A Dense layer."""
    layer = nn.Linear(*kernel.shape)
    layer.weight.data, layer.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias)
    return layer


class Cnn(nn.Module):
    """Conv 3 x 3 "same", relu, largest of 2 x 2, flattened channels last, two Dense layers, softmax."""

    def __init__(self, kernel, bias, *dense):
        super().__init__()
        self.conv = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
        self.conv.weight.data, self.conv.bias.data = (
            torch.tensor(kernel.transpose(3, 2, 0, 1).copy()),
            torch.tensor(bias),
        )
        self.hidden, self.last = linear(*dense[:2]), linear(*dense[2:])

    def forward(self, image):
        """Of pictures, channels last."""
        x = nn.functional.max_pool2d(self.conv(image.permute(0, 3, 1, 2)).relu(), 2)
        x = self.hidden(x.permute(0, 2, 3, 1).flatten(1)).relu()
        return self.last(x).softmax(1)


def main():
    """Write the file."""
    noise, found = np.random.default_rng(7), {}
    mlp = [made(noise, 6, 16), made(noise, 16), made(noise, 16, 8), made(noise, 8), made(noise, 8, 3), made(noise, 3)]
    cnn = [
        *(made(noise, 3, 3, 2, 4), made(noise, 4), made(noise, 64, 8), made(noise, 8), made(noise, 8, 3)),
        made(noise, 3),
    ]
    first, second, third = (linear(*mlp[start : start + 2]) for start in (0, 2, 4))
    models = {
        "mlp": (nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.Softmax(1)), mlp, (6,)),
        "cnn": (Cnn(*cnn), cnn, (8, 8, 2)),
    }
    for name, (model, weights, shape) in models.items():
        rows, baselines = noise.normal(size=(ROWS, *shape)), noise.normal(size=(ROWS, *shape)) / 2
        targets = np.arange(ROWS) % 3
        attributions = IntegratedGradients(model.double()).attribute(
            torch.tensor(rows),
            torch.tensor(baselines),
            target=torch.tensor(targets),
            n_steps=POINTS,
            method="gausslegendre",
        )
        found |= {f"{name}_weight_{place}": each.astype("float32") for place, each in enumerate(weights)}
        found |= {f"{name}_rows": rows.astype("float32"), f"{name}_baselines": baselines.astype("float32")}
        found |= {f"{name}_targets": targets, f"{name}_attributions": attributions.detach().numpy().astype("float32")}
    np.savez_compressed(Path(__file__).with_name("captum.npz"), **found)


if __name__ == "__main__":
    main()
