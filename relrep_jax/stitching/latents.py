"""Stitching the latents of any encoders: every encoder with the head of every other."""

import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relrep_jax.checks import check_matrix, validate_latents
from relrep_jax.data.latents import DEV_PART, TEST_PART, TRAIN_PART, LabelledLatents
from relrep_jax.stitching import heads as _heads
from relrep_jax.stitching import representations as _representations
from relrep_jax.stitching.heads import Head
from relrep_jax.stitching.representations import Representation, Views
from relrep_jax.stitching.scores import SCORES, score_logits
from relrep_jax.training.seeds import SeedPlan, one_blas_thread, over_seeds, plan_seeds

TRAIN, DEV, TEST = TRAIN_PART, DEV_PART, TEST_PART


@dataclass(frozen=True, eq=False)
class LatentStitching:
    """What `stitch_latents` found. A run is a seed with an anchor set.

    Attributes:
        names: of the encoders.
        accuracy: `[runs, encoders, decoders]`; NaN where the representation cannot cross.
        f1_weighted: the same.
        seeds: the seed of each run, `[runs]`.
        anchor_sets: the rows that were parallel in each run, `[runs, p]` or `[runs, e, p]`.
        parallel_samples: how many samples each run knew the correspondence of; 0 for a
            representation that uses none.
        heads: one pytree of head parameters for each decoder, with a leading axis of runs.
        classes: the labels that the logits of the heads stand for, `[c]`.
        crosses: which encoders each head can read, `[encoders, decoders]`; all if left out.
        trained_on: what the heads were trained with, by name, but for the values of the latents.
    """

    names: tuple[str, ...]
    accuracy: np.ndarray
    f1_weighted: np.ndarray
    seeds: np.ndarray
    anchor_sets: np.ndarray
    parallel_samples: int
    heads: tuple[Any, ...]
    classes: np.ndarray
    crosses: np.ndarray | None = None
    trained_on: Mapping[str, Any] = field(default_factory=dict)

    def stitched(self, metric: str = "accuracy") -> np.ndarray:
        """Scores of the pairs of different encoders that can be stitched, `[runs, pairs]`; NaN
        where what the head gives is not finite."""
        pairs = ~np.eye(len(self.names), dtype=bool)
        return getattr(self, metric)[:, pairs if self.crosses is None else pairs & self.crosses]

    def non_stitched(self, metric: str = "accuracy") -> np.ndarray:
        """Scores of encoders with their own heads, `[runs, encoders]`."""
        return np.diagonal(getattr(self, metric), axis1=1, axis2=2)


