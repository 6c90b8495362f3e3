"""Experiments on frozen latents: the configs' doors, what their tables say, and that all run."""

import csv
import dataclasses
import importlib.util
import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from relrep_jax import report, similarities
from relrep_jax.data.latents import load_labelled
from relrep_jax.data.views import LOOKS, VIEWS, digit_views
from relrep_jax.experiments import (
    EXPERIMENTS,
    cross_architecture,
    cross_lingual,
    get_experiment,
    invariances,
    latent_stitching,
    latents,
    number_of_anchors,
    product_classification,
    products,
    space_selection,
    subspaces,
    transformation_classes,
)
from relrep_jax.experiments.config import ConfigError
from relrep_jax.projection import PAPER_SIMILARITIES
from relrep_jax.stitching import heads, representations
from relrep_jax.stitching.latents import LatentStitching, stitch_latents

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    cross_architecture,
    cross_lingual,
    invariances,
    number_of_anchors,
    product_classification,
    space_selection,
    subspaces,
    transformation_classes,
)
CONFIG = ROOT / "configs" / "relative_representations" / "cross_architecture_text.py"
ENCODERS = ("one__eng", "two__fra", "three__fra")


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(*arguments):
    return load(ROOT / "train.py", "train").main(["train.py", *map(str, arguments)])


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three encoders that see one clustered cause through orthonormal maps."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    cause = 2.5 * rng.standard_normal((3, 6))[labels] + rng.standard_normal((120, 6))
    home = tmp_path_factory.mktemp("latents")
    for name, width in zip(ENCODERS, (20, 20, 24), strict=True):
        frame, _ = np.linalg.qr(rng.standard_normal((width, 6)))
        np.save(home / f"{name}.npy", (cause @ frame.T).astype(np.float16))
    np.save(home / "labels.npy", labels + 5)
    np.save(home / "split.npy", np.where(np.arange(120) < 80, 0, 2))
    return home


def small(module, folder, **changes):
    config = module.default_config()
    config.data.path = str(folder)
    config.seeds.count = 2
    if "count" in config.anchors:
        config.anchors.count = 15
    elif module is number_of_anchors:
        config.anchors.counts = (1, 8, 40)
    config.update_from_flattened_dict(changes)
    return config


def run(module, config, workdir):
    path = module.run(module.prepare(config), workdir, Console(quiet=True), "python train.py")
    return path.read_text()


# --- Doors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.split(".")[-1])
def test_every_door_refuses_what_cannot_be_run(module, folder):
    config = small(module, folder)
    assert get_experiment(config) is module
    assert config.seeds.count == 2
    module.prepare(config)
    config.data.path = str(folder / "nowhere")
    with pytest.raises(ValueError, match="No such folder: .*nowhere .*a file for each encoder"):
        module.prepare(config)
    config.data.path = str(folder / "labels.npy")
    with pytest.raises(ValueError, match="is a file, not a folder of latents"):
        module.prepare(config)
    config.data.path = str(folder)
    config.data.encoders = ("one__eng", "twoo__fra")
    with pytest.raises(ValueError, match="Did you mean 'two__fra'"):
        module.prepare(config)
    config.data.encoders = ()
    config.scale = "tiny"
    with pytest.raises(ConfigError, match="full, smoke"):
        module.prepare(config)
    config.scale = "full"
    config.seeds.counts = 3
    with pytest.raises(ConfigError, match=r"Unknown config field config\.seeds\.counts"):
        module.prepare(config)
    assert module.default_config().seeds.count >= 5


