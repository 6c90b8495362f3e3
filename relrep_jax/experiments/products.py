"""Products of relative spaces of all encoders, and heads with an aggregation on them.

Products have one shape `[s, n, m]` whatever the widths of latents are, so that the heads of all
encoders, and of all subsets of as many similarities, are one compiled program.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from relrep_jax.experiments import latents
from relrep_jax.experiments.anchor_choices import CHOICES
from relrep_jax.experiments.config import ConfigError
from relrep_jax.projection import product_projection
from relrep_jax.stitching import stitching_column
from relrep_jax.stitching.heads import Head, Params
from relrep_jax.stitching.latents import fit_heads
from relrep_jax.stitching.scores import score_logits
from relrep_jax.training.seeds import over_seeds, plan_seeds
from relrep_jax.transforms import Transform

SHORT = {"cosine": "Cos", "euclidean": "Euc", "manhattan": "L1", "chebyshev": "L∞"}
"""What tables and figures call a distance."""


def label(names: Sequence[str]) -> str:
    """`Cos + L1` of the names of similarities."""
    return " + ".join(SHORT.get(name, name) for name in names)


def subsets_of(count: int, which: str, field: str) -> list[tuple[int, ...]]:
    """Subsets of `count` similarities, small ones first: `every`, `single_and_all` or `all`.

    Raises:
        ConfigError: another word, which `field` was set to.
    """
    sizes = {"every": range(1, count + 1), "single_and_all": (1, count), "all": (count,)}
    if which not in sizes:
        raise ConfigError(f"{field} must be one of {', '.join(sizes)}, got {which!r}.")
    found = (itertools.combinations(range(count), size) for size in sizes[which])
    return list(dict.fromkeys(itertools.chain.from_iterable(found)))


def rivals_of_product(singles: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a product is compared with: the best and the worst of single distances.

    Args:
        singles: scores `[pairs]` by the name of the distance.

    Returns:
        Scores `[pairs]` of the one that is the best on average, of the worst, and of each pair's
        best, by what a table calls them.
    """
    # A distance whose heads diverged is the worst.
    order = sorted(singles, key=lambda name: -np.nan_to_num(singles[name].mean(), nan=-np.inf))
    best, worst = order[0], order[-1]
    return {
        f"best single ({label([best])})": singles[best],
        f"worst single ({label([worst])})": singles[worst],
        "best single of each pair": np.max(list(singles.values()), axis=0),
    }


OVER_PAIRS = (
    "Difference in accuracy in percentage points of the means over seeds, tested over ordered "
    "pairs of different encoders, which are not independent."
)
"""What is said below a table of comparisons."""
HINDSIGHT = (
    f"{OVER_PAIRS} Best and worst are chosen in "
    "hindsight, on these test samples, the best one in its own favour, the worst one in the "
    "product's: who has to choose a distance beforehand does not know which."
)
"""What is said below a table of `rivals_of_product`."""

Score = Callable[[jax.Array, Sequence[tuple[int, ...]], int], dict[str, np.ndarray]]
"""`(products [e, s, n, m], subsets, seed) -> scores by name [subsets, encoders, decoders]`."""


@partial(jax.jit, static_argnames=("choice", "count"))
def _choose(key: jax.Array, x: jax.Array, choice: str, count: int) -> jax.Array:
    return CHOICES[choice](key, x, count)


def choose_anchors(problem: latents.Problem, choice: str, count: int, seed: int) -> jax.Array:
    """Training rows `[count]` that are anchors of all encoders.

    A choice that looks at latents sees those of one encoder, drawn by the seed: the others only
    learn which samples it took.
    """
    key = jax.random.key(seed)
    train = jnp.asarray(problem.train)
    first = list(problem.spaces.values())[seed % len(problem.spaces)]
    return train[_choose(key, jnp.asarray(first)[train], choice, count)]


@partial(jax.jit, static_argnames=("similarities", "transform"))
def project(
    spaces: tuple[jax.Array, ...],
    anchors: jax.Array,
    similarities: tuple[str, ...],
    transform: Transform | None,
) -> jax.Array:
    """Products `[e, s, n, m]` of latents `[n, d_i]` relative to their rows `anchors [m]`."""
    return jnp.stack(
        [product_projection(space, space[anchors], similarities, transform) for space in spaces]
    )


def compile_scorer(problem: latents.Problem, head: Head, num_subsets: int) -> Score:
    """Heads trained on subsets of products, and every encoder scored with every head.

    Args:
        problem: whose labels and split.
        head: what to train.
        num_subsets: how many subsets there are in a call, spread over the devices.

    Returns:
        A `Score`, compiled once a shape. A subset is row numbers of `s`; those of a call have one
        size.
    """
    plan = plan_seeds(num_subsets)
    train, test = problem.train, problem.test

    def one(subset, products, labels, seed):
        spaces = products[:, subset]
        key = jax.random.key(seed)
        heads = stack(fit_heads(key, spaces, labels, train, head, problem.num_classes))
        return score_heads(problem, head, heads, spaces[:, :, test], labels[test])

    compiled = over_seeds(one, plan)

    def score(products, subsets, seed):
        tree = plan.pad(jnp.asarray(subsets, jnp.int32))
        shared = plan.share((products, jnp.asarray(problem.labels), jnp.uint32(seed)))
        found = plan.unpad(compiled(tree, *shared))
        return {name: np.asarray(values) for name, values in found.items()}

    return score


def stack(params: Sequence[Params]) -> Params:
    """Parameters of heads of one shape with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)


def score_heads(
    problem: latents.Problem, head: Head, heads: Params, spaces: jax.Array, labels: jax.Array
) -> dict[str, jax.Array]:
    """Every encoder's space `[e, s, n, m]` with each of the heads: scores `[e, d]` by name."""

    def column(params):
        return stitching_column(
            head.apply,
            lambda logits, labels: score_logits(logits, labels, problem.num_classes),
            spaces,
            params,
            labels,
        )

    # One head at a time: the hidden layers of all pairs at once would not fit into memory.
    return jax.tree.map(jnp.transpose, jax.lax.map(column, heads))