def check_problem(
    spaces: Mapping[str, Any] | Sequence[Any], labels: Any, split: Any
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Check on the host that latents, labels and split make a stitching problem.

    Returns:
        The spaces by name, the labels `[n]` and the split `[n]`, as NumPy arrays.

    Raises:
        ValueError: fewer than two spaces; row counts that differ; NaN or infinite rows; labels or
            a split that are not integers; no training or no test rows; a class that is tested
            but missing from the training rows; a single class.
    """
    if isinstance(spaces, Mapping):
        named = {str(name): space for name, space in spaces.items()}
    elif not hasattr(spaces, "__iter__"):
        raise ValueError(
            f"spaces must be a dictionary or a list of latents [n, d], got {type(spaces).__name__}."
        )
    else:
        named = {str(i): space for i, space in enumerate(spaces)}
    if len(named) < 2:
        raise ValueError(f"Stitching needs the latents of at least two encoders, got {len(named)}.")
    named = {name: np.asarray(space) for name, space in named.items()}
    for name, space in named.items():
        validate_latents(space, f"spaces[{name!r}]")
    rows = {name: space.shape[0] for name, space in named.items()}
    labels, split = np.asarray(labels), np.asarray(split)
    for name, vector in (("labels", labels), ("split", split)):
        if vector.ndim != 1 or vector.dtype.kind not in "iub":
            raise ValueError(
                f"{name} must be integers of shape [n], got {vector.dtype} {vector.shape}."
            )
        rows[name] = len(vector)
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in rows.items())
        raise ValueError(f"Row i must be the same sample everywhere, but row counts are {listed}.")
    unknown = sorted(set(np.unique(split).tolist()) - {TRAIN, DEV, TEST})
    if unknown:
        raise ValueError(f"split must be 0 (train), 1 (dev) or 2 (test), got {unknown} as well.")
    for number, what in ((TRAIN, "training"), (TEST, "test")):
        if not (split == number).any():
            raise ValueError(f"There are no {what} rows: no entry of split is {number}.")
    trained = np.unique(labels[split == TRAIN])
    untrained = sorted(set(labels[split == TEST].tolist()) - set(trained.tolist()))
    if untrained:
        raise ValueError(
            f"The classes {untrained} are among the test rows but not among the training rows: "
            "no head can predict them. Move samples of them to the training rows, or leave the "
            "classes out."
        )
    if len(trained) < 2:
        raise ValueError(f"All training rows have the label {trained[0]}: nothing can be learned.")
    return named, labels, split


def check_labelled(
    latents: LabelledLatents,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """`check_problem` of loaded latents, with messages that name their files."""
    try:
        return check_problem(latents.spaces, latents.labels, latents.split)
    except ValueError as error:
        raise ValueError(f"{error} ({latents.source})") from error


def draw_anchor_sets(
    seeds: Sequence[int], train: np.ndarray, parallel_samples: int | None
) -> np.ndarray:
    """For each seed, training rows drawn uniformly without replacement: `[runs, p]`.

    Args:
        seeds: one set for each.
        train: the training rows, `[t]`.
        parallel_samples: how many, or None for all training rows (in their order).
    """
    if parallel_samples is None:
        return np.tile(train, (len(seeds), 1))
    if not isinstance(parallel_samples, numbers.Integral) or not (
        1 <= parallel_samples <= len(train)
    ):
        raise ValueError(
            f"parallel_samples must be a whole number in 1 .. {len(train)}, the number of training "
            f"samples, got {parallel_samples}. None takes them all."
        )
    return np.stack(
        [np.random.default_rng(seed).permutation(train)[:parallel_samples] for seed in seeds]
    )


def _seed_numbers(seeds: Any) -> list[int]:
    """The seeds that a number of them, or a list, stands for."""
    if isinstance(seeds, numbers.Integral):
        seeds = range(int(seeds))
    try:
        found = np.asarray(seeds).tolist() if hasattr(seeds, "__array__") else list(seeds)
        found = found if isinstance(found, list) else [found]
    except TypeError:
        found = [seeds]
    wrong = [s for s in found if not isinstance(s, numbers.Integral) or not 0 <= s < 2**32]
    if wrong:
        raise ValueError(
            "seeds must be how many, or a list of whole numbers from 0 to 2**32 - 1, got "
            f"{wrong[0]!r}."
        )
    if not found:
        raise ValueError("At least one seed is needed, got none.")
    return [int(seed) for seed in found]


def _single(name: str, space: np.ndarray) -> jax.Array:
    """Latents in float32, in which everything is computed."""
    with np.errstate(over="ignore"):
        single = np.asarray(space, np.float32)
    if not np.isfinite(single).all():
        raise ValueError(
            f"spaces[{name!r}] has values that float32 cannot hold. Scale the latents down."
        )
    return jnp.asarray(single)


def _check_anchor_sets(sets: Any, num_spaces: int, split: np.ndarray) -> np.ndarray:
    sets = np.asarray(sets)
    if sets.dtype.kind not in "iu" or sets.ndim not in (2, 3) or sets.size == 0:
        raise ValueError(
            "anchor_sets must be row numbers of shape [a, p], or [a, e, p] with the rows of each "
            f"encoder, got {sets.dtype} {sets.shape}."
        )
    if sets.ndim == 3 and sets.shape[1] != num_spaces:
        raise ValueError(
            f"anchor_sets has rows of {sets.shape[1]} encoders, but there are {num_spaces}."
        )
    if sets.min() < 0 or sets.max() >= len(split):
        raise ValueError(
            f"anchor_sets must lie in 0 .. {len(split) - 1}, got {sets.min()} .. {sets.max()}."
        )
    if (split[sets] != TRAIN).any():
        raise ValueError(
            "anchor_sets must be training rows (split 0), but some are not: a representation that "
            "was fitted on test rows says nothing about new ones."
        )
    ordered = np.sort(sets, axis=-1)
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        raise ValueError("anchor_sets must not name a row twice: it would count twice.")
    return sets


def stitch_latents(
    spaces: Mapping[str, Any] | Sequence[Any],
    labels: Any,
    split: Any,
    representation: str | Representation = "centred_cosine",
    head: str | Head = "logistic_regression",
    seeds: int | Sequence[int] = 5,
    anchor_sets: Any = None,
    *,
    parallel_samples: int | None = 256,
    heads: LatentStitching | None = None,
) -> LatentStitching:
    """Train a head on every encoder's latents; score every encoder with every head.

    The heads of all encoders, seeds and anchor sets are trained in one compiled program, spread
    over the local devices (one after another on a CPU device, vmapped on GPU and TPU). Nothing of
    a pair of encoders is trained with labels: a head sees the labels of its own encoder's
    training rows, and the representation sees no labels.

    Args:
        spaces: latents `[n, d_i]` of two or more encoders, by name; row i is the same sample in
            all of them. Widths may differ.
        labels: `[n]` integers, any values.
        split: `[n]`: 0 train, 1 dev (not used), 2 test.
        representation: a name of `relrep_jax.stitching.REPRESENTATIONS`, or a `Representation`.
        head: a name of `relrep_jax.stitching.HEADS`, or a `Head`.
        seeds: seed numbers, or how many: of the heads, of what the representation draws, and of
            the anchor sets where none are given.
        anchor_sets: training rows whose correspondence is known, `[a, p]`; or `[a, e, p]` with
            the row of every encoder, for correspondences that are no equal rows. Every seed is
            run with every set. By default each seed draws its own.
        parallel_samples: how many training rows each seed draws; None for all of them.
        heads: an earlier result, whose heads are then not trained again. Representations that keep
            latents as they are share them, with the same encoders, labels, head and seeds. That
            the latents have the same values is not checked.

    Returns:
        A `LatentStitching`.

    Raises:
        ValueError: what `check_problem` raises; unknown names; anchor sets that are no row
            numbers; more parallel samples than training rows; `heads` that were trained on
            something else.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 5.

    Example:
        >>> import jax, relrep_jax as rr
        >>> x = jax.random.normal(jax.random.key(0), (300, 8))
        >>> labels = (x[:, 0] > 0).astype(int)
        >>> split = [0] * 200 + [2] * 100
        >>> result = rr.stitch_latents(
        ...     {"a": x, "b": 2.0 * x[:, ::-1]}, labels, split, seeds=2, parallel_samples=50)
        >>> result.accuracy.shape, bool(result.stitched().min() > 0.9)
        ((2, 2, 2), True)
    """
    representation = _representations.get(representation)
    head = _heads.get(head)
    named, labels, split = check_problem(spaces, labels, split)
    train, test = np.flatnonzero(split == TRAIN), np.flatnonzero(split == TEST)
    num_spaces = len(named)

    seeds = _seed_numbers(seeds)
    if anchor_sets is None:
        if not representation.uses_parallel_samples:
            parallel_samples = None
        sets = draw_anchor_sets(seeds, train, parallel_samples)
        run_seeds = np.array(seeds)
    else:
        given = _check_anchor_sets(anchor_sets, num_spaces, split)
        sets = np.concatenate([given] * len(seeds))
        run_seeds = np.repeat(seeds, len(given))

    # A representation that looks at no parallel samples has none.
    if not representation.uses_parallel_samples:
        sets = sets[..., :0]
    # Runs that cannot differ are run once.
    if representation.is_random or head.is_random:
        different, which = np.arange(len(sets)), np.arange(len(sets))
    else:
        seen: dict[bytes, int] = {}
        which = np.array([seen.setdefault(one.tobytes(), len(seen)) for one in sets])
        different = np.unique(which, return_index=True)[1]

    classes, targets = np.unique(labels, return_inverse=True)
    # Half precision is for storing: 16 bits do not suffice to solve anything.
    latents = tuple(_single(name, space) for name, space in named.items())

    trained_on = {
        "encoders": tuple((name, space.shape) for name, space in named.items()),
        "labels": labels[train].tobytes(),
        "training rows": train.tobytes(),
        "head": head,
        "seeds": tuple(run_seeds.tolist()),
        "latents as they are": representation.keeps_latents,
    }
    if heads is not None:
        _check_heads(heads, trained_on)

    plan = plan_seeds(len(different))
    tree = {
        "seed": jnp.asarray(run_seeds[different], jnp.uint32),
        "rows": jnp.asarray(sets[different], jnp.int32),
        "heads": None if heads is None else jax.tree.map(lambda leaf: leaf[different], heads.heads),
    }
    shared = plan.share((latents, jnp.asarray(targets, jnp.int32), train, test))
    run = _compile_runs(plan, representation, head, len(classes))
    with one_blas_thread(list(plan.mesh.devices.flat)):
        found = run(plan.pad(tree), *shared)
        scores, params = jax.block_until_ready(plan.unpad(found))
    scores = {name: np.asarray(values)[which] for name, values in scores.items()}
    return LatentStitching(
        names=tuple(named),
        accuracy=scores["accuracy"],
        f1_weighted=scores["f1_weighted"],
        seeds=run_seeds,
        anchor_sets=sets,
        parallel_samples=sets.shape[-1],
        heads=jax.tree.map(lambda leaf: leaf[which], params),
        classes=classes,
        crosses=_crosses(
            representation, tuple(space.shape for space in latents), sets.shape[-1], len(train)
        ),
        trained_on=trained_on,
    )


def _check_heads(heads: LatentStitching, wanted: Mapping[str, Any]) -> None:
    if not isinstance(heads, LatentStitching):
        raise ValueError(
            f"heads must be a LatentStitching, an earlier result, got {type(heads).__name__}."
        )
    if not (wanted["latents as they are"] and heads.trained_on.get("latents as they are")):
        raise ValueError(
            "heads are shared by representations that keep latents as they are alone: others "
            "train theirs on spaces of their own. Leave heads out."
        )
    other = [name for name, value in wanted.items() if heads.trained_on.get(name) != value]
    if other:
        raise ValueError(
            f"heads were trained with other {', '.join(other)}. Give the result of a run on the "
            "same problem, or leave heads out."
        )


@lru_cache(maxsize=32)
def _crosses(
    representation: Representation,
    shapes: tuple[tuple[int, int], ...],
    num_parallel: int,
    num_train: int,
) -> np.ndarray:
    """Which encoders each head can read, `[e, e]`; nothing is computed."""
    count = len(shapes)
    found = np.zeros((count, count), bool)

    def look(key, spaces, rows, train):
        views = representation.view(key, spaces, rows, train)
        for i in range(count):
            for j in range(count):
                found[i, j] = views.crossed(i, j) is not None
        return ()

    spaces = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    rows = jax.ShapeDtypeStruct((count, num_parallel), jnp.int32)
    train = jax.ShapeDtypeStruct((num_train,), jnp.int32)
    jax.eval_shape(look, jax.random.key(0), spaces, rows, train)
    found.flags.writeable = False  # shared by the results of all calls
    return found


@lru_cache(maxsize=32)
def _compile_runs(
    plan: SeedPlan, representation: Representation, head: Head, num_classes: int
) -> Callable[..., Any]:
    """Many runs in one program, which is compiled once for latents of the same shapes."""

    def run(one, latents, targets, train, test):
        return stitch_run(
            jax.random.key(one["seed"]),
            latents,
            targets,
            jnp.broadcast_to(one["rows"], (len(latents), one["rows"].shape[-1])),
            train=train,
            test=test,
            representation=representation,
            head=head,
            num_classes=num_classes,
            heads=one["heads"],
        )

    return over_seeds(run, plan)


def stitch_run(
    key: jax.Array,
    spaces: Sequence[jax.Array],
    labels: jax.Array,
    rows: jax.Array,
    *,
    train: Any,
    test: Any,
    representation: Representation,
    head: Head,
    num_classes: int,
    heads: tuple[Any, ...] | None = None,
) -> tuple[dict[str, jax.Array], tuple[Any, ...]]:
    """One run of `stitch_latents`, a pure function: one seed and one set of parallel samples.

    Args:
        key: a `jax.random.key`.
        spaces: latents `[n, d_i]`.
        labels: `[n]` in `[0, num_classes)`.
        rows: the row of each encoder for each parallel sample, `[e, p]`.
        train, test: row numbers.
        representation, head: what to stitch with.
        num_classes: how many classes there are.
        heads: parameters of each head; trained here if left out.

    Returns:
        Scores by name, `[encoders, decoders]` each, and the parameters of each head.
    """
    for i, space in enumerate(spaces):
        check_matrix(f"spaces[{i}]", space)
    view_key, head_key = jax.random.split(key)
    views = representation.view(view_key, spaces, rows, jnp.asarray(train))
    return stitch_views(
        head_key,
        views,
        labels,
        train=train,
        test=test,
        head=head,
        num_classes=num_classes,
        heads=heads,
    )


def stitch_views(
    key: jax.Array,
    views: Views,
    labels: jax.Array,
    *,
    train: Any,
    test: Any,
    head: Head,
    num_classes: int,
    heads: tuple[Any, ...] | None = None,
) -> tuple[dict[str, jax.Array], tuple[Any, ...]]:
    """Train a head on every space; score what it reads of every encoder.

    Args:
        key: a `jax.random.key`.
        views: what the heads read, `e` of them.
        labels: `[n]` in `[0, num_classes)`.
        train, test: row numbers.
        head: what to train.
        num_classes: how many classes there are.
        heads: parameters of each head; trained here if left out.

    Returns:
        Scores by name, `[encoders, decoders]` each, and the parameters of each head.
    """
    params = heads or fit_heads(key, views.own, labels, train, head, num_classes)

    def score(space, decoder):
        if space is None:
            return {name: jnp.asarray(jnp.nan) for name in SCORES}
        logits = head.apply(params[decoder], jnp.take(space, test, axis=-2))
        return score_logits(logits, labels[test], num_classes)

    count = len(views.own)
    cells = [[score(views.crossed(i, j), j) for j in range(count)] for i in range(count)]
    scores = {
        name: jnp.stack([jnp.stack([cell[name] for cell in row]) for row in cells])
        for name in SCORES
    }
    return scores, params


def fit_heads(
    key: jax.Array,
    spaces: Sequence[jax.Array],
    labels: jax.Array,
    train: Any,
    head: Head,
    num_classes: int,
) -> tuple[Any, ...]:
    """The heads of all spaces; those of one shape by one loop, which is compiled once."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, space in enumerate(spaces):
        groups.setdefault(space.shape, []).append(i)
    keys = jax.random.split(key, len(spaces))
    on_cpu = jax.default_backend() == "cpu"
    params: list[Any] = [None] * len(spaces)
    for members in groups.values():
        stacked = jnp.stack([jnp.take(spaces[i], train, axis=-2) for i in members])

        def fit(pair):
            return head.fit(pair[0], pair[1], labels[train], num_classes)

        pairs = (keys[np.array(members)], stacked)
        fitted = jax.lax.map(fit, pairs) if on_cpu else jax.vmap(fit)(pairs)
        for place, i in enumerate(members):
            params[i] = jax.tree.map(lambda leaf, place=place: leaf[place], fitted)
    return tuple(params)