@pytest.mark.parametrize(
    "module, change, message",
    [
        (cross_architecture, {"anchors.count": 81}, "in 1 .. 80"),
        (cross_architecture, {"methods": ("cosin",)}, "Did you mean 'cosine'"),
        (cross_architecture, {"methods": ()}, "empty"),
        (cross_architecture, {"published": "texts"}, "Did you mean 'text'"),
        (cross_architecture, {"head.name": "mpl"}, "Did you mean 'mlp'"),
        (cross_architecture, {"head.learning_rate": 0.0}, "above 0"),
        (cross_lingual, {"anchors.count": -1}, "at least 0"),
        (number_of_anchors, {"anchors.counts": (2, 81)}, "in 1 .. 80"),
        (number_of_anchors, {"anchors.counts": ()}, "empty"),
        (number_of_anchors, {"methods": ("absolute",)}, "has no anchors"),
        (number_of_anchors, {"anchors.counts": (None,)}, "must be a whole number"),
        (product_classification, {"anchors.counts": (1.5,)}, "must be a whole number"),
        (subspaces, {"bins": ("zz",)}, "must be a number"),
        (subspaces, {"subspaces": (1.5,)}, "must be a whole number"),
        (subspaces, {"subspaces": (21,)}, "in 1 .. 20"),
        (subspaces, {"bins": (0.0,)}, "above 0"),
        (subspaces, {"poolings": ("summ",)}, "Did you mean 'sum'"),
        (transformation_classes, {"classes": ("conform",)}, "Did you mean 'conformal'"),
        (transformation_classes, {"anchors.count": 81}, "in 1 .. 80"),
        (product_classification, {"anchors.counts": (81,)}, "in 1 .. 80"),
        (product_classification, {"subsets": "some"}, "every, single_and_all, all"),
        (product_classification, {"aggregations": ("mlp",)}, "Did you mean 'mlp_sum'"),
        (product_classification, {"similarities": ("cosine", "cosine")}, "twice"),
        (product_classification, {"anchors.absolute_transform": "centring"}, "centering"),
        (product_classification, {"head.name": "logistic_regression"}, "learned"),
        (space_selection, {"tuning.samples": 81}, "in 0 .. 80"),
        (space_selection, {"baselines": ("rigde",)}, "Did you mean 'ridge'"),
        (space_selection, {"head.name": "logistic_regression"}, "no attention"),
        (invariances, {"components": 21}, "at most 20"),
        (invariances, {"anchors.count": 81}, "in 1 .. 80"),
    ],
)
def test_bad_config(module, change, message, folder):
    with pytest.raises(ValueError, match=message):
        module.prepare(small(module, folder, **change))


def test_files_that_name_no_language(folder, tmp_path):
    np.save(tmp_path / "bare.npy", np.load(folder / "one__eng.npy"))
    np.save(tmp_path / "one__eng.npy", np.load(folder / "one__eng.npy"))
    for name in ("labels", "split"):
        np.save(tmp_path / f"{name}.npy", np.load(folder / f"{name}.npy"))
    with pytest.raises(ConfigError, match="'bare' does not name its language"):
        cross_lingual.prepare(small(cross_lingual, tmp_path))


def test_train_py_stops_before_any_work(folder, tmp_path, capsys):
    workdir = tmp_path / "run"
    arguments = [f"--config={CONFIG}", f"--workdir={workdir}"]
    assert train(*arguments, f"--config.data.path={folder / 'nowhere'}") == 2
    assert "No such folder" in capsys.readouterr().err
    assert train(*arguments, f"--config.data.path={folder}", "--config.anchors.count=500") == 2
    assert "in 1 .. 80" in capsys.readouterr().err
    assert train(*arguments, "--config.data.pathh=x") == 2
    assert not workdir.exists()


def test_every_experiment_is_registered():
    assert set(EXPERIMENTS.values()) >= set(MODULES)


# --- Data -------------------------------------------------------------------------------------


def test_digit_views():
    digits = digit_views()
    assert list(digits.spaces) == list(VIEWS)
    assert all(space.shape[0] == len(digits.labels) for space in digits.spaces.values())
    assert all(np.isfinite(space).all() for space in digits.spaces.values())
    assert (digits.split == 0).sum() == 1500
    turned = digit_views("pixels", looks=tuple(LOOKS))
    assert list(turned.spaces) == [f"pixels__{look}" for look in LOOKS]
    plain = turned.spaces["pixels__plain"]
    np.testing.assert_array_equal(plain, digits.spaces["pixels"])
    for look in ("turned", "blurred"):
        changed = turned.spaces[f"pixels__{look}"]
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert np.abs(changed - plain).mean() > 0.02


