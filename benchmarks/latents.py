"""Comparing, translating and choosing anchors in stored latents, beside what people use today.

    python benchmarks/latents.py --output table.md

Tasks: linear and RBF CKA, orthogonal Procrustes, ridge regression, farthest-point sampling, and
many anchor sets at once beside a Python loop over compiled calls. Repeats of all methods of a task
are interleaved, and ratios are taken within a repeat. Peak memory is what a child process that runs
one method alone holds at most beyond its inputs.
"""

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Run = Callable[[], object]
# Seconds before each call: the threads of the library before spin for a while in wait of more work.
PAUSE = 0.3


def spaces(n: int, d1: int, d2: int) -> tuple[np.ndarray, np.ndarray]:
    """Two views of one cause, float32."""
    rng = np.random.default_rng(0)
    cause = rng.standard_normal((n, 64), dtype=np.float32)
    return tuple(
        cause @ rng.standard_normal((64, d), dtype=np.float32)
        + rng.standard_normal((n, d), dtype=np.float32)
        for d in (d1, d2)
    )


def jitted(function: Callable, *arrays: np.ndarray) -> Run:
    import jax

    compiled, placed = jax.jit(function), jax.device_put(arrays)
    return lambda: jax.block_until_ready(compiled(*placed))


# --- CKA ----------------------------------------------------------------------------------------


def gram_cka(k: np.ndarray, other: np.ndarray) -> float:
    """CKA of two Gram matrices, centred in place."""
    for gram in (k, other):
        rows = gram.mean(axis=0)
        total = rows.mean()
        gram -= rows
        gram -= rows[:, None] - total
    cross = np.vdot(k, other)
    return float(cross / np.sqrt(np.vdot(k, k) * np.vdot(other, other)))


def rbf_gram(x: np.ndarray) -> np.ndarray:
    squares = np.sum(x * x, axis=1)
    distances = x @ x.T
    distances *= -2
    distances += squares
    distances += squares[:, None]
    sample = distances[:1000:, :1000]
    width = np.median(sample[~np.eye(len(sample), dtype=bool)])
    distances /= -2 * width
    return np.exp(distances, out=distances)


def cka(method: str, kernel: str, n: int) -> Run:
    x, y = spaces(n, 768, 512)
    if method == "relrep_jax":
        from relrep_jax import measures

        if kernel == "linear":
            return jitted(measures.linear_cka, x, y)
        return jitted(measures.rbf_cka, x, y)
    if method == "NumPy, Gram matrices":
        if kernel == "linear":
            return lambda: gram_cka(x @ x.T, y @ y.T)
        return lambda: gram_cka(rbf_gram(x), rbf_gram(y))
    if method == "latentis":
        import torch
        from latentis.measure.functional import cka as module

        tx, ty = torch.from_numpy(x - x.mean(0)), torch.from_numpy(y - y.mean(0))
        if kernel == "linear":
            return lambda: module.cka(tx, ty, hsic=module.linear_hsic)
        return lambda: module.cka(tx, ty, hsic=module.kernel_hsic)
    raise ValueError(method)


# --- Translation --------------------------------------------------------------------------------


def procrustes(method: str) -> Run:
    x, y = spaces(4096, 768, 768)
    if method == "relrep_jax":
        from relrep_jax import translation

        return jitted(lambda x, y: translation.orthogonal.fit(x, y, scaling=False), x, y)
    if method == "scipy":
        from scipy.linalg import orthogonal_procrustes

        return lambda: orthogonal_procrustes(x - x.mean(0), y - y.mean(0))
    if method == "latentis":
        import torch
        from latentis.transform.translate import functional

        tx, ty = torch.from_numpy(x), torch.from_numpy(y)
        return lambda: functional.svd_align_state(tx - tx.mean(0), ty - ty.mean(0))
    raise ValueError(method)


