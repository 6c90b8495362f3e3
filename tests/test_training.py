"""Training: losses, optimisers, the compiled loop, seeds, checkpoints."""

import logging
import threading
import time
from contextlib import contextmanager
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from relrep_jax.models.functional import functional
from relrep_jax.training import losses, selection
from relrep_jax.training.ahead import WORKERS, Ahead
from relrep_jax.training.checkpoints import Checkpoints
from relrep_jax.training.loop import init_state, train_steps
from relrep_jax.training.optimizers import make_optimizer, make_schedule
from relrep_jax.training.seeds import over_seeds, plan_seeds, update_seeds
from relrep_jax.training.selection import Selection
from relrep_jax.training.trainer import calls_per_epoch, compile_program, make_program, train

NUM_SAMPLES, WIDTH = 50, 5


def data():
    rng = np.random.default_rng(0)
    return {
        "x": jnp.asarray(rng.normal(size=(NUM_SAMPLES, WIDTH)), jnp.float32),
        "index": jnp.arange(NUM_SAMPLES),
    }


class Model(nnx.Module):
    def __init__(self, rngs):
        # Without a bias: before a batch normalisation its gradient is mere rounding noise,
        # which Adam would blow up.
        self.first = nnx.Linear(WIDTH, 8, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.last = nnx.Linear(8, WIDTH, rngs=rngs)

    def __call__(self, x, *, train):
        return self.last(jax.nn.tanh(self.norm(self.first(x), use_running_average=not train)))


MODEL = functional(Model)
OPTIMIZER = make_optimizer("adam", 1e-2, clip_norm=1.0)


def loss(variables, batch, context, key):
    noise = 0.01 * jax.random.normal(key, batch["x"].shape)
    prediction, stats = MODEL.apply(variables, "__call__", batch["x"] + noise, train=True)
    return jnp.mean(jnp.square(prediction - batch["x"])), (stats, {"rows": jnp.sum(batch["index"])})


def run(seeds, *, strategy="auto", epochs=3, **options):
    plan = plan_seeds(len(seeds), strategy)
    options = {"batch_size": 8, **options}
    return train(
        MODEL, options.pop("loss", loss), OPTIMIZER, plan.share(options.pop("data", data())),
        seeds=seeds, plan=plan, epochs=epochs, **options,
    )  # fmt: skip


class LossTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_losses_agree_with_numpy(self):
        rng = np.random.default_rng(0)
        p, t = rng.random((2, 6, 4, 4, 1))
        error = (t - p) ** 2
        sigma = np.sqrt(error.mean())
        expected = (0.5 * error / sigma**2 + np.log(sigma)).sum() / 6
        result = self.variant(losses.optimal_sigma_nll)(np.float32(p), np.float32(t))
        np.testing.assert_allclose(result, expected, rtol=1e-5)
        mse = self.variant(losses.mean_squared_error)(np.float32(p), np.float32(t))
        np.testing.assert_allclose(mse, error.mean(), rtol=1e-5)
        logits, labels = rng.normal(size=(6, 3)), np.array([0, 1, 2, 0, 1, 2])
        expected = -np.mean(
            (logits - np.log(np.exp(logits).sum(1, keepdims=True)))[range(6), labels]
        )
        result = self.variant(losses.cross_entropy)(np.float32(logits), labels)
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_the_optimal_sigma_is_optimal():
    """No other variance gives the batch a higher likelihood."""
    rng = np.random.default_rng(0)
    p, t = np.float32(rng.random((2, 6, 10)))
    best = losses.optimal_sigma_nll(p, t)
    for sigma in (0.1, 0.3, 0.5, 1.0):
        other = (0.5 * ((t - p) / sigma) ** 2 + np.log(sigma)).sum() / 6
        assert other > best


@pytest.mark.slow
def test_a_perfect_reconstruction_has_a_finite_loss_and_gradient():
    x = jnp.ones((4, 3))
    value, gradient = jax.value_and_grad(losses.optimal_sigma_nll)(x, x)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()


@pytest.mark.slow
def test_optimizers_by_name():
    params = {"w": jnp.ones(3)}
    for name in ("adam", "sgd", "lion", "adamw"):
        optimizer = make_optimizer(name, 0.1)
        updates, _ = optimizer.update({"w": jnp.ones(3)}, optimizer.init(params), params)
        assert (updates["w"] < 0).all()
    clipped = make_optimizer("sgd", 1.0, clip_norm=0.5)
    updates, _ = clipped.update({"w": jnp.ones(3)}, clipped.init(params), params)
    np.testing.assert_allclose(jnp.linalg.norm(updates["w"]), 0.5, rtol=1e-5)
    penalised = make_optimizer("sgd", 1.0, clip_norm=0.5, l2_penalty=0.25)
    updates, _ = penalised.update({"w": jnp.zeros(3)}, penalised.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.25)
    with pytest.raises(ValueError, match="Did you mean 'adam'"):
        make_optimizer("adan", 0.1)
    with pytest.raises(ValueError, match="does not take these options.*moment"):
        make_optimizer("adam", 0.1, moment=0.9)


def test_schedules():
    schedule = make_schedule("cosine", 0.1, total_steps=100, warmup_steps=10)
    assert float(schedule(0)) == 0.0
    np.testing.assert_allclose(schedule(10), 0.1, rtol=1e-5)
    np.testing.assert_allclose(schedule(100), 0.0, atol=1e-6)
    assert float(make_schedule("constant", 0.1, 100)(99)) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="Known: constant, cosine"):
        make_schedule("step", 0.1, 100)
    with pytest.raises(ValueError, match="warmup_steps"):
        make_schedule("constant", 0.1, 100, warmup_steps=100)