def test_labelled_folder(folder, tmp_path):
    found = load_labelled(folder)
    assert tuple(found.spaces) == tuple(sorted(ENCODERS))
    assert found.name == folder.resolve().name
    np.save(tmp_path / "other.npy", np.zeros(120, int))
    assert load_labelled(folder, labels=tmp_path / "other.npy").labels.max() == 0


def test_smoke_keeps_every_class(folder):
    problem = cross_architecture.prepare(
        small(cross_architecture, folder, **{"scale": "smoke"})
    ).problem
    assert problem.num_classes == 3
    assert set(problem.labels[problem.train]) == {0, 1, 2}
    rows = latents._balanced(np.array([0, 0, 0, 0, 1, 2, 2]), np.ones(7, bool), 4)
    assert sorted(np.array([0, 0, 0, 0, 1, 2, 2])[rows]) == [0, 0, 1, 2]


# --- Tables for people ------------------------------------------------------------------------


def test_paired_test():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.4, 0.6, 20)
    better = base + rng.uniform(0.01, 0.03, 20)
    test = report.paired_test(better, base)
    assert (test.pairs, test.wins) == (20, 20)
    assert test.difference == pytest.approx((better - base).mean())
    assert test.t_p < 0.001
    assert test.wilcoxon_p < 0.001
    back = report.paired_test(base, better)
    assert (back.wins, back.t_p) == (0, pytest.approx(test.t_p))
    better[:3] = np.nan
    assert report.paired_test(better, base).pairs == 17
    for shift in (1.0, 0.1):
        constant = report.paired_test(base + shift, base)
        assert np.isnan(constant.t_p)
        assert constant.wilcoxon_p < 0.001
    equal = report.paired_test(base, base)
    assert (equal.difference, equal.wins) == (0, 0)
    assert np.isnan([equal.t_p, equal.wilcoxon_p]).all()
    assert report.paired_cells(equal)[2:] == ["–", "–"]
    with pytest.raises(ValueError, match="one shape"):
        report.paired_test(base, base[1:])


def test_sheet():
    sheet = report.Sheet("T", ("a", "b"), [["x", "1"], ["y", "2"]], "c.", frozenset({(1, 1)}))
    assert report.sheet_markdown(sheet) == (
        "| a | b |\n| :--- | ---: |\n| x | 1 |\n| y | **2** |\n\nc."
    )
    console = Console(width=40, record=True, quiet=True)
    console.print(report.sheet_terminal(sheet))
    assert report.percent(0.5, 0.01) == "50.0 ± 1.0"
    assert report.percent(float("nan")) == "–"


def test_intervals(tmp_path):
    figure = report.intervals({"a": (0.5, 0.1), "b": (0.7, float("nan"))}, "accuracy")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]
    report.save(figure, tmp_path / "intervals.png")
    with pytest.raises(ValueError, match="at least one"):
        report.intervals({}, "accuracy")


# --- What is measured -------------------------------------------------------------------------