def ridge(method: str) -> Run:
    x, y = spaces(4096, 768, 768)
    if method == "relrep_jax":
        from relrep_jax import translation

        return jitted(lambda x, y: translation.ridge.fit(x, y, penalty=1.0), x, y)
    if method.startswith("scikit-learn"):
        from sklearn.linear_model import Ridge

        solver = method.split()[-1]
        return lambda: Ridge(alpha=1.0, solver=solver).fit(x, y)
    if method == "latentis":
        import torch
        from latentis.transform.translate import functional

        tx, ty = torch.from_numpy(x), torch.from_numpy(y)
        return lambda: functional.lstsq_align_state(tx - tx.mean(0), ty - ty.mean(0))
    raise ValueError(method)


# --- Anchors ------------------------------------------------------------------------------------


def numpy_farthest_point(x: np.ndarray, num_anchors: int) -> np.ndarray:
    squares = np.sum(x * x, axis=1)
    chosen = [0]
    nearest = np.full(len(x), np.inf, x.dtype)
    for _ in range(num_anchors - 1):
        last = chosen[-1]
        np.minimum(nearest, squares + squares[last] - 2 * (x @ x[last]), out=nearest)
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


def farthest_point(method: str, n: int) -> Run:
    x = spaces(n, 768, 1)[0]
    if method == "relrep_jax":
        from relrep_jax import anchors

        return jitted(lambda x: anchors.farthest_point(x, 768), x)
    if method == "NumPy, float32":
        return lambda: numpy_farthest_point(x, 768)
    if method == "PyTorch, float32":
        import torch

        tx = torch.from_numpy(x)

        def run() -> list[int]:
            squares = (tx * tx).sum(1)
            nearest = torch.full((n,), torch.inf)
            chosen = [0]
            for _ in range(767):
                last = chosen[-1]
                distances = squares + squares[last] - 2 * (tx @ tx[last])
                nearest = torch.minimum(nearest, distances)
                chosen.append(int(nearest.argmax()))
            return chosen

        return run
    raise ValueError(method)


def anchor_sets(method: str, transform: str | None, n: int, d: int, m: int, count: int) -> Run:
    """The relative spaces `[n, m]` of one space for each of `count` anchor sets."""
    x = spaces(n, d, 1)[0]
    rng = np.random.default_rng(1)
    sets = np.stack([rng.permutation(n)[:m] for _ in range(count)])
    if method == "PyTorch, loop":
        import torch

        tx, unit = torch.from_numpy(x), torch.nn.functional.normalize
        parts = [torch.from_numpy(rows) for rows in sets]

        def run() -> list:
            found = []
            for rows in parts:
                a = tx[rows]
                shift = a.mean(0) if transform else 0.0
                found.append(unit(tx - shift) @ unit(a - shift).T)
            return found

        return run

    import jax

    import relrep_jax as rr

    def one(x, rows):
        return rr.relative_projection(x, x[rows], absolute_transform=transform)

    placed, sets = jax.device_put((x, sets))
    if method == "relrep_jax, vmap":
        many = jax.jit(jax.vmap(one, in_axes=(None, 0)))
        return lambda: jax.block_until_ready(many(placed, sets))
    if method == "relrep_jax, loop":
        single, parts = jax.jit(one), list(sets)
        return lambda: jax.block_until_ready([single(placed, rows) for rows in parts])
    a = jax.device_put(np.asarray(x)[np.asarray(sets)])
    if method == "bare product, [sets, n, m]":
        return jitted(lambda x, a: jax.numpy.einsum("nd,kmd->knm", x, a), placed, a)
    if method == "bare product, [n, sets * m]":
        return jitted(lambda x, a: x @ a.T, placed, a.reshape(-1, d))
    raise ValueError(method)


