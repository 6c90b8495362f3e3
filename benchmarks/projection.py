"""Time, memory and accuracy of pairwise similarities, beside PyTorch and scikit-learn.

    python benchmarks/projection.py --n 50000 --d 768 --m 768 --repeats 7 --output table.md

Anchors are a subset of the samples, as they mostly are in use. Repeats of all methods are
interleaved, so that a machine that grows slow is slow for all of them; ratios are taken within a
repeat. A pause before each call lets the worker threads of the library before it fall asleep.
Peak memory is what a child process that runs one method alone holds at most, beyond what it held
before there were inputs: inputs and result are part of it. Where JAX finds a GPU, torch uses it as
well, and the peak is that of the memory which each allocated there; scikit-learn stays on the CPU.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Several processes share a GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

SIMILARITIES = ("cosine", "euclidean", "manhattan", "chebyshev")
LIBRARIES = ("relrep_jax", "torch", "scikit-learn")
TORCH_ORDERS = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": float("inf")}
CHECKED_ROWS = 32
PAUSE = 0.3  # seconds; worker threads without work spin for less


def inputs(n: int, d: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d), dtype=np.float32)
    return x, x[rng.permutation(n)[:m]]


def method(library: str, similarity: str, x: np.ndarray, a: np.ndarray) -> Callable:
    """A function without arguments that computes all similarities and waits for the result."""
    if library == "relrep_jax":
        import jax

        import relrep_jax.similarities as similarities

        compiled = jax.jit(similarities.get(similarity))
        jax_x, jax_a = jax.device_put((x, a))
        return lambda: compiled(jax_x, jax_a).block_until_ready()
    if library == "torch":
        import torch

        device = torch_device()
        torch_x, torch_a = torch.from_numpy(x).to(device), torch.from_numpy(a).to(device)

        def waited(compute: Callable) -> Callable:
            def run():
                result = compute()
                if device == "cuda":
                    torch.cuda.synchronize()
                return result

            return run

        if similarity == "cosine":
            unit = torch.nn.functional.normalize
            return waited(lambda: unit(torch_x) @ unit(torch_a).T)
        return waited(lambda: torch.cdist(torch_x, torch_a, p=TORCH_ORDERS[similarity]))
    from sklearn.metrics import pairwise_distances
    from sklearn.metrics.pairwise import cosine_similarity

    if similarity == "cosine":
        return lambda: cosine_similarity(x, a)
    return lambda: pairwise_distances(x, a, metric=similarity)


def torch_device() -> str:
    """Where torch computes: on the kind of device that JAX uses.

    Raises:
        ImportError: JAX uses a GPU, and the installed torch has no use of it.
    """
    import jax
    import torch

    if jax.default_backend() != "gpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise ImportError("torch was built without CUDA.")
    return "cuda"


def exact(similarity: str, x: np.ndarray, a: np.ndarray) -> np.ndarray:
    """The same in float64, by differences."""
    x, a = x.astype(np.float64), a.astype(np.float64)
    if similarity == "cosine":
        product = x @ a.T
        return product / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(a, axis=1)
    order = TORCH_ORDERS[similarity]
    return np.stack([np.linalg.norm(row - a, ord=order, axis=1) for row in x])


def on_host(values) -> np.ndarray:
    """A result of any library as a NumPy array."""
    return values.cpu().numpy() if hasattr(values, "cpu") else np.asarray(values)


def errors(similarity: str, values: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Largest error (relative for distances), and the largest value where a distance is zero."""
    if similarity == "cosine":
        return float(np.abs(values - reference).max()), float("nan")
    zero = reference == 0
    relative = np.abs(values - reference)[~zero] / reference[~zero]
    return float(relative.max()), float(np.abs(values[zero]).max()) if zero.any() else float("nan")


