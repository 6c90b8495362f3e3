"""Is a score more than chance? Row permutations as the null."""

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from relrep_jax._sharding import automatic_sharding
from relrep_jax.checks import check_count, resolve
from relrep_jax.measures._blocks import as_floats, check_pair
from relrep_jax.measures._compiled import all_finite
from relrep_jax.measures.prepared import Form, form_of, general
from relrep_jax.measures.registry import DISTANCES, MEASURES

Measure = str | Callable[[jax.Array, jax.Array], jax.Array]

_TOGETHER = 4  # pairs with one permuted space that are scored at once
_KEPT_BYTES = 2**31  # of what is prepared of spaces
_ROUNDING = 100  # machine epsilons


class PermutationResult(NamedTuple):
    """What `permutation_test` found.

    Attributes:
        score: the measure of the spaces as given.
        p_value: `(1 + #{null at least as alike}) / (count + 1)`.
        calibrated: 0 where the score does not pass the threshold, 1 at the best score.
        threshold: the score to pass.
        null: the measure under each permutation, `[count]`.
    """

    score: jax.Array
    p_value: jax.Array
    calibrated: jax.Array
    threshold: jax.Array
    null: jax.Array


def permutation_test(
    measure: Measure,
    x: jax.Array,
    y: jax.Array,
    key: jax.Array,
    count: int = 200,
    *,
    alpha: float = 0.05,
    distance: bool | None = None,
    best: float | None = None,
    batch_size: int | None = None,
) -> PermutationResult:
    """Test and calibrate a measure against permutations of the rows of `y`.

    `p = (1 + #{null_b >= s}) / (count + 1)`, where scores that only rounding tells apart (by
    100 machine epsilons, as in `scipy.stats.permutation_test`) are equal; the threshold `t` is the
    `ceil((1 - alpha) (count + 1))`-th smallest of the score and the null together, and the
    calibrated score `clip((s - t) / (best - t), 0, 1)`. For distances, all orders are turned
    round. What wide spaces and few rows give to any two spaces is thus taken away.

    What no permutation changes is computed once for the measures of this package (bandwidths,
    kernels, neighbours, bases); up to 8,192 rows this keeps matrices `[n, n]` of the kernels.

    Args:
        measure: a name of `MEASURES`, or a function `(x, y) -> score` that can be traced
            (`functools.partial` sets its options).
        x: `[n, d1]`.
        y: `[n, d2]`, the same samples.
        key: a `jax.random.key`.
        count: how many permutations; with fewer than `1 / alpha - 1`, 19 of them by default, there
            is no threshold, and the calibrated score is NaN.
        alpha: level of the threshold, in (0, 1).
        distance: whether a lower score means more alike; by default as the measure is known, and
            false for functions that are not of this package.
        best: the score of identical spaces; by default 1, or 0 for distances.
        batch_size: how many permutations are scored at once; by default one after another,
            which takes the least memory.

    Returns:
        A `PermutationResult`; NaN where a space has rows that are not finite.

    Raises:
        ValueError: the row counts differ, the name is unknown, an option is out of range, or a
            function of the caller's, for which `distance` was not given, scores x against x as 0.

    Reference:
        Gröger, Wen and Brbić, arXiv 2602.14486.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (50, 4))
    >>> result = permutation_test("linear_cka", x, 2.0 * x, jax.random.key(1), count=19)
    >>> round(float(result.p_value), 4), round(float(result.calibrated), 4)
    (0.05, 1.0)
    """
    _check_options(count, alpha)
    check_pair(x, y)
    function = resolve("measure", measure, MEASURES)
    x, y = jnp.asarray(x), jnp.asarray(y)
    _check_scalar(function, x, y)
    _check_direction(function, x, distance)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    keys = jax.random.split(key, count)
    finite = all_finite(x, y)

    def scores(form: Form, x: Any, y: Any) -> tuple[jax.Array, jax.Array]:
        return _score_and_null(form, n, batch_size, x, y, keys)

    n = x.shape[0]
    form = form_of(function, n, (x.shape[1], y.shape[1]))
    if form is None:
        score, null = scores(general(function), x, y)
    else:
        x, y = as_floats(x, y)
        ready = _prepare(form.space, x), _prepare(form.space, y)
        if form.exact is None:
            score, null = scores(form, *ready)
        else:
            score, null = _either(
                form.exact(*_pair(form.pair, *ready)),
                lambda: scores(form, *ready),
                lambda: scores(general(function), x, y),
            )
    return judged(function, jnp.where(finite, score, jnp.nan), null, alpha, distance, best)