@pytest.mark.slow
def test_invariances_are_those_of_the_formulas():
    x = invariances.components(np.random.default_rng(0).standard_normal((200, 12)) * 3 + 1, 8)
    found = invariances.relative_changes(x, 20, seed=1)
    blind = {
        "cosine": {"orthogonal", "scaling", "signed permutation"},
        "centred cosine": {"orthogonal", "scaling", "translation", "signed permutation"},
        "standardised cosine": {"scaling", "translation", "signed permutation", "diagonal"},
        "angular": {"orthogonal", "scaling", "signed permutation"},
        "inner": {"orthogonal", "signed permutation"},
        "Euclidean": {"orthogonal", "translation", "signed permutation"},
        "L1": {"translation", "signed permutation"},
        "L∞": {"translation", "signed permutation"},
        "change of basis": {"orthogonal", "scaling", "signed permutation", "diagonal", "linear"},
        "Mahalanobis": set(invariances.MAPS),
        "whitened inner": set(invariances.MAPS),
    }
    for d, distance in enumerate(invariances.DISTANCES):
        if distance not in blind:
            continue
        zero = {m for i, m in enumerate(invariances.MAPS) if found[0, d, i] < 1e-9}
        assert zero == blind[distance], distance
        # A LayerNorm over the anchors adds the invariance to scale, and takes none away.
        normalized = {m for i, m in enumerate(invariances.MAPS) if found[1, d, i] < 1e-9}
        assert normalized == zero | {"scaling"}, distance
    scaling = list(invariances.MAPS).index("scaling")
    euclidean = list(invariances.DISTANCES).index("Euclidean")
    assert found[0, euclidean, scaling] == pytest.approx(2.0)


def test_subsets():
    def subsets(count, which):
        return products.subsets_of(count, which, "config.subsets")

    every = subsets(4, "every")
    assert len(every) == len(set(every)) == 15
    assert len(subsets(4, "single_and_all")) == 5
    assert subsets(4, "all") == [(0, 1, 2, 3)]
    assert subsets(1, "single_and_all") == [(0,)]
    with pytest.raises(ConfigError, match="config.subsets must be one of every, single_and_all"):
        subsets(4, "most")


@pytest.mark.slow
def test_subspaces_are_projected_one_by_one():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((30, 7)), jnp.float32)
    rows, training = jnp.arange(5)[None], jnp.arange(20)

    def space(*arguments):
        one = representations.subspaces(*arguments)
        return np.asarray(one.view(jax.random.key(0), [x], rows, training).own[0])

    parts = [
        np.asarray(similarities.cosine(part - part[:5].mean(0), part[:5] - part[:5].mean(0)))
        for part in (x[:, :3], x[:, 3:5], x[:, 5:])
    ]
    np.testing.assert_allclose(space(3), np.concatenate(parts, axis=1), atol=1e-5)
    np.testing.assert_allclose(space(3, "sum"), np.sum(parts, axis=0), atol=1e-5)
    np.testing.assert_allclose(space(3, "mean"), np.mean(parts, axis=0), atol=1e-5)
    np.testing.assert_allclose(space(3, "max"), np.max(parts, axis=0), atol=1e-5)
    with pytest.raises(ValueError, match="got 7"):
        space(8)
    with pytest.raises(ValueError, match="Did you mean 'max'"):
        representations.subspaces(2, "maxi")


def test_kinds_of_pairs_of_languages():
    names = ("a__x", "a__y", "b__x")
    masks = {kind: cross_lingual.kind_mask(names, kind) for kind in cross_lingual.KINDS}
    assert (sum(mask.astype(int) for mask in masks.values()) == 1).all()
    assert masks["one encoder, another language"].sum() == 2
    assert masks["another encoder, one language"].sum() == 2
    assert masks["another encoder, another language"].sum() == 2


def test_tuned_parts_do_not_overlap():
    paths = [
        ("aggregate", "attention", part, "kernel") for part in ("query", "key", "value", "out")
    ] + [("aggregate", "norm", "scale"), ("norm", "scale"), ("layers", "0", "kernel")]
    attention = [path for path in paths if space_selection.is_attention(path)]
    classifier = [path for path in paths if space_selection.is_classifier(path)]
    assert attention == paths[:3]
    assert classifier == paths[5:]


