"""PyTorch's side of bench.ts: the same workloads, eager and tuned.

    python3 torch_peer.py '{"kind": "invert", "arch": "resnet18", "width": 64, ...}'

Prepares a workload, prints one JSON line, then makes one timed step for each
line of stdin and prints its milliseconds.

"eager" is the network as one writes it: NCHW, BatchNorm as a layer, parameters
that require gradients. "tuned" tries the settings in CANDIDATES, which compute
the same numbers, and goes on with the fastest in a fresh process, so that its
peak memory is its own.
"""
import ctypes
import json
import os
import sys
import time

# What a tuned run chooses from: sets of settings of Job.
CANDIDATES = {
    "invert": [
        "frozen",
        "frozen folded",
        "frozen folded channels_last",
        "frozen folded jit",
        "frozen folded onednn",
    ],
    "train": ["", "folded", "folded channels_last", "folded onednn"],
    "predict": [
        "frozen folded",
        "frozen folded channels_last",
        "frozen folded onednn",
        "frozen folded jit",
    ],
    "start": ["frozen folded"],
}
CUDA_CANDIDATES = {
    "invert": ["frozen folded autotune", "frozen folded channels_last autotune"],
    "train": ["autotune", "folded autotune", "folded channels_last autotune"],
    "predict": ["frozen folded autotune", "frozen folded channels_last autotune"],
    "start": ["frozen folded"],
}
# Seconds, at least, that each candidate is tried for, in rounds.
TRIAL_SECONDS = 1.0
TRIAL_ROUNDS = 2


def keep_large_blocks():
    """Tells malloc to reuse large blocks instead of returning their pages."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass  # another C library: its own defaults


JOB = json.loads(sys.argv[1])
if JOB["side"] != "eager":
    keep_large_blocks()

import torch  # noqa: E402 (malloc must be set up first)
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402


class Unit(nn.Module):
    """Convolution and BatchNorm."""

    def __init__(self, inputs, outputs, size, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")

    def forward(self, x):
        return self.norm(self.conv(x))


class Block(nn.Module):
    """Residual block: basic (2 units) or bottleneck (3, stride on the 3x3)."""

    def __init__(self, inputs, outputs, stride, bottleneck):
        super().__init__()
        if bottleneck:
            inner = outputs // 4
            units = [
                Unit(inputs, inner, 1),
                Unit(inner, inner, 3, stride),
                Unit(inner, outputs, 1),
            ]
        else:
            units = [Unit(inputs, outputs, 3, stride), Unit(outputs, outputs, 3)]
        self.units = nn.ModuleList(units)
        changes = stride != 1 or inputs != outputs
        self.shortcut = Unit(inputs, outputs, 1, stride) if changes else None

    def forward(self, x):
        y = x
        for unit in self.units[:-1]:
            y = F.relu(unit(y))
        y = self.units[-1](y)
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """CIFAR ResNet-18 or ImageNet ResNet-50; images in [0, 1]."""

    def __init__(self, arch, width, classes):
        super().__init__()
        self.large = arch == "resnet50"
        self.register_buffer("mean", torch.tensor([0.49, 0.48, 0.45]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.25, 0.24, 0.26]).view(1, 3, 1, 1))
        self.stem = Unit(3, width, 7, 2) if self.large else Unit(3, width, 3)
        expansion = 4 if self.large else 1
        blocks, channels = [], width
        for stage, depth in enumerate((3, 4, 6, 3) if self.large else (2, 2, 2, 2)):
            for i in range(depth):
                outputs = (width << stage) * expansion
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(Block(channels, outputs, stride, self.large))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, classes)

    def represent(self, images):
        x = F.relu(self.stem((images - self.mean) / self.std))
        if self.large:
            x = F.max_pool2d(x, 3, 2, 1)
        return F.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1)

    def forward(self, images):
        return self.fc(self.represent(images))


class Folded:
    """A ResNet in evaluation mode with BatchNorm folded into constant weights."""

    def __init__(self, net, channels_last=False, onednn=False, packed=False):
        self.net = net
        self.channels_last = channels_last
        self.onednn = onednn
        self.packed = packed  # oneDNN weights: not possible under autograd
        self.scale = 1 / net.std
        with torch.no_grad():
            self.stem = self.fold(net.stem)
            self.blocks = [
                (
                    [self.fold(unit) for unit in block.units],
                    block.shortcut and self.fold(block.shortcut),
                )
                for block in net.blocks
            ]

    def fold(self, unit):
        norm, conv = unit.norm, unit.conv
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = conv.weight * scale.view(-1, 1, 1, 1)
        bias = norm.bias - norm.running_mean * scale
        if self.packed:
            weight, bias = weight.to_mkldnn(), bias.to_mkldnn()
        elif self.channels_last:
            weight = weight.contiguous(memory_format=torch.channels_last)
        return weight, bias, conv.stride, conv.padding

    def represent(self, images):
        x = (images - self.net.mean) * self.scale
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.onednn:
            x = x.to_mkldnn()
        x = F.relu(torch.conv2d(x, *self.stem))
        if self.net.large:
            x = F.max_pool2d(x, 3, 2, 1)
        for units, shortcut in self.blocks:
            y = x
            for unit in units[:-1]:
                y = F.relu(torch.conv2d(y, *unit))
            y = torch.conv2d(y, *units[-1])
            x = F.relu(y + (torch.conv2d(x, *shortcut) if shortcut else x))
        x = F.adaptive_avg_pool2d(x, 1)
        return (x.to_dense() if self.onednn else x).flatten(1)

    def __call__(self, images):
        return self.net.fc(self.represent(images))


class Traced(nn.Module):
    """A function as a module, so that torch.jit can trace it."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def move(x, g, step_size):
    norm = g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return x + g * (step_size / (norm + 1e-10))