@pytest.mark.parametrize(
    ("steps", "log_every", "expected"),
    [(10, 0, [10]), (10, 10, [10]), (10, 25, [10]), (10, 4, [4, 4, 2]), (10, 5, [5, 5])],
)
def test_calls_cover_an_epoch(steps, log_every, expected):
    assert calls_per_epoch(steps, log_every) == expected


def test_an_epoch_shows_each_sample_once_in_an_order_of_the_seed_and_the_epoch():
    seen = []

    def spy(variables, batch, context, key):
        value, (stats, _) = loss(variables, batch, context, key)
        return value, (stats, {"index": batch["index"].astype(jnp.float32)})

    step = jax.jit(
        lambda state: train_steps(
            spy, OPTIMIZER, state, data(), lambda data: None, batch_size=10, num_steps=1
        )
    )
    for seed in (0, 1):
        state = init_state(MODEL, OPTIMIZER, jnp.uint32(seed))
        for _epoch in range(2):
            orders = []
            for _step in range(5):
                state, metrics = step(state)
                orders.extend(np.asarray(metrics["index"]).astype(int).tolist())
            assert sorted(orders) == list(range(NUM_SAMPLES))
            seen.append(tuple(orders))
    assert len(set(seen)) == 4


@pytest.mark.slow
def test_steps_in_one_call_equal_steps_in_many():
    @partial(jax.jit, static_argnums=1)
    def take(state, count):
        return train_steps(
            loss, OPTIMIZER, state, data(), lambda data: None, batch_size=8, num_steps=count
        )[0]

    start = init_state(MODEL, OPTIMIZER, jnp.uint32(3))
    many = start
    for _ in range(3):
        many = take(many, 2)
    chex.assert_trees_all_close(take(start, 6).variables, many.variables, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_full_batch_is_all_of_the_data_as_it_is_in_every_step():
    """Leaves of any shapes; the same steps as on one batch of everything, which is shuffled."""

    def calm(variables, batch, context, key):
        prediction, stats = MODEL.apply(variables, "__call__", batch["x"], train=True)
        return jnp.mean(jnp.square(prediction - batch["x"])), (stats, {})

    whole = {**data(), "other": jnp.ones((3, 1))}
    full = run([0, 1], batch_size=None, epochs=4, data=whole, loss=calm)
    shuffled = run([0, 1], batch_size=NUM_SAMPLES, epochs=4, loss=calm)
    assert full.step.tolist() == [4, 4]
    chex.assert_trees_all_close(full.variables, shuffled.variables, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_log_every_changes_nothing_but_the_number_of_calls():
    whole, parts = run([0, 1]), run([0, 1], log_every=4)
    chex.assert_trees_all_close(whole.variables, parts.variables, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["map", pytest.param("vmap", marks=pytest.mark.slow)])
def test_a_seed_among_many_equals_the_seed_alone(strategy):
    together = run([4, 7, 9], strategy=strategy)
    alone = run([7], strategy=strategy)
    second = jax.tree.map(lambda leaf: leaf[1:2], together.variables)
    chex.assert_trees_all_close(second, alone.variables, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_strategies_agree_and_seeds_differ():
    mapped, vmapped = run([0, 1], strategy="map"), run([0, 1], strategy="vmap")
    chex.assert_trees_all_close(mapped.variables, vmapped.variables, rtol=1e-4, atol=1e-5)
    kernel = mapped.variables.params["first"]["kernel"]
    assert jnp.abs(kernel[0] - kernel[1]).max() > 0.01


@pytest.mark.slow
def test_training_lowers_the_loss_and_moves_the_running_statistics():
    history = []
    state = run([0, 1], epochs=20, on_epoch=lambda epoch: history.append(epoch.metrics["loss"]))
    assert (history[-1] < 0.7 * history[0]).all()
    assert jnp.abs(state.variables.stats["norm"]["mean"]).max() > 0.01
    assert state.step.tolist() == [120, 120]


def test_a_plan_says_how_the_axis_is_run():
    plan = plan_seeds(5)
    assert plan.strategy == ("map" if jax.default_backend() == "cpu" else "vmap")
    assert plan.num_slots % plan.mesh.size == 0
    assert plan_seeds(3, "vmap").strategy == "vmap"
    with pytest.raises(ValueError, match="At least one seed is needed, got 0"):
        plan_seeds(0)
    with pytest.raises(ValueError, match="Known: auto, map, vmap"):
        plan_seeds(2, "pmap")


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_over_seeds_pads_to_the_devices_and_shares_the_rest(strategy):
    plan = plan_seeds(3, strategy)
    function = over_seeds(lambda x, y: x * 2 + y, plan)
    result = function(plan.pad(jnp.arange(3.0)), plan.share(jnp.float32(1)))
    assert result.shape == (plan.num_slots,)
    np.testing.assert_allclose(plan.unpad(result), [1, 3, 5])


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_update_seeds_changes_each_seed_by_itself_and_gives_what_it_says(strategy):
    def walk(state, step):
        key, noise = jax.random.split(state["key"])
        position = state["position"] + step * jax.random.normal(noise, (2,))
        return {"key": key, "position": position}, {"norm": jnp.linalg.norm(position)}

    plan = plan_seeds(3, strategy)
    start = jax.vmap(lambda seed: {"key": jax.random.key(seed), "position": jnp.ones(2) * seed})
    states = start(jnp.arange(3))
    alone = [walk({name: leaf[k] for name, leaf in states.items()}, 0.5) for k in range(3)]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    found = update_seeds(walk, plan)(plan.pad(states), plan.share(jnp.float32(0.5)))
    assert found[0]["position"].shape == (plan.num_slots, 2)
    found = plan.unpad(found)
    for state, _ in (expected, found):
        state["key"] = jax.random.key_data(state["key"])
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_update_seeds_has_memory_for_one_set_of_states():
    plan = plan_seeds(8, "map", jax.local_devices()[:1])
    states = jax.ShapeDtypeStruct((8, 1 << 20), jnp.float32, sharding=plan.per_seed)
    program = update_seeds(lambda x: (jnp.sort(x), x[0]), plan).lower(states).compile()
    memory = program.memory_analysis()
    one_state = 1 << 22  # bytes
    assert memory.alias_size_in_bytes >= 8 * one_state
    assert memory.temp_size_in_bytes <= 3 * one_state


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path, stop_after):
    whole = run([0, 1, 2], epochs=5, checkpoint_directory=tmp_path / "whole", checkpoint_every=2)

    def stop(epoch):
        if epoch.number == stop_after:
            raise Stop

    options = {"epochs": 5, "checkpoint_directory": tmp_path / "part", "checkpoint_every": 2}
    with pytest.raises(Stop):
        run([0, 1, 2], on_epoch=stop, **options)
    resumed, epochs = [], []
    part = run(
        [0, 1, 2],
        on_resume=resumed.append,
        on_epoch=lambda epoch: epochs.append(epoch.number),
        **options,
    )
    assert resumed == [stop_after // 2 * 2]
    assert epochs == list(range(resumed[0] + 1, 6))
    chex.assert_trees_all_equal(whole.variables, part.variables)
    # A third call finds everything done.
    epochs.clear()
    again = run([0, 1, 2], on_epoch=lambda epoch: epochs.append(epoch.number), **options)
    assert epochs == []
    chex.assert_trees_all_equal(whole.variables, again.variables)


@pytest.mark.slow
def test_a_seed_that_diverges_leaves_the_others_untouched():
    seeds = [0, 1, 2]
    first = jax.vmap(lambda s: init_state(MODEL, OPTIMIZER, s).variables.params["last"]["kernel"])(
        jnp.arange(3, dtype=jnp.uint32)
    )[:, 0, 0]
    worst = int(jnp.argmax(first))
    threshold = float(jnp.sort(first)[1] + jnp.sort(first)[2]) / 2

    def poisoned(variables, batch, context, key):
        value, aux = loss(variables, batch, context, key)
        return value + jnp.where(
            variables.params["last"]["kernel"][0, 0] > threshold, jnp.nan, 0.0
        ), aux

    history = []
    state = run(
        seeds, epochs=1, loss=poisoned, on_epoch=lambda e: history.append(e.metrics["loss"])
    )
    clean = run(seeds, epochs=1)
    assert np.isnan(history[0]).tolist() == [seed == worst for seed in seeds]
    good = jnp.array([seed for seed in seeds if seed != worst])
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[good], state.variables),
        jax.tree.map(lambda leaf: leaf[good], clean.variables),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip


def _judge(variables, x):
    """A score that goes up and down as training goes on, so that the last model is seldom the
    best one; the higher the better."""
    prediction, _ = MODEL.apply(variables, "__call__", x, train=False)
    return jnp.sin(100 * jnp.mean(jnp.square(prediction - x)))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["vmap", "map"])
def test_the_best_model_of_each_seed_is_kept(strategy):
    """Against all of the models, trained again for every number of epochs."""
    seeds, epochs, x = [0, 1, 2], 6, data()["x"][:20] + 0.1
    judged = []
    state = run(
        seeds, strategy=strategy, epochs=epochs, select=Selection(_judge, x),
        on_epoch=lambda epoch: judged.append(epoch.metrics["validation"]),
    )  # fmt: skip
    every = [run(seeds, strategy=strategy, epochs=k + 1) for k in range(epochs)]
    expected = np.array([jax.vmap(_judge, (0, None))(s.variables, x) for s in every])
    np.testing.assert_allclose(judged, expected, atol=1e-3)
    best = expected.argmax(axis=0)
    assert set(best) != {epochs - 1}, "the last one is the best everywhere: this tests nothing"
    for k, epoch in enumerate(best):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, k=k: leaf[k], state.variables),
            jax.tree.map(lambda leaf, k=k: leaf[k], every[epoch].variables),
            rtol=1e-6,
        )
    # Judging changes nothing in the training itself.
    chex.assert_trees_all_equal(state.optimizer, every[-1].optimizer)