@pytest.mark.slow
def test_tuning_changes_what_it_may_and_nothing_else(folder):
    job = space_selection.prepare(small(space_selection, folder))
    problem = job.problem
    product = products.project(
        problem.on_device(), jnp.arange(15), PAPER_SIMILARITIES, job.transform
    )
    labels, key = jnp.asarray(problem.labels), jax.random.key(0)
    before = job.head.fit(key, product[0], labels, 3)

    def flat(params):
        leaves = jax.tree_util.tree_leaves_with_path(params.params)
        return {tuple(str(entry.key) for entry in path): np.asarray(leaf) for path, leaf in leaves}

    for is_tuned in space_selection.TUNED.values():
        after = job.tuner.tune(key, before, product[1], labels, is_tuned)
        changed = {
            path
            for path, leaf in flat(after).items()
            if np.abs(leaf - flat(before)[path]).max() > 0
        }
        allowed = {path for path in flat(before) if is_tuned(path)}
        # The bias of the keys adds the same to all scores of a query, so that it has no gradient.
        assert changed <= allowed
        assert allowed - changed <= {("aggregate", "attention", "key", "bias")}
        count = sum(flat(before)[path].size for path in allowed)
        assert heads.count_tuned(before, is_tuned) == count


@pytest.mark.slow
def test_baselines_of_space_selection_are_those_of_stitched_latents(folder, tmp_path):
    changes = {"baselines": ("absolute", "ridge"), "singles": False, "tuning.epochs": 1}
    config = small(space_selection, folder, **changes, **{"anchors.count": 15})
    job = space_selection.prepare(config)
    space_selection.run(job, tmp_path, Console(quiet=True))
    table = read(tmp_path / "tables" / "scores.csv")
    expected = stitch_latents(
        job.problem.spaces, job.problem.labels, job.problem.split, "ridge", job.baseline_head,
        latents.seeds_of(config), parallel_samples=15,
    )  # fmt: skip
    names = list(job.problem.names)
    found = [row for row in table if (row["tuned"], row["metric"]) == ("ridge", "accuracy")]
    assert len(found) == 2 * 6
    for row in found:
        i, j = names.index(row["encoder"]), names.index(row["decoder"])
        assert float(row["value"]) == pytest.approx(
            float(expected.accuracy[int(row["seed"]), i, j]), abs=0.03
        )
    # Encoders of different widths cannot be stitched as they are.
    absolute = [row for row in table if (row["tuned"], row["metric"]) == ("absolute", "accuracy")]
    assert sum(row["value"] == "nan" for row in absolute) == 2 * 4
    assert "absolute, ridge: nothing tuned" in (tmp_path / "report.md").read_text()


def test_the_best_and_the_worst_distance_are_chosen_by_their_means():
    singles = {
        "cosine": np.array([0.5, 0.9, 0.4]),
        "manhattan": np.array([0.7, 0.8, 0.6]),
        "chebyshev": np.array([0.2, 0.1, 0.9]),
    }
    found = products.rivals_of_product(singles)
    assert list(found) == [
        "best single (L1)", "worst single (L∞)", "best single of each pair",
    ]  # fmt: skip
    np.testing.assert_array_equal(found["best single (L1)"], singles["manhattan"])
    np.testing.assert_array_equal(found["worst single (L∞)"], singles["chebyshev"])
    np.testing.assert_array_equal(found["best single of each pair"], [0.7, 0.9, 0.9])


@pytest.mark.parametrize("best, is_shown", [(0, False), (2, False), (3, True), (6, False)])
def test_a_product_is_compared_with_the_best_subset_where_that_is_another(best, is_shown):
    names = ("cosine", "manhattan", "chebyshev")
    subsets = [subset for size in (1, 2, 3) for subset in itertools.combinations(names, size)]
    rng = np.random.default_rng(0)
    results = [
        product_classification.Result(
            product_classification.Setting("uniform", 8, "sum", subset),
            {"accuracy": rng.uniform(0.4, 0.5, (2, 4, 4)) + 0.3 * (k == best)},
            0.0,
        )
        for k, subset in enumerate(subsets)
    ]
    rows = product_classification.product_sheet(results, names).rows
    shown = [row for row in rows if row[1].startswith("best subset")]
    assert len(shown) == is_shown
    if is_shown:
        difference = 100 * (results[-1].pairs - results[best].pairs).mean()
        assert shown[0][1:3] == ["best subset (Cos + L1)", f"{difference:+.1f}"]
    assert [row[1].split(" (")[0] for row in rows[:3]] == [
        "best single", "worst single", "best single of each pair",
    ]  # fmt: skip


