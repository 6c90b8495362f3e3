"""Stitching the latents of any encoders: heads, scores, representations, the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import StandardScaler

import relrep_jax as rr
from relrep_jax.stitching import HEADS, REPRESENTATIONS, heads, representations, scores

SEED = np.random.default_rng(0)


def problem(n=300, widths=(12, 12, 20), classes=3, seed=0):
    """Encoders that see one clustered cause through maps with orthonormal columns."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    cause = 2.5 * rng.standard_normal((classes, 8))[labels] + rng.standard_normal((n, 8))
    spaces = {}
    for i, d in enumerate(widths):
        frame, _ = np.linalg.qr(rng.standard_normal((d, 8)))
        noise = 0.1 * rng.standard_normal((n, d))
        spaces[f"encoder{i}"] = ((i + 1.0) * (cause @ frame.T + noise) + i).astype(np.float32)
    split = np.where(np.arange(n) < 2 * n // 3, 0, 2)
    return spaces, labels, split


@pytest.mark.parametrize("C", [pytest.param(0.01, marks=pytest.mark.slow), 1.0])
def test_logistic_regression_is_that_of_scikit_learn(C):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((150, 20)) * rng.uniform(0.1, 30, 20) + 5).astype(np.float32)
    x[:, 3] = 7.0  # a constant feature
    labels = rng.integers(0, 4, 150)
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    theirs = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(scaled, labels)
    head = heads.logistic_regression(C, tolerance=1e-6)
    params = jax.jit(lambda x, y: head.fit(jax.random.key(0), x, y, 4))(x, labels)
    np.testing.assert_allclose(params["kernel"].T, theirs.coef_, atol=2e-3)
    logits = head.apply(params, x)
    ours = jax.nn.softmax(logits)
    np.testing.assert_allclose(ours, theirs.predict_proba(scaled), atol=2e-3)


@pytest.mark.slow
def test_heads_of_many_spaces_are_a_vmap():
    x = jax.random.normal(jax.random.key(0), (3, 60, 5))
    labels = jnp.arange(60) % 3
    head = heads.logistic_regression(0.1, tolerance=1e-6)
    key = jax.random.key(0)
    many = jax.vmap(lambda one: head.fit(key, one, labels, 3))(x)
    one = head.fit(key, x[1], labels, 3)
    np.testing.assert_allclose(many["kernel"][1], one["kernel"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "deep_mlp"])
def test_mlp_heads_learn_what_a_line_cannot(name):
    x = jax.random.uniform(jax.random.key(0), (512, 6), minval=-1.0)
    labels = (x[:, 0] * x[:, 1] > 0).astype(int)
    x = x @ jax.random.normal(jax.random.key(2), (6, 48))
    head = HEADS[name](learning_rate=3e-3, epochs=40)
    params = jax.jit(lambda x, y: head.fit(jax.random.key(1), x, y, 2))(x, labels)
    predicted = jnp.argmax(head.apply(params, x), axis=-1)
    assert float(jnp.mean(predicted == labels)) > 0.9


@pytest.mark.slow
def test_an_mlp_head_depends_on_its_key_and_on_nothing_else():
    x, labels = jax.random.normal(jax.random.key(0), (64, 4)), jnp.arange(64) % 2
    head = heads.mlp(epochs=1)
    fit = jax.jit(lambda key: head.apply(head.fit(key, x, labels, 2), x))
    a, b, c = fit(jax.random.key(0)), fit(jax.random.key(0)), fit(jax.random.key(1))
    np.testing.assert_array_equal(a, b)
    assert float(jnp.abs(a - c).max()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["concatenation", "mlp_sum", "self_attention"])
def test_products_reach_mlp_heads_through_their_aggregation(aggregation):
    product = jax.random.normal(jax.random.key(0), (2, 96, 8))
    labels = (product[0, :, 0] + product[1, :, 1] > 0).astype(int)
    head = heads.mlp(learning_rate=1e-2, epochs=30, aggregation=aggregation)
    params = jax.jit(lambda x, y: head.fit(jax.random.key(1), x, y, 2))(product, labels)
    assert float(jnp.mean(jnp.argmax(head.apply(params, product), -1) == labels)) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("aggregation, width", [("concatenation", 16), ("sum", 8)])
