"""Seconds per seed and step: one compiled program for all seeds, beside PyTorch's loop over seeds.

    pip install ".[bench]"
    python benchmarks/train_seeds.py --output train_seeds.md

Trains the same models with Adam at batch 256:

- `autoencoder`: 28x28x1, stride-2 convolutions to 32 and 64 channels with kernel 3, latent
  dimension 64, mirrored, ReLU;
- `package-autoencoder`: the package's own `Autoencoder` of the same sizes (batch normalisation,
  GELU, decoder kernels of 4, one more convolution at full resolution: the papers' protocol);
- `mlp-128`, `mlp-512`: perceptrons 784-h-h-10.

Every method is a process of its own, and they take turns, repeat by repeat, so that a ratio
compares neighbours in time; a pause lets the threads of the one before fall asleep. PyTorch trains
one seed after another, with one and with two threads, the autoencoders also in channels-last
format; the best of those is what ours is divided into.
Without PyTorch our own figures are still measured.

Where JAX finds a GPU, both use it: XLA with TF32 matrix products, as is its default, and PyTorch
with the same allowed, each step launched from Python.
"""

import argparse
import importlib.util
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

# Several processes share a GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

# Seconds before each call: the threads of the library before spin for a while in wait of more work.
PAUSE = 0.3
NUM_SAMPLES, BATCH = 2560, 256
IMAGE, PIXELS, CLASSES = (28, 28, 1), 784, 10
CHANNELS, LATENT = (32, 64), 64
MODELS = {"autoencoder": None, "package-autoencoder": None, "mlp-128": 128, "mlp-512": 512}


def samples():
    rng = np.random.default_rng(0)
    images = rng.random((NUM_SAMPLES, *IMAGE), dtype=np.float32)
    return images, rng.integers(0, CLASSES, NUM_SAMPLES).astype(np.int32)