def _outcome(method, accuracy, parallel_samples=8):
    """Scores `[seeds, e, e]`, NaN where widths differ."""
    names = tuple(f"encoder{i}" for i in range(accuracy.shape[-1]))
    return latent_stitching.Outcome(
        method,
        LatentStitching(
            names, accuracy, accuracy, np.arange(len(accuracy)), np.zeros((len(accuracy), 0)),
            parallel_samples, (), np.arange(3), np.isfinite(accuracy[0]),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("singles", [True, False])
def test_a_product_is_compared_with_baselines_of_as_many_samples(singles):
    names = ("cosine", "chebyshev")
    rng = np.random.default_rng(0)
    results = [
        product_classification.Result(
            product_classification.Setting("uniform", count, "sum", subset),
            {"accuracy": rng.uniform(0.4, 0.5, (2, 4, 4))},
            0.0,
        )
        for count in (4, 8)
        for subset in ([names[:1], names[1:], names] if singles else [names])
    ]
    ridge, absolute = rng.uniform(0.5, 0.6, (2, 2, 4, 4))
    absolute[:, 0, 1:] = absolute[:, 1:, 0] = np.nan
    baselines = [_outcome("absolute", absolute, 0), _outcome("ridge", ridge)]
    sheet = product_classification.product_sheet(results, names, baselines)
    assert ("baselines" in sheet.title) == (not singles)
    rows = {(row[0], row[2]): row for row in sheet.rows}
    assert [key for key in rows if key[1] in ("absolute", "ridge")] == [
        ("4", "absolute"), ("8", "absolute"), ("8", "ridge"),
    ]  # fmt: skip
    assert len(rows) == 3 + 6 * singles
    difference = results[-1].pairs - latents.over_pairs(ridge).mean(axis=0)
    assert rows["8", "ridge"][3:5] == [
        f"{100 * difference.mean():+.1f}", f"{(difference > 0).sum()} of 12",
    ]  # fmt: skip
    # Only the pairs of one width.
    assert rows["8", "absolute"][4].endswith(" of 6")


def test_comparisons_across_languages_are_of_each_kind_of_pairs():
    rng = np.random.default_rng(0)
    names = ("a__x", "a__y", "b__x", "b__y")
    outcomes = [_outcome(name, rng.uniform(0.4, 0.6, (3, 4, 4))) for name in ("absolute", "cosine")]
    outcomes = [
        dataclasses.replace(one, result=dataclasses.replace(one.result, names=names))
        for one in outcomes
    ]
    rows = cross_lingual.comparison_sheet(outcomes).rows
    assert [row[0] for row in rows] == [*cross_lingual.KINDS, "all of different spaces"]
    difference = np.mean(outcomes[1].result.accuracy - outcomes[0].result.accuracy, axis=0)
    for kind, base, method, shown, won, *_ in rows:
        mask = (
            cross_lingual.kind_mask(names, kind)
            if kind in cross_lingual.KINDS
            else ~np.eye(4, dtype=bool)
        )
        assert (base, method) == ("cosine", "absolute")
        assert shown == f"{100 * difference[mask].mean():+.1f}"
        assert won == f"{(difference[mask] > 0).sum()} of {mask.sum()}"


@pytest.mark.slow
def test_space_selection_compares_the_product_with_each_distance_alone(folder, tmp_path):
    """An independent road for what is not tuned: the heads of the experiment on products."""
    changes = {"similarities": ("cosine", "chebyshev"), "baselines": (), "tuning.epochs": 1}
    config = small(space_selection, folder, **changes, **{"anchors.count": 15})
    job = space_selection.prepare(config)
    space_selection.run(job, tmp_path, Console(quiet=True))
    problem, names = job.problem, list(job.problem.names)
    table = read(tmp_path / "tables" / "scores.csv")
    assert {row["similarities"] for row in table} == {"cosine+chebyshev", "cosine", "chebyshev"}
    for seed in latents.seeds_of(config):
        anchors = products.choose_anchors(problem, "uniform", 15, seed)
        product = products.project(
            problem.on_device(), anchors, ("cosine", "chebyshev"), job.transform
        )
        expected = products.compile_scorer(problem, job.head, 2)(product, [(0,), (1,)], seed)
        for k, name in enumerate(("cosine", "chebyshev")):
            rows = [
                row for row in table
                if (row["similarities"], row["tuned"], row["metric"], row["seed"])
                == (name, "nothing", "accuracy", str(seed))
            ]  # fmt: skip
            assert len(rows) == 6
            for row in rows:
                i, j = names.index(row["encoder"]), names.index(row["decoder"])
                assert float(row["value"]) == pytest.approx(
                    float(expected["accuracy"][k, i, j]), abs=0.03
                )
    text = (tmp_path / "report.md").read_text()
    assert "| Tuned | Cos + L∞ | Cos | L∞ |" in text
    section = text.split("## The product against single distances")[1].split("\n## ")[0]
    for name in space_selection.TUNED:
        assert section.count(f"| {name} | ") == 3

    def mean(similarities, tuned):
        """`[pairs]`, over seeds."""
        values = {}
        for row in table:
            if (row["similarities"], row["tuned"], row["metric"]) == (
                similarities, tuned, "accuracy",
            ):  # fmt: skip
                values.setdefault((row["encoder"], row["decoder"]), []).append(float(row["value"]))
        return np.array([np.mean(pair) for pair in values.values()])

    for tuned in space_selection.TUNED:
        product, cosine, chebyshev = (
            mean(name, tuned) for name in ("cosine+chebyshev", "cosine", "chebyshev")
        )
        assert f"| {tuned} | {100 * product.mean():.1f} ± " in text.split("## Heads on one")[1]
        shown = text.split("## Tuning stitched heads")[1].split("\n## ")[0]
        assert re.search(rf"\| {tuned} \| [\d,]+ \| {100 * product.mean():.1f} ± ", shown)
        worst = min(cosine, chebyshev, key=np.mean)
        difference, won = product - worst, int((product > worst).sum())
        row = next(line for line in section.splitlines() if f"| {tuned} | worst single (" in line)
        assert f"| {100 * difference.mean():+.1f} | {won} of 6 |" in row


@pytest.mark.slow
def test_a_subset_of_a_product_scores_as_that_product_alone(folder):
    """An independent road: `stitch_latents` with the same anchors and two distances."""
    changes = {"head.name": "mlp", "head.epochs": 30, "head.batch_size": 16}
    job = product_classification.prepare(
        small(product_classification, folder, **changes, **{"anchors.counts": (15,)})
    )
    problem, head = job.problem, job.heads["mlp_sum"]
    rows = problem.train[:15]
    product = products.project(
        problem.on_device(), jnp.asarray(rows), PAPER_SIMILARITIES, job.transform
    )
    subsets = [(0, 1), (1, 2), (2, 3)]
    scores = products.compile_scorer(problem, head, 3)(product, subsets, 0)
    pair = ("manhattan", "chebyshev")
    expected = stitch_latents(
        problem.spaces, problem.labels, problem.split,
        representations.product(pair, "centering"), head, [0], [rows],
    )  # fmt: skip
    # Other keys lead to other heads: alike, not equal.
    np.testing.assert_allclose(scores["accuracy"][2], expected.accuracy[0], atol=0.12)
    assert scores["accuracy"].shape == (3, 3, 3)
    assert scores["accuracy"].min() > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "logistic_regression"])