@pytest.mark.slow
def test_an_interrupted_selection_ends_as_an_uninterrupted_one(tmp_path):
    select = Selection(_judge, data()["x"][:20] + 0.1)

    def train_into(folder, **options):
        return run(
            [0, 1, 2], epochs=6, select=select, checkpoint_every=2,
            checkpoint_directory=tmp_path / folder, **options,
        )  # fmt: skip

    def stop(epoch):
        if epoch.number == 5:
            raise Stop

    whole = train_into("whole")
    with pytest.raises(Stop):
        train_into("part", on_epoch=stop)
    resumed = []
    part = train_into("part", on_resume=resumed.append)
    assert resumed == [4]
    chex.assert_trees_all_equal(whole.variables, part.variables)
    # A third call finds everything done, and the best ones, not the last.
    chex.assert_trees_all_equal(whole.variables, train_into("part").variables)
    last = run([0, 1, 2], epochs=6)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(last.variables, whole.variables)


def test_a_model_without_a_score_is_kept_only_until_another_has_one():
    variables = MODEL.init(jax.random.key(0))
    best = selection.start(variables)
    kept = []
    for epoch, score in enumerate([jnp.nan, 1.0, jnp.nan, 1.0, 2.0, -jnp.inf], start=1):
        best, said = selection.update(lambda _, value: value, (variables, best), epoch, score)
        np.testing.assert_equal(np.asarray(said), np.float32(score))
        kept.append(int(best.epoch))
    assert kept == [1, 2, 2, 2, 5, 5]


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match=r"1 \.\. 50, the number of training samples, got 51"):
        run([0], batch_size=51)