TASKS: dict[str, tuple[Callable[..., Run], tuple, tuple[str, ...]]] = {
    "linear CKA, n = 10,000": (
        cka,
        ("linear", 10_000),
        ("relrep_jax", "NumPy, Gram matrices", "latentis"),
    ),
    "linear CKA, n = 20,000": (cka, ("linear", 20_000), ("relrep_jax", "NumPy, Gram matrices")),
    "RBF CKA, n = 10,000": (
        cka,
        ("rbf", 10_000),
        ("relrep_jax", "NumPy, Gram matrices", "latentis"),
    ),
    "RBF CKA, n = 20,000": (cka, ("rbf", 20_000), ("relrep_jax", "NumPy, Gram matrices")),
    "orthogonal Procrustes, 4,096 x 768": (procrustes, (), ("relrep_jax", "scipy", "latentis")),
    "ridge, 4,096 x 768": (
        ridge,
        (),
        ("relrep_jax", "scikit-learn svd", "scikit-learn cholesky", "latentis"),
    ),
    "768 farthest points of 50,000 x 768": (
        farthest_point,
        (50_000,),
        ("relrep_jax", "NumPy, float32", "PyTorch, float32"),
    ),
    **{
        f"64 anchor sets of {m}, {name}, n = {n:,}, d = {d}": (
            anchor_sets,
            (transform, n, d, m, 64),
            (
                "relrep_jax, vmap",
                "relrep_jax, loop",
                "PyTorch, loop",
                "bare product, [sets, n, m]",
                "bare product, [n, sets * m]",
            ),
        )
        for n, d, m in ((200, 64, 32), (5_000, 384, 256))
        for name, transform in (("cosine", None), ("centred cosine", "centering"))
    },
}


def make(task: str, method: str) -> Run:
    function, arguments, _ = TASKS[task]
    return function(method, *arguments)


def memory(field: str) -> float:
    """A field of this process's memory in MB, as Linux counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"No {field} in /proc/self/status.")


def child(task: str, method: str) -> None:
    """Print the peak memory of one method in MB, beyond what it held with its inputs."""
    run = make(task, method)
    run()  # loads and compiles what there is
    # Memory that was freed but not given back would be used again unseen.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    run()
    print(json.dumps(memory("VmHWM") - before))


def peak_memory(task: str, method: str) -> str:
    command = [sys.executable, __file__, "--child", task, method]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        print(f"No peak of {method}: {result.stderr[-300:]}", file=sys.stderr)
        return ""
    return f"{max(json.loads(result.stdout.splitlines()[-1]), 0):,.0f}"


def spread(values: np.ndarray) -> str:
    def short(value: float) -> str:
        return f"{value:.3g}"

    return f"{short(np.median(values))} ({short(values.min())}–{short(values.max())})"


def table(tasks: list[str], repeats: int) -> str:
    import jax

    lines = [
        "| task | method | seconds | relrep_jax is faster by | peak MB beyond inputs |",
        "| :--- | :--- | ---: | ---: | ---: |",
    ]
    missing: set[str] = set()
    for task in tasks:
        runs: dict[str, Run] = {}
        for method in TASKS[task][2]:
            try:
                runs[method] = make(task, method)
                runs[method]()  # compiles and warms up
            except ImportError as error:
                missing.add(f"{method} ({error})")
        seconds: dict[str, list[float]] = {method: [] for method in runs}
        for _ in range(repeats):
            for method, run in runs.items():
                if sum(seconds[method]) > 60:
                    continue  # slow beyond doubt
                time.sleep(PAUSE)
                start = time.perf_counter()
                run()
                seconds[method].append(time.perf_counter() - start)
        ours = np.array(seconds[TASKS[task][2][0]])
        runs.clear()
        for place, (method, taken) in enumerate(seconds.items()):
            count = min(len(taken), len(ours))
            ratio = "" if place == 0 else spread(np.array(taken[:count]) / ours[:count])
            cells = (task, method, spread(np.array(taken)), ratio, peak_memory(task, method))
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    notes = [
        f"Median (min–max) of {repeats} interleaved repeats (fewer where they take over a minute), "
        f"float32, compiled before. {platform.machine()}, {os.cpu_count()} cores, "
        f"{jax.devices()[0].platform}, jax {jax.__version__}."
    ]
    notes += [f"Left out: {reason}." for reason in sorted(missing)]
    return "\n".join([*lines, "", *notes, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, metavar="TASK")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="file to write the table to as well")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    text = table(arguments.tasks, arguments.repeats)
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