def test_heads_on_latents_serve_every_translation(folder, name):
    """Sharing what was trained changes no score."""
    found = load_labelled(folder)
    head = heads.mlp(epochs=2) if name == "mlp" else heads.logistic_regression()
    problem = (found.spaces, found.labels, found.split)
    absolute = stitch_latents(*problem, "absolute", head, 2, parallel_samples=12)
    for method in ("orthogonal", "ridge"):
        assert representations.get(method).keeps_latents
        apart = stitch_latents(*problem, method, head, 2, parallel_samples=12)
        shared = stitch_latents(*problem, method, head, 2, parallel_samples=12, heads=absolute)
        np.testing.assert_allclose(shared.accuracy, apart.accuracy, atol=0.03)
        np.testing.assert_allclose(shared.non_stitched(), absolute.non_stitched(), atol=0.03)
    assert not representations.get("centred_cosine").keeps_latents


# --- Whole runs -------------------------------------------------------------------------------


@pytest.mark.slow
def test_relative_spaces_cross_architectures_and_absolute_ones_do_not(folder, tmp_path):
    config = small(
        cross_architecture, folder,
        **{"methods": ("absolute", "centred_cosine", "orthogonal"), "head.batch_size": 16,
           "head.name": "mlp", "head.epochs": 20},
    )  # fmt: skip
    text = run(cross_architecture, config, tmp_path)
    found = {
        r["method"]: r for r in read(tmp_path / "tables/summary.csv") if r["metric"] == "accuracy"
    }
    assert float(found["absolute"]["stitched_mean"]) < 0.7
    assert float(found["centred_cosine"]["stitched_mean"]) > 0.9
    assert int(found["absolute"]["num_pairs"]) == 2
    assert "not comparable" in text
    assert "embedded digits" not in text
    assert (tmp_path / "figures").is_dir()