def test_products_reach_logistic_regression_without_parameters(aggregation, width):
    product = jax.random.normal(jax.random.key(0), (2, 40, 8))
    head = heads.logistic_regression(aggregation=aggregation)
    params = head.fit(jax.random.key(0), product, jnp.arange(40) % 2, 2)
    assert params["kernel"].shape == (width, 2)
    # Every space is normalised: its scale does not matter.
    scaled = product * jnp.array([5.0, 0.1])[:, None, None] + 3.0
    again = head.fit(jax.random.key(0), scaled, jnp.arange(40) % 2, 2)
    np.testing.assert_allclose(params["kernel"], again["kernel"], atol=1e-4)


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    for classes in (2, 5):
        labels, predicted = rng.integers(0, classes, 50), rng.integers(0, classes, 50)
        labels[labels == 1] = 0  # a class that is predicted but not there
        ours = scores.f1_weighted(jnp.asarray(predicted), jnp.asarray(labels), classes + 1)
        theirs = f1_score(labels, predicted, average="weighted", zero_division=0)
        assert float(ours) == pytest.approx(theirs, abs=1e-6)
        ours = scores.accuracy(jnp.asarray(predicted), jnp.asarray(labels), classes)
        assert float(ours) == pytest.approx(accuracy_score(labels, predicted), abs=1e-6)


def test_an_index_is_of_a_square_matrix_and_of_pairs_of_its_shape():
    grid = jnp.array([[0.8, 0.5], [0.4, 1.0]])
    only = jnp.array([[False, True], [False, False]])
    assert float(rr.stitching.stitching_index(grid, where=only)) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="square"):
        rr.stitching.stitching_index(grid[0])
    for where in (jnp.ones((3, 3), bool), [True]):
        with pytest.raises(ValueError, match="where must have the shape of grid"):
            rr.stitching.stitching_index(grid, where=where)


def test_values_that_float32_cannot_hold_are_refused():
    x = np.random.default_rng(0).standard_normal((40, 4))
    labels, split = np.arange(40) % 2, np.arange(40) // 20 * 2
    with pytest.raises(ValueError, match=r"spaces\['big'\] has values that float32 cannot hold"):
        rr.stitch_latents({"a": x, "big": 1e300 * x}, labels, split, parallel_samples=5)
    with pytest.raises(ValueError, match="spaces must be a dictionary or a list"):
        rr.stitch_latents(None, labels, split)


def numpy_centred_cosine(x, anchors):
    x, anchors = x - anchors.mean(axis=0), anchors - anchors.mean(axis=0)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, anchors)]
    return unit[0] @ unit[1].T


def test_the_grid_is_what_scikit_learn_gives():
    spaces, labels, split = problem(classes=4)
    sets = np.array([np.arange(40), np.arange(50, 90)])
    result = rr.stitch_latents(spaces, labels, split, "centred_cosine", seeds=1, anchor_sets=sets)
    train, test = split == 0, split == 2
    for run, rows in enumerate(sets):
        projected = [
            numpy_centred_cosine(x.astype(float), x[rows].astype(float)) for x in spaces.values()
        ]
        for j, own in enumerate(projected):
            scaler = StandardScaler().fit(own[train])
            head = LogisticRegression(C=0.01, tol=1e-8, max_iter=5000)
            head.fit(scaler.transform(own[train]), labels[train])
            for i, fed in enumerate(projected):
                predicted = head.predict(scaler.transform(fed[test]))
                assert result.accuracy[run, i, j] == pytest.approx(
                    accuracy_score(labels[test], predicted), abs=0.021
                )
                assert result.f1_weighted[run, i, j] == pytest.approx(
                    f1_score(labels[test], predicted, average="weighted"), abs=0.021
                )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(REPRESENTATIONS) - {"absolute"}))