@automatic_sharding
@partial(jax.jit, static_argnums=(0, 1, 2))
def _score_and_null(
    form: Form, n: int, batch_size: int | None, x: Any, y: Any, keys: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The score of two prepared spaces of `n` rows, and that of a permutation for each key."""
    left, right = form.pair(x, y)
    itself = jnp.arange(n)

    def permuted(one):
        order = jax.random.permutation(one, n)
        return form.score(left, right, order, _inverse(order))

    null = lax.map(permuted, keys, batch_size=batch_size)
    return form.score(left, right, itself, itself), null


def permutation_tests(
    measure: Measure,
    spaces: Sequence[jax.Array],
    key: jax.Array,
    count: int = 200,
    *,
    alpha: float = 0.05,
    distance: bool | None = None,
    best: float | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    devices: Sequence[jax.Device] | None = None,
    visit: Callable[[int], None] | None = None,
) -> dict[tuple[int, int], PermutationResult]:
    """`permutation_test` of many pairs of spaces, which share all that can be shared.

    What one space gives is computed once for all of its pairs, a permuted space is scored
    against several others at once, and the permutations are spread over the devices. Every pair
    sees the permutations that `permutation_test` with this key shows it. This is a loop over
    compiled programs: it cannot be traced itself.

    Args:
        measure: as for `permutation_test`.
        spaces: the same samples in every space, `[n, d_i]`; two or more.
        key: a `jax.random.key`.
        count: how many permutations.
        alpha: level of the threshold, in (0, 1).
        distance: as for `permutation_test`.
        best: as for `permutation_test`.
        pairs: numbers `(i, j)` of spaces, of which the rows of space `j` are permuted; by
            default all `i < j`.
        devices: where to compute; all local devices by default.
        visit: called with the number of pairs that were finished since the last call.

    Returns:
        A `PermutationResult` for each pair.

    Raises:
        ValueError: as `permutation_test`, or fewer than two spaces, or a pair that is none.

    >>> import jax
    >>> x, y, z = jax.random.normal(jax.random.key(0), (3, 50, 4))
    >>> tests = permutation_tests("linear_cka", [x, y, 2.0 * x], jax.random.key(1), count=19)
    >>> {pair: bool(test.p_value <= 0.05) for pair, test in tests.items()}
    {(0, 1): False, (0, 2): True, (1, 2): False}
    """
    _check_options(count, alpha)
    function = resolve("measure", measure, MEASURES)
    if len(spaces):
        _check_direction(function, spaces[0], distance)
    scores = pair_scores(measure, spaces, key, count, pairs=pairs, devices=devices, visit=visit)
    return {
        pair: judged(function, found[0], found[1:], alpha, distance, best)
        for pair, found in scores.items()
    }


def pair_scores(
    measure: Measure,
    spaces: Sequence[jax.Array],
    key: jax.Array,
    count: int,
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    devices: Sequence[jax.Device] | None = None,
    visit: Callable[[int], None] | None = None,
) -> dict[tuple[int, int], np.ndarray]:
    """The score of every pair as given and under each permutation.

    Args:
        measure, spaces, key, pairs, devices, visit: as for `permutation_tests`.
        count: how many permutations; may be 0.

    Returns:
        Scores `[1 + count]` for each pair, that of the rows as given first.

    Raises:
        ValueError: an unknown measure, fewer than two spaces, a pair that is none, or spaces with
            unlike numbers of rows.
    """
    function = resolve("measure", measure, MEASURES)
    if len(spaces) < 2:
        raise ValueError(f"Two or more spaces are needed, got {len(spaces)}.")
    pairs = list(combinations(range(len(spaces)), 2) if pairs is None else pairs)
    for i, j in pairs:
        if not (0 <= i < len(spaces) and 0 <= j < len(spaces)):
            raise ValueError(f"There is no pair ({i}, {j}): there are {len(spaces)} spaces.")
        check_pair(spaces[i], spaces[j])
        _check_scalar(function, spaces[i], spaces[j])
    mesh = Mesh(np.array(jax.local_devices() if devices is None else devices), ("order",))
    shared = NamedSharding(mesh, PartitionSpec())
    n = spaces[pairs[0][0]].shape[0] if pairs else 0
    for i, _ in pairs:
        if spaces[i].shape[0] != n:
            raise ValueError(
                f"The same permutations are for all pairs, but spaces {pairs[0][0]} and {i} have "
                f"{n} and {spaces[i].shape[0]} rows."
            )
    known = form_of(function, n, tuple(space.shape[1] for space in spaces))
    form = general(function) if known is None else known
    dtypes = (jax.dtypes.canonicalize_dtype(space.dtype) for space in spaces)
    dtype = jnp.result_type(jnp.float32, *dtypes)
    orders = np.asarray(_orders(key, n, count))
    orders = np.concatenate([orders, np.repeat(orders[-1:], -len(orders) % mesh.size, axis=0)])
    orders = jax.device_put(orders, NamedSharding(mesh, PartitionSpec("order")))

    def space(i: int) -> jax.Array:
        return jnp.asarray(spaces[i], None if known is None else dtype)

    kept: OrderedDict[int, Any] = OrderedDict()

    def prepared(i: int) -> Any:
        if i not in kept:
            kept[i] = jax.device_put(_prepare(form.space, space(i)), shared)
            size = mesh.size * sum(leaf.nbytes for leaf in jax.tree.leaves(kept[i]))
            while len(kept) > 2 and len(kept) * size > _KEPT_BYTES:
                kept.popitem(last=False)
        kept.move_to_end(i)
        return kept[i]

    results: dict[tuple[int, int], np.ndarray] = {}
    for j in sorted({second for _, second in pairs}):
        for batch in _batches([first for first, second in pairs if second == j]):
            groups: dict[Any, list[tuple[int, Any]]] = {}
            for i in batch:
                left, right = _pair(form.pair, prepared(i), prepared(j))
                if form.exact is not None and not form.exact(left, right):
                    plain = jax.device_put((space(i), space(j)), shared)
                    found = _scores(_of(general(function)), mesh, plain[:1], plain[1], orders)
                    results[i, j] = np.asarray(found)[: count + 1, 0]
                    if visit is not None:
                        visit(1)
                    continue
                shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), left)
                groups.setdefault(str(shapes), []).append((i, left))
            for group in groups.values():
                found = _scores(_of(form), mesh, tuple(left for _, left in group), right, orders)
                for (i, _), column in zip(group, np.asarray(found).T, strict=True):
                    results[i, j] = column[: count + 1]
                if visit is not None:
                    visit(len(group))
    # What is prepared of rows that are not finite has scores nevertheless.
    finite = {i: bool(all_finite(jnp.asarray(spaces[i]))) for pair in pairs for i in pair}
    return {
        (i, j): results[i, j] if finite[i] and finite[j] else np.full_like(results[i, j], np.nan)
        for i, j in pairs
    }


def _check_options(count: int, alpha: float) -> None:
    check_count("count", count)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}.")


def _inverse(order: jax.Array) -> jax.Array:
    return jnp.zeros_like(order).at[order].set(jnp.arange(order.size, dtype=order.dtype))


def _either(choice: jax.Array, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """`lax.cond` that compiles one side alone where the choice is known."""
    if isinstance(choice, jax.core.Tracer):
        return lax.cond(choice, one, other)
    return one() if choice else other()


def _check_scalar(function: Callable, x: jax.Array, y: jax.Array) -> None:
    """Raise unless the function gives one number; the function's own checks are made, too."""
    found = jax.eval_shape(function, x, y)
    if getattr(found, "shape", None) != ():
        got = getattr(found, "shape", type(found).__name__)
        raise ValueError(f"A measure gives one number for two spaces; this one gives {got}.")


def _check_direction(function: Callable, x: jax.Array, distance: bool | None) -> None:
    """Raise if what seems to be a distance would be tested as a similarity."""
    known = any(_unwrapped(function) is _unwrapped(measure) for measure in MEASURES.values())
    if distance is not None or known or isinstance(x, jax.core.Tracer):
        return
    itself = jnp.asarray(function(x, x))
    if itself.ndim == 0 and abs(float(itself)) < 0.01:
        raise ValueError(
            f"The measure gives {float(itself):.2g} for a space and itself: is it a distance? Say "
            "distance=True, or distance=False if a higher score means more alike."
        )


def _unwrapped(function: Callable) -> Callable:
    """What was decorated, jitted or given arguments to make the function."""
    while True:
        inner = function.func if isinstance(function, partial) else inspect.unwrap(function)
        if inner is function:
            return function
        function = inner


def judged(
    function: Callable,
    score: Any,
    null: Any,
    alpha: float = 0.05,
    distance: bool | None = None,
    best: float | None = None,
) -> PermutationResult:
    """What a score and its null `[count]` say; arguments as for `permutation_test`."""
    if distance is None:
        distance = any(_unwrapped(function) is _unwrapped(MEASURES[name]) for name in DISTANCES)
    if best is None:
        best = 0.0 if distance else 1.0
    sign = -1.0 if distance else 1.0
    score, null = jnp.asarray(score), jnp.asarray(null)
    known = ~jnp.isnan(score)
    count = null.shape[0]
    alike, others = sign * score, sign * null
    # Equal scores differ by the rounding of their sums; the tolerance is scipy's.
    tolerance = _ROUNDING * float(jnp.finfo(jnp.promote_types(score.dtype, jnp.float32)).eps)
    # What has no score might be as alike.
    below = others < alike - tolerance * jnp.abs(alike)
    p_value = jnp.where(known, (1 + jnp.sum(~below)) / (count + 1), jnp.nan)
    place = math.ceil((1 - alpha) * (count + 1) - 1e-9)
    threshold = jnp.sort(jnp.append(others, alike))[place - 1]
    threshold = jnp.where(known, threshold, jnp.nan)
    room = sign * best - threshold
    is_room = room > tolerance * jnp.abs(threshold)
    calibrated = jnp.where(is_room, (alike - threshold) / jnp.where(is_room, room, 1.0), 0.0)
    # With fewer permutations no score is above the threshold: the highest is the threshold.
    known &= place <= count
    calibrated = jnp.where(known, jnp.clip(calibrated, 0.0, 1.0), jnp.nan)
    return PermutationResult(score, p_value, calibrated, sign * threshold, null)


@partial(jax.jit, static_argnums=(1, 2))
def _orders(key: jax.Array, n: int, count: int) -> jax.Array:
    """The rows as they are, then `count` permutations, `[1 + count, n]`."""
    itself = jnp.arange(n)[None]
    if not count:
        return itself
    permuted = lax.map(lambda one: jax.random.permutation(one, n), jax.random.split(key, count))
    return jnp.concatenate([itself, permuted])


def _of(form: Form) -> Callable:
    """What scores many, equal for forms that score alike, so that they share a program."""
    return form.several or form.scores


@automatic_sharding
@partial(jax.jit, static_argnums=0)
def _prepare(prepare: Callable, x: jax.Array) -> Any:
    return prepare(x)


@automatic_sharding
@partial(jax.jit, static_argnums=0)
def _pair(pair: Callable, x: Any, y: Any) -> tuple[Any, Any]:
    return pair(x, y)


def _scores(
    scores: Callable, mesh: Mesh, lefts: tuple[Any, ...], right: Any, orders: jax.Array
) -> jax.Array:
    """Scores `[orders, lefts]`, the orders spread over the devices."""
    with jax.set_mesh(mesh):  # whatever mesh the caller is at work on
        return _spread_scores(scores, mesh, lefts, right, orders)


@partial(jax.jit, static_argnums=(0, 1))
def _spread_scores(
    scores: Callable, mesh: Mesh, lefts: tuple[Any, ...], right: Any, orders: jax.Array
) -> jax.Array:

    def some(lefts, right, orders):
        return lax.map(lambda order: scores(lefts, right, order, _inverse(order)), orders)

    here, everywhere = PartitionSpec("order"), PartitionSpec()
    return jax.shard_map(
        some, mesh=mesh, in_specs=(everywhere, everywhere, here), out_specs=here, check_vma=False
    )(lefts, right, orders)


def _batches(items: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(items), _TOGETHER):
        yield items[start : start + _TOGETHER]
