"""Trains with open_clip, step for step as `open_clip_train` does, for the benchmark to measure.

Speaks what `clade-worker bench` speaks, and takes its arguments. Once loaded it prints
`{"ready": true, ...}`; for each line with a number N on stdin it trains N steps, and prints a line
for each and one with the time they took; it ends with stdin.

Nothing here may hold the peer back. What a loader would do beforehand is done beforehand: pictures
are normalised, and on a GPU they lie on the device already (`--inputs loader` copies them from pinned
memory in each step, as open_clip_train does). The optimizer is the faster of PyTorch's default and
its fused one. Losses are read after a round and not after each step, where reading would be a wait.
"""

import argparse
import json
import math
import pathlib
import sys
import time

import open_clip
import torch
from open_clip_train.precision import get_autocast
from safetensors import safe_open
from safetensors.torch import load_file

LARGEST_LOGIT_SCALE = math.log(100)
PRECISIONS = {"f32": "fp32", "bf16": "amp_bf16"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["bench"], help="accepted, so that it can stand in for clade-worker")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of open_clip_config.json and weights")
    parser.add_argument("--batches", type=pathlib.Path, required=True, help="pixels u8 and tokens i64, batch by batch")
    parser.add_argument("--device", default="auto", help="cpu, cuda:0 or auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="f32", help="bf16 is open_clip's amp_bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, help="accepted; the peer computes whole batches")
    parser.add_argument("--recompute", "--grad-checkpointing", action="store_true")
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--weight-decay", type=float, default=0.2)
    parser.add_argument("--torchcompile", action="store_true")
    parser.add_argument("--optimizer", choices=["auto", "default", "fused"], default="auto")
    parser.add_argument("--inputs", choices=["ready", "loader"], default="ready")
    return parser.parse_args()


def load_model(args, device):
    config = json.loads((args.model / "open_clip_config.json").read_text())
    config["model_cfg"].pop("custom_text", None)
    model = open_clip.CLIP(**config["model_cfg"], output_dict=True)
    model.load_state_dict(load_file(args.model / "open_clip_model.safetensors"))
    model.to(device).train()
    if args.recompute:
        model.set_grad_checkpointing()
    return model, config["preprocess_cfg"]


def load_batches(args, device, preprocess):
    """Every batch, normalised as ToTensor and Normalize would."""
    mean, std = (torch.tensor(preprocess[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    place = device if args.inputs == "ready" else torch.device("cpu")
    batches = []
    with safe_open(args.batches, framework="pt") as file:
        pixels, tokens = file.get_slice("pixels"), file.get_slice("tokens")
        for index in range(pixels.get_shape()[0]):
            # In place, since a second copy would count as the peer's peak memory.
            images = pixels[index].float().div_(255).sub_(mean).div_(std)
            pair = images.to(place), tokens[index].to(place)
            batches.append(tuple(it.pin_memory() for it in pair) if device.type == "cuda" and place.type == "cpu" else pair)
    return batches


def make_optimizer(model, rate, decay, fused):
    """The groups and arguments of open_clip_train/main.py."""
    exclude = lambda n, p: p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if exclude(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in named if not exclude(n, p)], "weight_decay": decay},
    ]
    # open_clip leaves `foreach` and `fused` alone: a plain loop on a CPU, `foreach` on a GPU.
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6, **({"fused": True} if fused else {}))


class Peer:
    def __init__(self, args):
        torch.set_num_threads(args.threads)
        name = args.device if args.device != "auto" else "cuda:0" if torch.cuda.is_available() else "cpu"
        self.args, self.device = args, torch.device(name)
        if self.device.type == "cuda":  # as open_clip_train/main.py does
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        self.model, preprocess = load_model(args, self.device)
        self.batches = load_batches(args, self.device, preprocess)
        self.forward = torch.compile(self.model) if args.torchcompile else self.model
        self.autocast = get_autocast(PRECISIONS[args.precision], device_type=self.device.type)
        self.loss = open_clip.ClipLoss()
        self.step, self.optimizer = 0, None
        self.choose_optimizer()

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def gradients(self, batch, forward):
        images, texts = (it.to(self.device, non_blocking=True) for it in batch)
        with self.autocast():
            losses = self.loss(**forward(images, texts), output_dict=True)
            total = sum(losses.values())
        total.backward()
        return total.detach()

    def choose_optimizer(self):
        """Takes the faster one, tried at a rate of nought, which moves no weight."""
        kinds = ["default", "fused"] if self.args.optimizer == "auto" else [self.args.optimizer]
        self.seconds = {}
        if len(kinds) > 1:
            # Not through `forward`: a compiled model that has seen two batch sizes is compiled anew, for any size.
            self.gradients(tuple(it[:1] for it in self.batches[0]), self.model)
            for kind in kinds:
                trial = make_optimizer(self.model, 0.0, self.args.weight_decay, kind == "fused")
                trial.step()  # makes its state
                self.seconds[kind] = math.inf
                for _ in range(3):
                    self.synchronize()
                    start = time.perf_counter()
                    trial.step()
                    self.synchronize()
                    self.seconds[kind] = min(self.seconds[kind], time.perf_counter() - start)
                del trial
        self.kind = min(self.seconds, key=self.seconds.get, default=kinds[0])
        self.optimizer = make_optimizer(self.model, self.args.learning_rate, self.args.weight_decay, self.kind == "fused")
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def ready(self):
        return {
            "ready": True,
            "device": str(self.device),
            "deviceName": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "optimizer": self.kind,
            "optimizerSeconds": self.seconds,
            "torch": torch.__version__,
            "openClip": open_clip.__version__,
        }

    def peaks(self):
        status = pathlib.Path("/proc/self/status").read_text()
        host = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        if self.device.type == "cpu":
            return {"peakBytes": host, "peakHostBytes": host}
        peak = torch.cuda.max_memory_allocated()
        if self.args.inputs == "ready":
            # Real training has one batch on the device at a time; the others lie there only to save it time.
            peak -= sum(it.numel() * it.element_size() for batch in self.batches[1:] for it in batch)
        return {"peakBytes": peak, "peakHostBytes": host}

    def train(self, steps):
        losses, scales, ends = [], [], []
        self.synchronize()
        start = time.perf_counter()
        for step in range(self.step, self.step + steps):
            self.optimizer.zero_grad()
            losses.append(self.gradients(self.batches[step % len(self.batches)], self.forward))
            self.optimizer.step()
            with torch.no_grad():
                self.model.logit_scale.clamp_(0, LARGEST_LOGIT_SCALE)
            scales.append(self.model.logit_scale.detach().clone())
            ends.append(time.perf_counter())
        self.synchronize()
        seconds = time.perf_counter() - start
        pairs = len(self.batches[0][1])
        if self.device.type == "cuda":  # the host runs ahead of the device: single steps have no times
            ends = [start + seconds * (i + 1) / steps for i in range(steps)]
        for loss, scale, begin, end in zip(losses, scales, [start, *ends], ends):
            say({"step": self.step, "loss": loss.item(), "logitScale": scale.item(), "lr": self.args.learning_rate, "samplesPerSecond": pairs / (end - begin)})
            self.step += 1
        say({"done": steps, "seconds": seconds, **self.peaks()})


def say(value):
    print(json.dumps(value), flush=True)


def main():
    try:
        peer = Peer(arguments())
        say(peer.ready())
        for line in sys.stdin:
            peer.train(int(line))
    except Exception as error:  # whoever measures wants one line and a status
        sys.exit(f"open_clip_peer: {type(error).__name__}: {' '.join(str(error).split())}")


main()