def project(x, center, epsilon):
    inside = center + (x - center).renorm(p=2, dim=0, maxnorm=epsilon)
    return inside.clamp_(0, 1)


class Job:
    """A workload under one candidate's settings; `step()` makes a step."""

    def __init__(self, job, candidate):
        torch.manual_seed(0)
        torch.set_num_threads(job["threads"])
        settings = candidate.split()
        self.device = job["device"]
        self.kind = job["kind"]
        self.folded = "folded" in settings
        self.layout = dict(
            channels_last="channels_last" in settings,
            onednn="onednn" in settings,
            packed="onednn" in settings and self.kind == "predict",
        )
        torch.backends.cudnn.benchmark = "autotune" in settings
        torch.backends.cuda.matmul.allow_tf32 = job["tf32"]
        torch.backends.cudnn.allow_tf32 = job["tf32"]
        net = ResNet(job["arch"], job["width"], job["classes"]).to(self.device)
        size = job["imageSize"]
        self.images = self.random(job["batchSize"], 3, size, size)
        if self.kind != "start":
            self.measure_statistics(net)
        self.net = net.eval()
        if "frozen" in settings:
            net.requires_grad_(False)
        if self.layout["channels_last"]:
            net.to(memory_format=torch.channels_last)
        self.step = dict(
            invert=self.invert, start=self.invert, train=self.train, predict=self.predict
        )[self.kind]("jit" in settings)

    def random(self, *shape):
        return torch.rand(*shape, device=self.device)

    def measure_statistics(self, net):
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            net.train()(self.random(8, *self.images.shape[1:]))
        for norm in norms:
            norm.momentum = 0.1

    def model(self):
        return Folded(self.net, **self.layout) if self.folded else self.net

    def invert(self, jit):
        represent = self.model().represent
        with torch.no_grad():
            target = represent(self.random(*self.images.shape))
        if jit:
            represent = torch.jit.trace(
                Traced(represent), self.images, check_trace=False
            )
        length = target.norm(dim=1)
        current = [self.images]

        def step():
            x = current[0].detach().requires_grad_(True)
            losses = (represent(x) - target).norm(dim=1) / length
            (g,) = torch.autograd.grad(losses.mean(), [x])
            with torch.no_grad():
                current[0] = project(move(x, g, -1.0), self.images, 1000.0)
            return float(losses.detach().mean())

        return step

    def predict(self, jit):
        model = self.model()
        labels = torch.randint(0, 10, self.images.shape[:1], device=self.device)
        if jit:
            traced = torch.jit.trace(
                Traced(model).eval(), self.images, check_trace=False
            )
            model = torch.jit.optimize_for_inference(torch.jit.freeze(traced))

        def step():
            with torch.no_grad():
                return int((model(self.images).argmax(1) == labels).sum())

        return step

    def train(self, _jit):
        net, images = self.net, self.images
        labels = torch.randint(0, 10, images.shape[:1], device=self.device)
        optimizer = torch.optim.SGD(
            net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4
        )

        def attack():
            net.eval()
            if self.folded:
                net.requires_grad_(False)
            model = self.model()
            noise = torch.randn_like(images)
            x = move(images, noise, 0.5).clamp_(0, 1)
            for _ in range(7):
                x = x.detach().requires_grad_(True)
                loss = F.cross_entropy(model(x), labels)
                (g,) = torch.autograd.grad(loss, [x])
                with torch.no_grad():
                    x = project(move(x, g, 0.1), images, 0.5)
            net.requires_grad_(True)
            return x

        def step():
            attacked = attack()
            loss = F.cross_entropy(net.train()(attacked), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return step

    def timed(self):
        started = time.perf_counter()
        self.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) * 1e3


def fastest(job, candidates):
    """Tries candidates in rounds, so that drift of the machine hits all alike."""
    times = {}
    for candidate in candidates:
        try:
            trial = Job(job, candidate)
            trial.timed()
            times[candidate] = (trial, [trial.timed()])
        except RuntimeError as error:
            print(f"{candidate}: {error}", file=sys.stderr)
    for _ in range(TRIAL_ROUNDS):
        for trial, results in times.values():
            end = time.perf_counter() + TRIAL_SECONDS / TRIAL_ROUNDS
            while True:
                results.append(trial.timed())
                if time.perf_counter() > end:
                    break
    best = {candidate: min(results) for candidate, (_, results) in times.items()}
    return min(best, key=best.get), best


def main():
    job = dict(JOB)
    if job["device"] == "auto":
        job["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    if job["side"] == "tuned":
        table = CUDA_CANDIDATES if job["device"] == "cuda" else CANDIDATES
        candidates = table[job["kind"]]
        tried = {}
        if len(candidates) > 1:
            job["candidate"], tried = fastest(job, candidates)
        else:
            job["candidate"] = candidates[0]
        if tried:
            job.update(side="chosen", tried=tried)
            os.execv(sys.executable, [sys.executable, __file__, json.dumps(job)])
    run = Job(job, job.get("candidate", ""))
    facts = {
        "version": f"PyTorch {torch.__version__}",
        "candidate": job.get("candidate", "") or "plain",
        "device": job["device"],
        "tried": job.get("tried", {}),
    }
    if job["kind"] == "start":
        print(json.dumps({"loss": run.step(), **facts}), flush=True)
        time.sleep(60)  # waits to be ended, so that its memory can still be read
        return
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(run.timed(), flush=True)


if __name__ == "__main__":
    main()