@pytest.mark.slow
def test_more_anchors_are_better(folder, tmp_path):
    config = small(
        number_of_anchors, folder,
        **{"methods": ("centred_cosine", "prototypes", "orthogonal")},
    )  # fmt: skip
    run(number_of_anchors, config, tmp_path)
    found = {
        (r["method"], int(r["parallel_samples"])): float(r["stitched_mean"])
        for r in read(tmp_path / "tables/summary.csv")
        if r["metric"] == "accuracy"
    }
    for method in ("centred_cosine", "prototypes"):
        assert found[method, 1] < found[method, 8] <= found[method, 40] + 0.02
    pairs = read(tmp_path / "tables/pairs.csv")
    job = number_of_anchors.prepare(config)
    outcomes = latents.stitch_methods(
        job.problem, config.methods, job.counts, head=job.head,
        seeds=latents.seeds_of(config), console=Console(quiet=True),
    )  # fmt: skip
    sheet = number_of_anchors.method_sheet(outcomes, config.methods)
    assert [row[:3] for row in sheet.rows] == [
        [first, second, count]
        for first, second in itertools.combinations(config.methods, 2)
        for count in ("1", "8", "40")
    ]
    for first, second, count, difference, *_ in sheet.rows:
        scores = [
            [
                float(r["value"])
                for r in pairs
                if (r["method"], r["parallel_samples"], r["metric"]) == (method, count, "accuracy")
                and r["encoder"] != r["decoder"]
            ]
            for method in (first, second)
        ]
        assert difference == f"{100 * (np.mean(scores[0]) - np.mean(scores[1])):+.1f}"
    steps = read(tmp_path / "tables/steps.csv")
    # The own heads of a translation do not depend on parallel samples.
    assert len(steps) == 2 * 2 * 2 + 2
    assert {r["kind"] for r in steps if r["method"] == "orthogonal"} == {"stitched"}


@pytest.mark.slow
def test_spaces_that_differ_by_a_rotation_have_equal_conformal_spaces(folder):
    job = transformation_classes.prepare(small(transformation_classes, folder))
    scores = transformation_classes.similarities_of_classes(job)
    assert scores.shape == (2, len(transformation_classes.CLASSES), 3)
    names = list(transformation_classes.CLASSES)
    for name in ("conformal", "Euclidean", "orthogonal"):
        assert scores[:, names.index(name)].min() > 0.999
    assert scores[:, names.index("signed permutation (L∞)")].min() < 0.99
