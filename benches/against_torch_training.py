"""Samples a second of a denoiser's training step in PyTorch, on the GPU.

The network is the one `gen3d train prior` trains, built by diffusers from its own config; the text encoder (one
million parameters) is left out, which favours PyTorch. Compare with the rate of
`gen3d train prior --device cuda`.

    python3 benches/against_torch_training.py models/mini/unet/config.json --batch 512
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    config = {k: v for k, v in json.load(open(args.config)).items() if not k.startswith("_")}
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    for kind in ["tf32", "bf16"]:
        torch.manual_seed(0)
        net = UNet2DConditionModel(**config).cuda()
        if kind == "bf16":
            net = net.to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
        b, s = args.batch, config["sample_size"]
        x = torch.randn(b, config["in_channels"], s, s, device="cuda")
        target = torch.randn(b, config["out_channels"], s, s, device="cuda")
        t = torch.randint(0, 1000, (b,), device="cuda")
        context = torch.randn(b, 24, config["cross_attention_dim"], device="cuda")
        cameras = torch.randn(b, 16, device="cuda")

        def step():
            with torch.autocast("cuda", torch.bfloat16, enabled=kind == "bf16"):
                out = net(x, t, context, class_labels=cameras).sample
            loss = F.mse_loss(out.float(), target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()

        for _ in range(5):
            step()
        torch.cuda.synchronize()
        start = time.time()
        for _ in range(args.steps):
            step()
        torch.cuda.synchronize()
        seconds = (time.time() - start) / args.steps
        print(f"{kind}: {1e3 * seconds:.1f} ms a step of {b}, {b / seconds:.0f} samples/s, "
              f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)


main()