@pytest.mark.slow
def test_any_optax_transformation_will_do():
    plan = plan_seeds(1)
    state = train(
        MODEL, loss, optax.sgd(0.1, momentum=0.9), plan.share(data()),
        seeds=[0], plan=plan, epochs=1, batch_size=10,
    )  # fmt: skip
    assert state.step.tolist() == [5]


def test_steps_do_not_cross_an_epoch():
    state = init_state(MODEL, OPTIMIZER, 0)
    for options, said in [
        ({"batch_size": 8, "num_steps": NUM_SAMPLES // 8 + 1}, "its order would be repeated"),
        ({"batch_size": NUM_SAMPLES + 1, "num_steps": 1}, "needs more than"),
    ]:
        with pytest.raises(ValueError, match=said):
            train_steps(loss, OPTIMIZER, state, data(), lambda _: None, **options)


def test_checkpoints_leave_the_callers_logs_alone(tmp_path):
    logger = logging.getLogger("absl")
    before = logger.level
    with Checkpoints(tmp_path) as saved:
        saved.save(1, {"x": jnp.ones(2)})
    assert logger.level == before
    assert saved.latest() == 1


@contextmanager
def compilations():
    """The names of the functions that are compiled inside."""
    names = []

    def listen(event, duration, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(about["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow
@pytest.mark.parametrize("with_selection", [False, True])
def test_a_program_that_was_compiled_ahead_is_not_compiled_again(with_selection):
    seeds, plan = [3, 4, 5], plan_seeds(3)
    shared = plan.share(data())
    select = None
    if with_selection:
        select = Selection(lambda variables, x: -jnp.sum(x), plan.share(jnp.ones(3)))
    options = {"batch_size": 8, "log_every": 4, "select": select}
    program = make_program(MODEL, loss, OPTIMIZER, shared, plan=plan, **options)
    assert set(program.steps) == {4, 2}
    compile_program(program, shared, seeds=seeds, plan=plan, select=select)

    with compilations() as compiled:
        state = run(seeds, program=program, **options)
    assert "jit(run)" not in compiled
    with compilations() as compiled:
        alone = run(seeds, **options)
    # The start, two numbers of steps and what judges them.
    assert compiled.count("jit(run)") == 3 + with_selection
    chex.assert_trees_all_equal(state.variables, alone.variables)


def test_a_program_of_other_arguments_is_refused():
    plan = plan_seeds(1)
    shared = plan.share(data())
    program = make_program(MODEL, loss, OPTIMIZER, shared, plan=plan, batch_size=8, log_every=4)
    select = Selection(lambda variables, x: -jnp.sum(x), plan.share(jnp.ones(3)))
    for options in ({"log_every": 3}, {"log_every": 4, "select": select}):
        with pytest.raises(ValueError, match="made for another batch_size, log_every or select"):
            run([0], program=program, **options)


def test_what_runs_ahead_is_waited_for_and_may_fail():
    go_on, order = threading.Event(), []

    def wait(is_wanted):
        assert go_on.wait(60)
        return is_wanted()

    def fail(is_wanted):
        raise ValueError("no such thing")

    with Ahead({"slow": wait, "bad": fail}) as values:
        assert values.take("other") is None
        with pytest.raises(ValueError, match="no such thing"):
            values.take("bad")
        threading.Timer(0.2, lambda: (order.append("set"), go_on.set())).start()
        assert values.take("slow")
        assert order == ["set"]


def test_leaving_calls_nothing_further_and_tells_those_at_work():
    started, go_on, seen = threading.Barrier(WORKERS + 1), threading.Event(), []

    def work(is_wanted):
        started.wait(60)
        assert go_on.wait(60)
        seen.append(is_wanted())

    with Ahead({f"{i}": work for i in range(WORKERS)} | {"late": lambda _: seen.append("late")}):
        started.wait(60)
    go_on.set()
    limit = time.monotonic() + 60
    while len(seen) < WORKERS and time.monotonic() < limit:
        time.sleep(0.01)
    assert seen == [False] * WORKERS


def test_saving_what_several_devices_hold_compiles_nothing(tmp_path, caplog):
    devices = jax.local_devices()
    assert len(devices) > 1
    everywhere = NamedSharding(Mesh(np.array(devices[:2]), ("seed",)), PartitionSpec())
    state = {str(i): np.arange(i, dtype=np.float32) for i in range(50, 56)}
    with jax.log_compiles(), Checkpoints(tmp_path / "saved") as saved:
        saved.save(1, jax.device_put(state, everywhere))
    assert "Compiling" not in caplog.text
    with Checkpoints(tmp_path / "saved") as saved:
        jax.tree.map(np.testing.assert_array_equal, saved.restore(1, state), state)