def test_every_representation_stitches_what_differs_by_a_rigid_map(name):
    spaces, labels, split = problem(seed=3)
    result = rr.stitch_latents(spaces, labels, split, name, seeds=2, parallel_samples=60)
    assert result.accuracy.shape == result.f1_weighted.shape == (2, 3, 3)
    assert result.non_stitched().mean() > 0.9
    # Cosines without centring keep the offset that these spaces differ by, L1 and L-infinity their
    # rotation.
    hard = ("manhattan", "chebyshev", "cosine")
    floor = 0.3 if name in hard else 0.85
    assert result.stitched().mean() > floor
    assert result.parallel_samples == 60


@pytest.mark.slow
def test_absolute_latents_cross_where_widths_agree():
    spaces, labels, split = problem()
    result = rr.stitch_latents(spaces, labels, split, "absolute", seeds=1, parallel_samples=9)
    undefined = np.isnan(result.accuracy[0])
    np.testing.assert_array_equal(undefined, [[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    assert result.stitched().shape == (1, 2)
    assert result.stitched().mean() < result.non_stitched().mean() - 0.2


@pytest.mark.slow
def test_every_seed_meets_every_anchor_set():
    spaces, labels, split = problem(n=120)
    sets = np.stack([np.arange(20), np.arange(20, 40)])
    head = heads.mlp(epochs=1)
    result = rr.stitch_latents(spaces, labels, split, head=head, seeds=[3, 7], anchor_sets=sets)
    np.testing.assert_array_equal(result.seeds, [3, 3, 7, 7])
    np.testing.assert_array_equal(result.anchor_sets, np.concatenate([sets, sets]))
    alone = rr.stitch_latents(spaces, labels, split, head=head, seeds=[7], anchor_sets=sets[1:])
    np.testing.assert_array_equal(result.accuracy[3], alone.accuracy[0])


@pytest.mark.slow
def test_runs_that_cannot_differ_are_the_same():
    spaces, labels, split = problem(n=90)
    result = rr.stitch_latents(spaces, labels, split, seeds=3, parallel_samples=None)
    assert result.parallel_samples == (split == 0).sum()
    assert result.accuracy.shape == (3, 3, 3)
    np.testing.assert_array_equal(result.accuracy[0], result.accuracy[2])


@pytest.mark.slow
def test_correspondences_need_not_be_equal_rows():
    spaces, labels, split = problem(n=150)
    rng = np.random.default_rng(0)
    train = np.flatnonzero(split == 0)
    shuffled, places = {}, []
    for name, x in spaces.items():
        order = np.arange(len(x))
        order[train] = rng.permutation(train)
        shuffled[name] = x[order]
        places.append(np.argsort(order)[:40])
    with_rows = rr.stitch_latents(
        {"a": spaces["encoder0"], "b": spaces["encoder2"]},
        labels,
        split,
        "orthogonal",
        seeds=1,
        anchor_sets=np.arange(40)[None],
    )
    # The same samples in other rows; labels of training rows would not fit: test rows are enough.
    views = representations.get("orthogonal").view(
        jax.random.key(0),
        [jnp.asarray(shuffled["encoder0"]), jnp.asarray(shuffled["encoder2"])],
        jnp.asarray([places[0], places[2]]),
        jnp.asarray(train),
    )
    plain = representations.get("orthogonal").view(
        jax.random.key(0),
        [jnp.asarray(spaces["encoder0"]), jnp.asarray(spaces["encoder2"])],
        jnp.tile(jnp.arange(40), (2, 1)),
        jnp.asarray(train),
    )
    test = split == 2
    np.testing.assert_allclose(views.crossed(0, 1)[test], plain.crossed(0, 1)[test], atol=1e-3)
    assert with_rows.accuracy.shape == (1, 2, 2)


@pytest.mark.slow
def test_test_rows_and_dev_rows_do_not_influence_the_heads():
    spaces, labels, split = problem(n=120)
    split[:10] = 1
    changed = {name: x.copy() for name, x in spaces.items()}
    for x in changed.values():
        x[split != 0] += 100.0
    args = {"seeds": 1, "anchor_sets": np.arange(20, 60)[None]}
    for name in ("whitened_inner", "matched_consensus"):
        a = rr.stitch_latents(spaces, labels, split, name, **args)
        b = rr.stitch_latents(changed, labels, split, name, **args)
        jax.tree.map(lambda u, v: np.testing.assert_array_equal(u, v), a.heads, b.heads)


@pytest.mark.slow
def test_labels_may_be_any_integers():
    spaces, labels, split = problem(n=90)
    a = rr.stitch_latents(spaces, labels, split, seeds=1, parallel_samples=20)
    b = rr.stitch_latents(spaces, labels * 10 - 5, split, seeds=1, parallel_samples=20)
    np.testing.assert_array_equal(a.accuracy, b.accuracy)
    np.testing.assert_array_equal(b.classes, [-5, 5, 15])


@pytest.mark.slow
def test_half_precision_latents():
    spaces, labels, split = problem(n=90)
    half = {name: x.astype(np.float16) for name, x in spaces.items()}
    result = rr.stitch_latents(half, labels, split, "ridge", seeds=1, parallel_samples=30)
    assert result.stitched().mean() > 0.85


@pytest.mark.parametrize(
    "change, message",
    [
        ({"spaces": {"a": np.ones((90, 3))}}, "at least two encoders"),
        ({"spaces": {"a": np.ones((90, 3)), "b": np.ones((89, 3))}}, "row counts are a: 90, b: 89"),
        ({"spaces": {"a": np.ones((90, 3)), "b": np.full((90, 3), np.nan)}}, "'b'.* NaN"),
        ({"labels": np.zeros(90)}, "labels must be integers"),
        ({"labels": np.zeros(90, int)}, "nothing can be learned"),
        ({"labels": np.zeros(89, int)}, "row counts"),
        ({"split": np.full(90, 2)}, "no training rows"),
        ({"split": np.zeros(90, int)}, "no test rows"),
        ({"split": np.full(90, 3)}, "split must be 0"),
        ({"labels": np.r_[np.arange(60) % 3, np.arange(30) % 4]}, r"classes \[3\]"),
        ({"representation": "cosinus"}, "Unknown representation"),
        ({"head": "forest"}, "Unknown head"),
        ({"seeds": 0}, "At least one seed"),
        ({"seeds": 2.0}, r"seeds must be how many, or a list of whole numbers .* got 2\.0"),
        ({"seeds": [-1]}, r"from 0 to 2\*\*32 - 1, got -1"),
        ({"seeds": [0, 0.5]}, r"got 0\.5"),
        ({"parallel_samples": 61}, r"parallel_samples must be a whole number in 1 \.\. 60"),
        ({"parallel_samples": 20.0}, r"parallel_samples must be a whole number in 1 \.\. 60"),
        ({"parallel_samples": 0}, r"must be a whole number in 1 \.\. 60"),
        ({"anchor_sets": np.array([[0, 90]])}, "0 .. 89"),
        ({"anchor_sets": np.array([0, 1])}, "shape"),
        ({"anchor_sets": np.array([[0, 61]])}, "must be training rows"),
        ({"anchor_sets": np.array([[3, 3]])}, "twice"),
        ({"anchor_sets": np.zeros((1, 2, 5), int)}, "rows of 2 encoders"),
    ],
)
def test_bad_input(change, message):
    spaces, labels, split = problem(n=90)
    arguments = {"spaces": spaces, "labels": labels, "split": split, **change}
    with pytest.raises(ValueError, match=message):
        rr.stitch_latents(**arguments)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: heads.logistic_regression(0.0), "C must be positive"),
        (lambda: heads.logistic_regression(aggregation="mlp_sum"), "is learned"),
        (lambda: heads.logistic_regression(aggregation="median"), "Unknown aggregation"),
        (lambda: heads.mlp(aggregation="median"), "Unknown aggregation"),
        (lambda: heads.mlp(epochs=0), "epochs"),
        (lambda: heads.mlp(epochs=1.5), "epochs must be a whole number"),
        (lambda: heads.mlp(batch_size=1), "batch_size must be at least 2"),
        (lambda: heads.mlp(learning_rate=float("nan")), "learning_rate must be positive"),
        (lambda: heads.logistic_regression(float("nan")), "C must be positive"),
        (lambda: heads.logistic_regression(max_steps=0), "max_steps must be at least 1"),
        (lambda: representations.ridge(float("nan")), "negative"),
        (lambda: representations.subspaces(2.5), "whole number"),
        (lambda: scores.accuracy(jnp.arange(5), jnp.arange(5)[:, None], 5), r"\(5,\) and \(5, 1\)"),
        (
            lambda: rr.stitching.is_correct(jnp.ones((5, 3)), jnp.zeros((5, 1))),
            "label for each row",
        ),
        (lambda: rr.stitching.squared_error(jnp.ones((5, 1)), jnp.ones(5)), "one shape"),
        (lambda: representations.relative("cosinus"), "Unknown similarity"),
        (lambda: representations.translated("rigid"), "Unknown translation"),
        (lambda: representations.ridge(-1.0), "negative"),
        (lambda: representations.consensus(0.0), "positive"),
        (lambda: representations.prototypes(0), "at least 1"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_logits_that_are_not_finite_have_no_score():
    """Their largest would be taken for the first class."""
    logits, labels = np.eye(3, dtype=np.float32), jnp.arange(3)
    assert scores.score_logits(logits, labels, 3)["accuracy"] == 1
    logits[1, 0] = np.nan
    for value in jax.jit(scores.score_logits, static_argnums=2)(logits, labels, 3).values():
        assert np.isnan(value)


@pytest.mark.slow
def test_the_same_call_is_compiled_once(caplog):
    rng = np.random.default_rng(0)
    spaces = {"a": rng.normal(size=(40, 5)), "b": rng.normal(size=(40, 6))}
    labels, split = np.arange(40) % 2, [0] * 30 + [2] * 10

    def call(scale):
        scaled = {name: scale * space for name, space in spaces.items()}
        return rr.stitch_latents(scaled, labels, split, "cosine", seeds=2, parallel_samples=10)

    call(1.0)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        call(2.0)
    compiled = [r.message for r in caplog.records if "Compiling" in r.message]
    assert not compiled


@pytest.mark.slow
def test_heads_are_shared_on_the_same_problem_alone():
    spaces, labels, split = problem(n=120)
    options = {"seeds": 2, "parallel_samples": 20}
    first = rr.stitch_latents(spaces, labels, split, "absolute", **options)
    again = rr.stitch_latents(spaces, labels, split, "orthogonal", heads=first, **options)
    alone = rr.stitch_latents(spaces, labels, split, "orthogonal", **options)
    np.testing.assert_array_equal(again.accuracy, alone.accuracy)
    for changes, said in [
        ({"spaces": dict(reversed(spaces.items()))}, "encoders"),
        ({"spaces": dict(list(spaces.items())[:2])}, "encoders"),
        ({"labels": labels + 5}, "labels"),
        ({"seeds": 3}, "seeds"),
        ({"split": np.where(np.arange(120) < 70, 0, 2)}, "training rows"),
        ({"head": "mlp"}, "head"),
    ]:
        arguments = {"spaces": spaces, "labels": labels, "split": split, **options, **changes}
        with pytest.raises(ValueError, match=f"other .*{said}"):
            rr.stitch_latents(representation="orthogonal", heads=first, **arguments)
    with pytest.raises(ValueError, match="keep latents as they are"):
        rr.stitch_latents(spaces, labels, split, "cosine", heads=first, **options)
    with pytest.raises(ValueError, match="must be a LatentStitching"):
        rr.stitch_latents(spaces, labels, split, "absolute", heads=first.heads, **options)


@pytest.mark.slow
def test_few_training_rows_suffice_where_none_are_parallel():
    spaces, labels, split = problem(n=90)
    assert rr.stitch_latents(spaces, labels, split, "absolute", seeds=1).parallel_samples == 0


@pytest.mark.slow
def test_a_head_that_diverged_is_not_a_pair_that_cannot_be_stitched():
    spaces, labels, split = problem(n=120)  # the third is wider than the others

    def fit(key, x, labels, num_classes):
        # The head of one encoder alone gives NaN.
        return jnp.where(jnp.abs(x[0, 0] - spaces["encoder0"][0, 0]) < 1e-6, jnp.nan, 1.0)

    def apply(params, x):
        return params * x[..., :3]

    head = heads.Head(fit, apply, is_random=False)
    result = rr.stitch_latents(spaces, labels, split, "absolute", head, seeds=1)
    np.testing.assert_array_equal(result.crosses, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert result.stitched().shape == (1, 2)
    np.testing.assert_array_equal(np.isnan(result.stitched()), [[False, True]])


def test_predictions_of_nan_are_neither_right_nor_wrong():
    logits = jnp.array([[jnp.nan, 1.0], [0.0, 1.0], [jnp.nan, jnp.nan], [-jnp.inf, 0.0]])
    right = rr.stitching.is_correct(logits, jnp.array([0, 1, 0, 0]))
    np.testing.assert_array_equal(right, [np.nan, 1, np.nan, 0])


@pytest.mark.slow
def test_the_stitching_index_is_of_the_same_decoder():
    grid = np.array([[0.8, 0.6, 0.1], [0.4, 1.0, 0.2], [0.2, 0.5, 0.4]])
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    expected = np.mean([grid[i, j] / grid[j, j] for i, j in pairs])
    np.testing.assert_allclose(rr.stitching.stitching_index(grid), expected, rtol=1e-6)
    errors = rr.stitching.stitching_index(grid, higher_is_better=False)
    np.testing.assert_allclose(errors, np.mean([grid[j, j] / grid[i, j] for i, j in pairs]), 1e-6)
    first = rr.stitching.stitching_index(grid, where=[[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(first, (0.6 / 1.0 + 0.4 / 0.8) / 2, rtol=1e-6)
    many = jax.vmap(rr.stitching.stitching_index)(jnp.stack([jnp.asarray(grid), jnp.eye(3)]))
    np.testing.assert_allclose(many, [expected, 0], rtol=1e-6)
    assert np.isnan(rr.stitching.stitching_index(grid, where=np.eye(3)))
    assert np.isnan(rr.stitching.stitching_index(np.where(grid == 0.2, np.nan, grid)))
    assert np.isnan(rr.stitching.stitching_index(np.array([[0.0, 1.0], [1.0, 0.5]])))
    with pytest.raises(ValueError, match=r"square matrix \[e, e\], got shape \(2, 3\)"):
        rr.stitching.stitching_index(grid[:2])


@pytest.mark.parametrize("dtype, high", [(np.uint8, 255), (np.float16, 300), (jnp.bfloat16, 256)])
def test_squared_errors_of_small_dtypes_do_not_overflow(dtype, high):
    low, high = (np.full((2, 3), value).astype(dtype) for value in (0, high))
    found = rr.stitching.squared_error(low, high)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, np.float32(high[:, 0]) ** 2)


@pytest.mark.parametrize(
    "method", ["ridge", pytest.param("mahalanobis", marks=pytest.mark.slow), "whitened_inner"]
)
@pytest.mark.parametrize("power", [-66, pytest.param(60, marks=pytest.mark.slow)])
def test_representations_that_forget_the_scale_forget_any(method, power):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 12)).astype(np.float32)
    b = (a @ rng.normal(size=(12, 12)) + rng.normal(size=(60, 12))).astype(np.float32)
    rows, train = np.arange(30)[None].repeat(2, 0), np.arange(40)
    make = getattr(representations, method)()

    def crossed(scale):
        spaces = [jnp.asarray(a * scale), jnp.asarray(b * scale)]
        views = make.view(jax.random.key(0), spaces, rows, train)
        return np.float64(views.crossed(0, 1))

    size = 2.0**power if method == "ridge" else 1.0
    plain, scaled = crossed(np.float32(1)), crossed(np.float32(2.0**power)) / size
    np.testing.assert_allclose(scaled, plain, rtol=1e-4, atol=1e-5 * np.abs(plain).max())