def memory(field: str) -> float:
    """A field of this process's memory in MB, as Linux counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"No {field} in /proc/self/status.")


def child(library: str, similarity: str, n: int, d: int, m: int) -> None:
    """Print the peak memory of one method, in MB beyond that before there were inputs."""
    method(library, similarity, *inputs(100, 8, 10))()
    before = memory("VmRSS")
    x, a = inputs(n, d, m)
    run = method(library, similarity, x, a)
    if library == "relrep_jax":
        del x, a
    if (peak := device_peak(library)) is not None:
        run()
        print(json.dumps(peak()))
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    run()
    print(json.dumps(memory("VmHWM") - before))


def device_peak(library: str) -> Callable[[], float] | None:
    """What tells the most device memory, in MB, that a library has held; None on the CPU."""
    import jax

    if library == "scikit-learn" or jax.default_backend() != "gpu":
        return None
    if library == "torch":
        import torch

        return lambda: torch.cuda.max_memory_allocated() / 1e6
    return lambda: jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6


def peak_memory(library: str, similarity: str, arguments: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--child", library, similarity]
    command += [f"--{name}={getattr(arguments, name)}" for name in ("n", "d", "m")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        print(f"No peak memory of {library} {similarity}: {result.stderr[-300:]}", file=sys.stderr)
        return float("nan")
    return json.loads(result.stdout.splitlines()[-1])


def spread(values: np.ndarray) -> str:
    if not values.size:
        return "not timed"
    return f"{np.median(values):.3g} ({values.min():.3g} to {values.max():.3g})"


def processor() -> str:
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(arguments: argparse.Namespace) -> str:
    import jax

    n, d, m = arguments.n, arguments.d, arguments.m
    x, a = inputs(n, d, m)
    libraries, notes = [], []
    for library in LIBRARIES:
        try:
            method(library, "cosine", x[:2], a[:2])()
            libraries.append(library)
        except ImportError:
            notes.append(f"{library} is not installed and was left out.")

    # Half of the checked rows are anchors, at distance zero from one of them.
    position = {row.tobytes(): i for i, row in enumerate(x)}
    of_anchors = [position[row.tobytes()] for row in a[:CHECKED_ROWS]]
    rows = np.concatenate([of_anchors, np.arange(CHECKED_ROWS)])
    del position

    lines = [
        "| similarity | library | seconds | times as fast as torch | peak MB | error | at zero |",
        "|---|---|---|---|---|---|---|",
    ]
    for similarity in arguments.similarities:
        methods = {library: method(library, similarity, x, a) for library in libraries}
        reference = exact(similarity, x[rows], a)
        error = {}
        for library, run in methods.items():  # also compiles and warms up
            error[library] = errors(similarity, on_host(run())[rows], reference)
        seconds: dict[str, list[float]] = {library: [] for library in libraries}
        for repeat in range(arguments.repeats):
            for library, run in methods.items():
                if library == "scikit-learn" and repeat >= arguments.sklearn_repeats:
                    continue
                time.sleep(PAUSE)
                start = time.perf_counter()
                result = run()
                seconds[library].append(time.perf_counter() - start)
                del result
        for library in libraries:
            taken = np.array(seconds[library])
            ratio = "1"
            if "torch" not in libraries:
                ratio = ""
            elif library != "torch":
                ratio = spread(np.array(seconds["torch"])[: len(taken)] / taken)
            peak = peak_memory(library, similarity, arguments)
            at_zero = "" if np.isnan(error[library][1]) else f"{error[library][1]:.1e}"
            lines.append(
                f"| {similarity} | {library} | {spread(taken)} | {ratio} | {peak:.0f} "
                f"| {error[library][0]:.1e} | {at_zero} |"
            )
            print(lines[-1], file=sys.stderr)

    sizes = 4e-6 * np.array([n * d + m * d, n * m])
    notes.insert(
        0,
        f"n = {n:,}, d = {d}, m = {m}, float32; median (min to max) of {arguments.repeats} "
        f"interleaved repeats ({min(arguments.sklearn_repeats, arguments.repeats)} of "
        f"scikit-learn). Inputs {sizes[0]:.0f} MB and result {sizes[1]:.0f} MB are part of the "
        f"peak. Error: largest in {len(rows)} rows, {CHECKED_ROWS} of them anchors, against "
        "float64, relative for distances and absolute for the cosine; at zero: largest value "
        f"where the distance is zero. {processor()}, {os.cpu_count()} cores, "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}.",
    )
    return "\n".join([*lines, "", *notes, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=50_000, help="samples")
    parser.add_argument("--d", type=int, default=768, help="features")
    parser.add_argument("--m", type=int, default=768, help="anchors")
    parser.add_argument("--similarities", nargs="+", default=SIMILARITIES, choices=SIMILARITIES)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sklearn-repeats", type=int, default=3, help="at most this many of them")
    parser.add_argument("--output", type=Path, help="file to write the table to as well")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.n, arguments.d, arguments.m)
        return
    text = table(arguments)
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