def relrep_jax_runner(model_name: str, strategy: str, devices: int, seeds: int):
    """`steps -> seconds` for our compiled loop, already warm."""
    from relrep_jax.training.seeds import use_host_devices

    use_host_devices(devices)
    import jax
    from flax import nnx

    from relrep_jax.models import Autoencoder, Representation, functional
    from relrep_jax.models.convolution import Conv, convolve_transpose
    from relrep_jax.training.loop import init_state, train_steps
    from relrep_jax.training.losses import cross_entropy, mean_squared_error
    from relrep_jax.training.optimizers import make_optimizer
    from relrep_jax.training.seeds import over_seeds, plan_seeds, update_seeds

    class Perceptron(nnx.Module):
        def __init__(self, width, *, rngs):
            self.layers = nnx.List(
                [nnx.Linear(a, b, rngs=rngs) for a, b in ((PIXELS, width), (width, width))]
            )
            self.head = nnx.Linear(width, CLASSES, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers:
                x = jax.nn.relu(layer(x))
            return self.head(x)

    class Mirrored(nnx.Module):
        def __init__(self, *, rngs):
            first, second = CHANNELS
            flat = second * 7 * 7
            down = {"kernel_size": 3, "strides": 2, "padding": 1, "rngs": rngs}
            self.encoder = nnx.List([Conv(1, first, **down), Conv(first, second, **down)])
            self.to_latent = nnx.Linear(flat, LATENT, rngs=rngs)
            self.expand = nnx.Linear(LATENT, flat, rngs=rngs)
            init = nnx.initializers.lecun_normal()
            self.up = nnx.Param(init(rngs.params(), (3, 3, first, second)))
            self.last = nnx.Param(init(rngs.params(), (3, 3, 1, first)))

        def __call__(self, x):
            for layer in self.encoder:
                x = jax.nn.relu(layer(x))
            x = jax.nn.relu(self.expand(self.to_latent(x.reshape(len(x), -1))))
            x = x.reshape(len(x), 7, 7, CHANNELS[-1])
            x = jax.nn.relu(convolve_transpose(x, self.up[...], 2, 1, output_size=(14, 14)))
            return jax.nn.sigmoid(convolve_transpose(x, self.last[...], 2, 1, output_size=(28, 28)))

    if model_name == "autoencoder":
        model = functional(lambda rngs: Mirrored(rngs=rngs))

        def loss(variables, batch, context, key):
            prediction, stats = model.apply(variables, "__call__", batch["image"])
            return mean_squared_error(prediction, batch["image"]), (stats, {})
    elif model_name == "package-autoencoder":
        model = functional(
            lambda rngs: Autoencoder(
                IMAGE,
                channels=CHANNELS,
                latent_dim=LATENT,
                representation=Representation("absolute"),
                num_anchors=1,
                rngs=rngs,
            )
        )

        def loss(variables, batch, context, key):
            (prediction, _), stats = model.apply(
                variables, "reconstruct", batch["image"], None, key, train=True
            )
            return mean_squared_error(prediction, batch["image"]), (stats, {})
    else:
        model = functional(lambda rngs: Perceptron(MODELS[model_name], rngs=rngs))

        def loss(variables, batch, context, key):
            x = batch["image"].reshape(-1, PIXELS)
            logits, stats = model.apply(variables, "__call__", x)
            return cross_entropy(logits, batch["label"]), (stats, {})

    optimizer = make_optimizer("adam", 1e-3)
    plan = plan_seeds(seeds, strategy)
    images, labels = samples()
    data = plan.share({"image": images, "label": labels})
    steps_per_call = NUM_SAMPLES // BATCH

    def steps(state, data):
        return train_steps(
            loss, optimizer, state, data, lambda data: None,
            batch_size=BATCH, num_steps=steps_per_call,
        )  # fmt: skip

    run = update_seeds(steps, plan)
    init = over_seeds(lambda seed: init_state(model, optimizer, seed), plan)
    state = init(plan.slots(range(seeds)))
    state, _ = jax.block_until_ready(run(state, data))

    def timed(num_steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(num_steps // steps_per_call):
            state, _ = run(state, data)
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return timed


def torch_runner(model_name: str, device: str, threads: int, channels_last: bool, seeds: int):
    """`steps -> seconds` for PyTorch, one seed after another, already warm."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    images, labels = samples()
    if "autoencoder" in model_name:
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        targets = inputs
        first, second = CHANNELS
        flat = second * 7 * 7

        def build():
            if model_name == "autoencoder":
                return nn.Sequential(
                    nn.Conv2d(1, first, 3, 2, 1), nn.ReLU(),
                    nn.Conv2d(first, second, 3, 2, 1), nn.ReLU(),
                    nn.Flatten(), nn.Linear(flat, LATENT),
                    nn.Linear(LATENT, flat), nn.ReLU(), nn.Unflatten(1, (second, 7, 7)),
                    nn.ConvTranspose2d(second, first, 3, 2, 1, 1, bias=False), nn.ReLU(),
                    nn.ConvTranspose2d(first, 1, 3, 2, 1, 1, bias=False), nn.Sigmoid(),
                )  # fmt: skip
            return nn.Sequential(
                nn.Conv2d(1, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.GELU(),
                nn.Conv2d(first, second, 3, 2, 1, bias=False), nn.BatchNorm2d(second), nn.GELU(),
                nn.Flatten(), nn.Linear(flat, LATENT), nn.GELU(),
                nn.Linear(LATENT, flat), nn.GELU(), nn.Unflatten(1, (second, 7, 7)),
                nn.ConvTranspose2d(second, first, 4, 2, 1, bias=False), nn.BatchNorm2d(first),
                nn.GELU(),
                nn.ConvTranspose2d(first, first, 4, 2, 1, bias=False), nn.BatchNorm2d(first),
                nn.GELU(),
                nn.Conv2d(first, 1, 3, 1, 1), nn.Sigmoid(),
            )  # fmt: skip

        criterion = nn.MSELoss()
    else:
        width = MODELS[model_name]
        inputs = torch.from_numpy(images.reshape(-1, PIXELS))
        targets = torch.from_numpy(labels).long()

        def build():
            return nn.Sequential(
                nn.Linear(PIXELS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                nn.Linear(width, CLASSES),
            )  # fmt: skip

        criterion = nn.CrossEntropyLoss()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    inputs, targets = inputs.to(device), targets.to(device)
    models = [build().to(device, memory_format=memory_format) for _ in range(seeds)]
    optimizers = [torch.optim.Adam(model.parameters(), 1e-3) for model in models]

    def timed(num_steps: int) -> float:
        start = time.perf_counter()
        for model, optimizer in zip(models, optimizers, strict=True):
            order = torch.randperm(NUM_SAMPLES, device=device)
            for step in range(num_steps):
                first = step * BATCH % NUM_SAMPLES
                indices = order[first : first + BATCH]
                x, y = inputs[indices], targets[indices]
                if channels_last:
                    x = x.contiguous(memory_format=memory_format)
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed(2)
    return timed


def serve(connection, make, arguments) -> None:
    """A process that makes a runner and times it whenever it is told to."""
    try:
        timed = make(*arguments)
        connection.send("ready")
        while (steps := connection.recv()) is not None:
            connection.send(timed(steps))
    except Exception as error:
        connection.send(error)


class Worker:
    """A method in a process of its own, which gets ready in the background."""

    def __init__(self, make, *arguments):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()

    def wait(self) -> None:
        """Until it is ready."""
        self._receive()

    def _receive(self):
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __call__(self, steps: int) -> float:
        self._connection.send(steps)
        return self._receive()

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()


def torch_methods(device: str, channels_last: bool) -> dict[str, tuple[str, int, bool]]:
    """Names of the ways in which PyTorch trains, with device, threads and format of each."""
    methods = {}
    for threads in (1, 2) if device == "cpu" else (1,):
        for last in (False, True) if channels_last else (False,):
            kind = f"{threads} thread{'s' * (threads > 1)}" if device == "cpu" else device
            methods[f"PyTorch, {kind}{', channels last' * last}"] = device, threads, last
    return methods


def find_device() -> tuple[str, str]:
    """The platform that JAX finds and the name of its first device, asked of a process that ends:
    it holds no memory of the device during the measurements."""
    code = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep=';')"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    platform_name, kind = answer.stdout.split("\n")[-2].split(";")
    return platform_name, kind


def spread(values) -> str:
    values = np.asarray(values)
    return f"{np.median(values):.3g} ({values.min():.3g}–{values.max():.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 4, 8])
    parser.add_argument("--steps", type=int, default=10, help="steps of each seed in a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--devices", type=int, default=2, help="XLA host devices")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    has_torch = importlib.util.find_spec("torch") is not None
    jax_platform, kind = find_device()
    if jax_platform == "cpu":
        kind = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    elif has_torch:
        import torch

        has_torch = torch.cuda.is_available()
    device = "cpu" if jax_platform == "cpu" else "cuda"

    lines = [
        f"Batch {BATCH}, milliseconds per seed and step, median (min–max) of {arguments.repeats} "
        f"repeats of {arguments.steps} steps; ratio: PyTorch's best divided by ours, repeat by "
        f"repeat. {kind}, Python {platform.python_version()}.",
        "",
        "| model | seeds | method | ms per seed and step | PyTorch's best ÷ this |",
        "| :--- | ---: | :--- | ---: | ---: |",
    ]
    for model in arguments.models:
        for seeds in arguments.seeds:
            workers = {
                "relrep_jax auto": Worker(
                    relrep_jax_runner, model, "auto", arguments.devices, seeds
                ),
                "relrep_jax vmap": Worker(
                    relrep_jax_runner, model, "vmap", arguments.devices, seeds
                ),
            }
            if has_torch:
                for name, how in torch_methods(device, "autoencoder" in model).items():
                    workers[name] = Worker(torch_runner, model, *how, seeds)
            for worker in workers.values():
                worker.wait()
            times = {name: [] for name in workers}
            for _ in range(arguments.repeats):
                for name, worker in workers.items():
                    time.sleep(PAUSE)
                    seconds = worker(arguments.steps)
                    times[name].append(1e3 * seconds / (seeds * arguments.steps))
            for worker in workers.values():
                worker.close()
            peers = [np.array(values) for name, values in times.items() if "PyTorch" in name]
            best = min(peers, key=np.median) if peers else None
            for name, values in times.items():
                ratio = "–" if best is None else spread(best / np.array(values))
                lines.append(f"| {model} | {seeds} | {name} | {spread(values)} | {ratio} |")
                print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    print("\n" + table)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(table)


if __name__ == "__main__":
    main()
