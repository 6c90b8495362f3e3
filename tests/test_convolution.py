"""The convolution and its transpose against `lax`'s, in values, gradients and batching."""

import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

from relrep_jax.models import _convolution_products as products
from relrep_jax.models import convolution
from relrep_jax.models.convolution import Conv, ConvTranspose, convolve, convolve_transpose

pytestmark = pytest.mark.usefixtures("full_precision")

LAYOUT = ("NHWC", "HWIO", "NHWC")
# (height, width), kernel, strides, padding
GRID = {
    "plain": ((6, 6), (3, 3), (1, 1), ((0, 0), (0, 0))),
    "same_size": ((6, 5), (3, 3), (1, 1), ((1, 1), (1, 1))),
    "stride_2": ((8, 8), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "remainder": ((8, 9), (3, 2), (3, 4), ((0, 0), (0, 0))),
    "tiny": ((2, 2), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "pointwise": ((5, 4), (1, 1), (1, 1), ((0, 0), (0, 0))),
    "pointwise_stride": ((5, 4), (1, 1), (2, 3), ((0, 0), (0, 0))),
    "pointwise_padded": ((5, 4), (1, 1), (2, 2), ((1, 2), (2, 1))),
    "even": ((7, 6), (4, 4), (2, 2), ((1, 1), (1, 1))),
    "uneven": ((7, 10), (2, 5), (3, 1), ((0, 2), (3, 1))),
    "unused_padding": ((4, 4), (2, 2), (3, 3), ((0, 1), (0, 1))),
    "whole": ((4, 3), (4, 3), (1, 1), ((0, 0), (0, 0))),
    "SAME": ((7, 8), (4, 3), (2, 2), "SAME"),
    "VALID": ((7, 8), (4, 3), (2, 2), "VALID"),
}
CASES = [(name, *case) for name, case in GRID.items()]


def plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def normal(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def operands(size, window, n=3, c=2, f=4, lead=()):
    return normal(0, *lead, n, *size, c), normal(1, *lead, *window, c, f)


def close(a, b, tolerance=2e-5):
    chex.assert_trees_all_close(a, b, rtol=tolerance, atol=tolerance)


class AgainstLax(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*CASES)
    def test_values_and_gradients(self, size, window, strides, padding):
        x, kernel = operands(size, window)

        def both(convolution, x, kernel, g):
            y, pullback = jax.vjp(lambda x, k: convolution(x, k, strides, padding), x, kernel)
            return y, pullback(g)

        g = normal(2, *plain(x, kernel, strides, padding).shape)
        close(
            self.variant(lambda *a: both(convolve, *a))(x, kernel, g),
            jax.jit(lambda *a: both(plain, *a))(x, kernel, g),
        )

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*CASES)
    def test_transpose_is_the_adjoint(self, size, window, strides, padding):
        u, kernel = operands(size, window)
        x = normal(2, *plain(u, kernel, strides, padding).shape)
        adjoint = jax.linear_transpose(lambda u: plain(u, kernel, strides, padding), u)
        y = self.variant(lambda x, k: convolve_transpose(x, k, strides, padding, size))(x, kernel)
        close(y, adjoint(x)[0])

    @chex.variants(with_jit=True, without_jit=True)
    def test_same_kernel_layout_as_lax_conv_transpose(self):
        x, kernel = normal(0, 2, 4, 5, 3), normal(1, 4, 4, 6, 3)
        for padding in ("SAME", "VALID"):
            y = self.variant(lambda x, k, p=padding: convolve_transpose(x, k, 2, p))(x, kernel)
            close(y, lax.conv_transpose(x, kernel, (2, 2), padding, transpose_kernel=True))


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
)
def test_any_geometry(size, window, strides, padding):
    x, kernel = operands(size, window, n=2, c=1, f=2)
    fits = all(n + sum(p) >= k for n, k, p in zip(size, window, padding, strict=True))
    if not fits:
        with pytest.raises(ValueError, match="empty"):
            convolve(x, kernel, strides, padding)
        return
    y, pullback = jax.vjp(lambda x, k: convolve(x, k, strides, padding), x, kernel)
    expected, expected_pullback = jax.vjp(lambda x, k: plain(x, k, strides, padding), x, kernel)
    close(y, expected)
    close(pullback(y), expected_pullback(y))
    close(convolve_transpose(y, kernel, strides, padding, size), pullback(y)[0])


SEEDED = {"both": (0, 0), "x_only": (0, None), "kernel_only": (None, 0)}


@pytest.mark.parametrize("axes", SEEDED.values(), ids=SEEDED)
@pytest.mark.parametrize("transpose", [False, True])
def test_vmap_over_seeds_matches_a_loop(axes, transpose):
    seeds, (size, window) = 3, ((5, 4), (3, 2))

    def loss(x, kernel):
        if transpose:
            y = convolve_transpose(x, jnp.swapaxes(kernel, 2, 3), 2, 1)
        else:
            y = convolve(x, kernel, 2, 1)
        return jnp.sum(jnp.sin(y)), y

    x, kernel = operands(size, window, lead=(seeds,))
    x, kernel = (a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True))
    seeded = jax.jit(jax.vmap(jax.grad(loss, (0, 1), has_aux=True), axes))(x, kernel)
    single = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    for seed in range(seeds):
        chosen = (a if axis is None else a[seed] for a, axis in zip((x, kernel), axes, strict=True))
        close(jax.tree.map(lambda leaf, seed=seed: leaf[seed], seeded), single(*chosen))


@pytest.mark.slow
def test_gradient_through_vmap_sums_over_a_shared_argument():
    x, kernel = operands((5, 5), (3, 3), lead=(4,))

    def loss(convolution, x, kernel, axes):
        one = lambda x, k: convolution(x, k, (2, 2), ((1, 1), (1, 1)))  # noqa: E731
        return jnp.sum(jax.vmap(one, axes)(x, kernel) ** 2)

    for axes, args in (((0, None), (x, kernel[0])), ((None, 0), (x[0], kernel))):
        got, expected = (
            jax.jit(jax.grad(lambda x, k, c=c, axes=axes: loss(c, x, k, axes), (0, 1)))(*args)
            for c in (convolve, plain)
        )
        close(got, expected, 1e-4)


@pytest.mark.slow
def test_nested_vmap():
    x, kernel = normal(0, 2, 3, 4, 5, 5, 2), normal(1, 2, 3, 3, 2, 3)

    def nested(convolution):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(convolution(x, kernel, (2, 2), ((1, 1), (1, 1)))))

        gradient = jax.grad(loss, (0, 1))
        return jax.jit(jax.vmap(jax.vmap(gradient, (0, None)), (0, 0)))(x, kernel)

    close(nested(convolve), nested(plain))
    # The inner axis batches the kernel, the outer one the images.
    crossed = lambda c: jax.vmap(  # noqa: E731
        jax.vmap(lambda x, k: c(x, k, (1, 1), ((0, 0), (0, 0))), (None, 0)), (0, None)
    )
    close(jax.jit(crossed(convolve))(x[0], kernel), jax.jit(crossed(plain))(x[0], kernel))


def test_descent_inside_map_of_scan():
    x, kernels = operands((6, 6), (3, 3), lead=(2,))

    def train(convolution, x, kernel):
        def loss(kernel):
            y = jax.nn.relu(convolution(x, kernel, (2, 2), ((1, 1), (1, 1))))
            return jnp.mean((y - 1.0) ** 2)

        def step(kernel, _):
            value, gradient = jax.value_and_grad(loss)(kernel)
            return kernel - 0.1 * gradient, value

        return lax.scan(step, kernel, length=5)

    mapped = jax.jit(lambda x, k: lax.map(lambda a: train(convolve, *a), (x, k)))(x, kernels)
    batched = jax.jit(jax.vmap(lambda x, k: train(convolve, x, k)))(x, kernels)
    expected = jax.jit(jax.vmap(lambda x, k: train(plain, x, k)))(x, kernels)
    close(mapped, expected)
    close(batched, expected)


@pytest.mark.slow
@pytest.mark.parametrize("transpose", [False, True])
def test_second_order_reverse_mode(transpose):
    u, kernel = operands((5, 6), (3, 2), n=2)
    strides, padding = (2, 2), ((1, 1), (1, 0))
    x = plain(u, kernel, strides, padding) if transpose else u

    def product(convolution, x, kernel):
        if not transpose:
            return convolution(x, kernel, strides, padding)
        if convolution is convolve:
            return convolve_transpose(x, kernel, strides, padding, u.shape[1:3])
        return jax.linear_transpose(lambda v: plain(v, kernel, strides, padding), u)(x)[0]

    def penalty(convolution, x, kernel):
        loss = lambda x, k: jnp.sum(jnp.sin(product(convolution, x, k)))  # noqa: E731
        gx, gk = jax.grad(loss, (0, 1))(x, kernel)
        return jnp.sum(gx**2) + jnp.sum(gk**3) / 10

    def second(convolution):
        return jax.jit(jax.grad(lambda *a: penalty(convolution, *a), (0, 1)))(x, kernel)

    close(second(convolve), second(plain), 2e-4)


def test_third_order_reverse_mode_of_a_cubic_is_exact():
    # d/dx three times over (x * k)^3 at one pixel is 6 k^3.
    def cube(x):
        return convolve(x.reshape(1, 1, 1, 1), jnp.full((1, 1, 1, 1), 2.0)).sum() ** 3

    assert jax.grad(jax.grad(jax.grad(cube)))(jnp.asarray(0.7)) == pytest.approx(48.0)


def test_forward_mode_is_refused():
    x, kernel = operands((4, 4), (3, 3))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: convolve(x, kernel), (x,), (x,))


@pytest.mark.slow
@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize(
    ("size", "window", "stride", "channels"),
    [(8, 3, 1, (512, 2)), (16, 4, 2, (8, 512))],  # 4608 products a sum, and 2048
    ids=["plain", "blocks"],
)
def test_bfloat16_is_summed_in_float32(lead, size, window, stride, channels):
    # Summed in bfloat16 they would be off by several per cent.
    x = jnp.abs(normal(0, *lead, 2, size, size, channels[0])).astype(jnp.bfloat16)
    kernel = jnp.abs(normal(1, *lead, window, window, *channels)).astype(jnp.bfloat16)
    strides, padding = (stride, stride), ((1, 1), (1, 1))

    def all_three(convolution, x, kernel, g):
        y, pullback = jax.vjp(lambda x, k: convolution(x, k, strides, padding), x, kernel)
        return y, *pullback(g)

    g = jnp.ones((*lead, 2, 8, 8, channels[1]), jnp.bfloat16)
    run = lambda c: jax.vmap(lambda *a: all_three(c, *a)) if lead else lambda *a: all_three(c, *a)  # noqa: E731
    got = jax.jit(run(convolve))(x, kernel, g)
    expected = jax.jit(run(plain))(*(a.astype(jnp.float32) for a in (x, kernel, g)))
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        chex.assert_trees_all_close(a.astype(jnp.float32), b, rtol=2**-8, atol=0)


def test_kernel_is_cast_to_the_dtype_of_x_and_its_gradient_back():
    x, kernel = operands((4, 4), (3, 3))
    x = x.astype(jnp.bfloat16)
    y = convolve(x, kernel)
    assert y.dtype == jnp.bfloat16
    assert jax.grad(lambda k: convolve(x, k).sum().astype(jnp.float32))(kernel).dtype == jnp.float32


def test_shard_map_over_seeds_and_over_images():
    mesh = jax.make_mesh((1,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    x, kernel = operands((5, 5), (3, 3), lead=(2,))

    def gradients(convolution, x, kernel):
        def loss(x, kernel):
            y = convolution(x, kernel, (2, 2), ((1, 1), (1, 1)))
            return jnp.sum(jnp.sin(y))

        return jax.grad(loss, (0, 1))(x, kernel)

    one = lambda x, k: gradients(convolve, x, k)  # noqa: E731
    for sweep in (jax.vmap(one), lambda x, k: lax.map(lambda a: one(*a), (x, k))):
        seeded = jax.shard_map(
            sweep, mesh=mesh, in_specs=P("device"), out_specs=P("device"), check_vma=True
        )
        close(
            jax.jit(seeded)(x, kernel),
            jax.jit(jax.vmap(lambda x, k: gradients(plain, x, k)))(x, kernel),
        )
    # A replicated kernel: its gradient is summed over the devices.
    shared = jax.shard_map(
        one, mesh=mesh, in_specs=(P("device"), P()), out_specs=(P("device"), P()), check_vma=True
    )
    close(jax.jit(shared)(x[0], kernel[0]), gradients(plain, x[0], kernel[0]))


@pytest.mark.parametrize("rows", [1, 5])
def test_blocks_in_groups_of_images(rows, monkeypatch):
    """A transposed convolution with kernels of 4, and its gradients, group after group."""
    monkeypatch.setattr(products, "_BLOCKS_IN_CACHE", 2 * 7 * 8 * 64)  # two images
    x, kernel = normal(0, 2, rows, 7, 7, 4), normal(1, 4, 4, 8, 4)
    mesh = jax.make_mesh((1,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))

    def gradients(product, x):
        return jax.value_and_grad(lambda x, k: jnp.sum(jnp.sin(product(x, k))), (0, 1))(x, kernel)

    adjoint = jax.linear_transpose(
        lambda u: plain(u, kernel, (2, 2), ((1, 1), (1, 1))), jnp.ones((rows, 14, 14, 8))
    )
    for mapped in (
        jax.jit(jax.vmap(lambda x: convolve_transpose(x, kernel, 2, 1))),
        jax.jit(
            jax.shard_map(
                lambda x: lax.map(lambda x: convolve_transpose(x, kernel, 2, 1), x),
                mesh=mesh, in_specs=P("device"), out_specs=P("device"), check_vma=True,
            )
        ),
    ):  # fmt: skip
        close(mapped(x), jnp.stack([adjoint(one)[0] for one in x]))

    def dilated(x, k):
        flipped = lax.rev(k, (0, 1)).transpose(0, 1, 3, 2)
        return lax.conv_general_dilated(
            x, flipped, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=LAYOUT
        )

    ours = jax.jit(lambda x: gradients(lambda x, k: convolve_transpose(x, k, 2, 1), x))(x[0])
    close(ours, jax.jit(lambda x: gradients(dilated, x))(x[0]), 1e-4)


TWO_DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from relrep_jax.models.convolution import convolve

mesh = jax.make_mesh((2,), ("device",), axis_types=(AxisType.Auto,))
x = jax.random.normal(jax.random.key(0), (4, 6, 5, 5, 2))
kernel = jax.random.normal(jax.random.key(1), (4, 3, 3, 2, 3))

def gradients(x, kernel):
    return jax.grad(lambda x, k: jnp.sum(jnp.sin(convolve(x, k, 2, 1))), (0, 1))(x, kernel)

def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), a, b)

def sharded(f, *specs):
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=specs))

# Seeds over devices; images over devices with one kernel; kernels over devices with one batch.
every_seed = jax.vmap(gradients)
close(sharded(every_seed, P("device"), P("device"))(x, kernel), every_seed(x, kernel))
close(sharded(gradients, P("device"), P())(x[0], kernel[0]), gradients(x[0], kernel[0]))
in_turn = lambda x, k: jax.tree.map(lambda *g: sum(g), *[gradients(x, k[i]) for i in range(4)])[0]
on_each = lambda x, k: jax.grad(
    lambda x, k: jnp.sum(jnp.sin(jax.vmap(lambda k: convolve(x, k, 2, 1))(k))), (0, 1)
)(x, k)
close(sharded(on_each, P(), P("device"))(x[0], kernel)[0], in_turn(x[0], kernel))
print("agree")
"""


@pytest.mark.slow
def test_two_devices_agree_with_one():
    result = subprocess.run([sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True)
    assert "agree" in result.stdout, result.stderr


def lowered(platform, *, lead, kernel_lead):
    x, kernel = operands((8, 8), (3, 3), n=5, lead=lead)
    kernel = kernel if kernel_lead else kernel[0]

    def gradient(x, kernel):
        return jax.grad(lambda x, k: jnp.sum(convolve(x, k, 2, 1) ** 2), (0, 1))(x, kernel)

    seeded = jax.jit(jax.vmap(gradient, (0, 0 if kernel_lead else None)))
    return seeded.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()


def test_tpus_get_grouped_convolutions():
    text = lowered("tpu", lead=(7,), kernel_lead=True)
    assert "stablehlo.while" not in text
    assert text.count("stablehlo.convolution") == 3
    assert "feature_group_count = 7" in text or "batch_group_count = 7" in text


def test_nvidia_gpus_get_products_with_patches():
    text = lowered("cuda", lead=(7,), kernel_lead=True)
    assert "stablehlo.while" not in text
    assert "stablehlo.convolution" not in text
    assert text.count("batching_dims = [0] x [0]") == 3


def test_nvidia_gpus_go_through_many_images_one_kernel_after_another():
    assert convolution._MAX_PATCHES < 2 * 9 * 16 * 30_000
    shapes = jax.eval_shape(lambda: operands((8, 8), (3, 3), n=30_000, lead=(2,)))
    seeded = jax.jit(jax.vmap(lambda x, kernel: convolve(x, kernel, 2, 1)))
    text = seeded.trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.while") == text.count("stablehlo.convolution") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", GRID)
def test_products_with_patches_are_those_of_the_convolution(name):
    size, window, strides, padding = GRID[name]
    x, kernel = operands(size, window)
    y, pullback = jax.vjp(lambda x, k: plain(x, k, strides, padding), x, kernel)
    g = normal(2, *y.shape)
    close(by_patches(x, kernel, g, strides, padding), (y, *pullback(g)))


def by_patches(x, kernel, g, strides, padding):
    geometry = convolution._geometry(x.shape[1:3], kernel.shape[:2], strides, padding)
    return (
        products.patches_output(geometry, x, kernel),
        products.patches_input_gradient(geometry, g, kernel),
        products.patches_kernel_gradient(geometry, x, g),
    )


@pytest.mark.slow
def test_products_with_patches_of_bfloat16_are_summed_in_float32():
    x = jnp.abs(normal(0, 2, 8, 8, 512)).astype(jnp.bfloat16)
    kernel = jnp.abs(normal(1, 3, 3, 512, 2)).astype(jnp.bfloat16)
    g = jnp.ones((2, 8, 8, 2), jnp.bfloat16)
    padding = ((1, 1), (1, 1))
    exact = [a.astype(jnp.float32) for a in (x, kernel, g)]
    y, pullback = jax.vjp(lambda x, k: plain(x, k, (1, 1), padding), *exact[:2])
    for found, expected in zip(
        by_patches(x, kernel, g, (1, 1), padding), (y, *pullback(exact[2])), strict=True
    ):
        assert found.dtype == jnp.bfloat16
        chex.assert_trees_all_close(found.astype(jnp.float32), expected, rtol=2**-8, atol=0)


def test_cpu_gets_loops_of_plain_convolutions():
    text = lowered("cpu", lead=(7,), kernel_lead=True)
    assert text.count("stablehlo.while") == 3
    assert text.count("stablehlo.convolution") == 3
    assert "feature_group_count = 7" not in text
    assert "batch_group_count = 7" not in text


def test_cpu_convolutions_are_canonical():
    x, kernel = operands((8, 8), (3, 3))
    gradient = jax.grad(lambda x, k: jnp.sum(convolve(x, k, 2, 1) ** 2), (0, 1))
    text = jax.jit(gradient).trace(x, kernel).lower(lowering_platforms=("cpu",)).as_text()
    forward = "dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
    assert text.count("stablehlo.convolution") == text.count(forward) == 3


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_images_alone_fold_into_the_batch(platform):
    x, kernel = operands((8, 8), (3, 3), n=5, lead=(7,))
    forward = jax.jit(jax.vmap(lambda x: convolve(x, kernel[0], 2, 1)))
    text = forward.trace(x).lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.while" not in text
    assert "tensor<35x8x8x2xf32>" in text


@pytest.mark.slow
@pytest.mark.parametrize("size", [(7, 7), (8, 5), (2, 2)])
@pytest.mark.parametrize("kernel_size, strides, padding", [(3, 1, 1), (4, 2, 1), ((3, 5), 2, 2)])
def test_module_sizes_are_those_of_pytorch(size, kernel_size, strides, padding):
    window = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * 2
    options = {"kernel_size": kernel_size, "strides": strides, "padding": padding}
    x = jnp.ones((2, *size, 3))
    down = Conv(3, 5, rngs=nnx.Rngs(0), **options)(x)
    up = ConvTranspose(3, 5, rngs=nnx.Rngs(0), **options)(x)
    outs = [(n + 2 * padding - k) // strides + 1 for n, k in zip(size, window, strict=True)]
    ups = [(n - 1) * strides - 2 * padding + k for n, k in zip(size, window, strict=True)]
    assert down.shape == (2, *outs, 5)
    assert up.shape == (2, *ups, 5)


def test_output_size_may_be_chosen_among_those_of_the_stride():
    x, kernel = normal(0, 1, 4, 4, 2), normal(1, 3, 3, 5, 2)
    assert convolve_transpose(x, kernel, 2, 1).shape == (1, 7, 7, 5)
    assert convolve_transpose(x, kernel, 2, 1, (7, 8)).shape == (1, 7, 8, 5)
    with pytest.raises(ValueError, match=r"output_size \(9, 9\)"):
        convolve_transpose(x, kernel, 2, 1, 9)


@pytest.mark.slow
@pytest.mark.parametrize("module", [Conv, ConvTranspose])
def test_modules_are_built_once_and_applied_as_pure_functions(module):
    x = normal(0, 4, 6, 6, 3)

    def initialise(key):
        return nnx.state(module(3, 5, rngs=nnx.Rngs(params=key)))

    layer = module(3, 5, rngs=nnx.Rngs(0))
    graph, _ = nnx.split(layer)
    states = jax.vmap(initialise)(jax.random.split(jax.random.key(0), 3))

    def loss(state, x):
        return jnp.sum(nnx.merge(graph, state)(x) ** 2)

    gradients = jax.jit(jax.vmap(jax.grad(loss), (0, None)))(states, x)
    chex.assert_trees_all_equal_shapes(gradients, states)
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradients))
    assert layer.bias[...].shape == (5,)
    assert not jnp.any(layer.bias[...])
    bare = module(3, 5, use_bias=False, rngs=nnx.Rngs(0))
    assert bare.bias is None
    close(bare(x), layer(x))
    assert layer(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("module, in_axis", [(Conv, 2), (ConvTranspose, 3)])
def test_kernels_start_with_the_variance_of_their_fan_in(module, in_axis):
    kernel = module(64, 16, rngs=nnx.Rngs(0)).kernel[...]
    assert kernel.shape[in_axis] == 64
    assert float(jnp.var(kernel)) == pytest.approx(1 / (9 * 64), rel=0.1)


BAD = {
    "rank": (lambda: convolve(jnp.ones((4, 4, 1)), jnp.ones((3, 3, 1, 2))), r"\(4, 4, 1\)"),
    "kernel rank": (lambda: convolve(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1))), r"\(3, 3, 1\)"),
    "channels": (
        lambda: convolve(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 1, 2))),
        r"\(1, 4, 4, 3\) and kernel \(3, 3, 1, 2\)",
    ),
    "transposed channels": (
        lambda: convolve_transpose(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2))),
        r"\(1, 4, 4, 1\) and kernel \(3, 3, 1, 2\)",
    ),
    "too small": (
        lambda: convolve(jnp.ones((1, 2, 4, 1)), jnp.ones((3, 3, 1, 2))),
        r"empty: x \(1, 2, 4, 1\)",
    ),
    "transposed too small": (
        lambda: convolve_transpose(jnp.ones((1, 1, 4, 2)), jnp.ones((2, 2, 1, 2)), 1, 1),
        r"size \(0, 3\): x \(1, 1, 4, 2\)",
    ),
    "no images": (lambda: convolve(jnp.ones((0, 4, 4, 1)), jnp.ones((3, 3, 1, 2))), "empty"),
    "integers": (lambda: convolve(jnp.ones((1, 4, 4, 1), int), jnp.ones((3, 3, 1, 2))), "int32"),
    "stride": (lambda: convolve(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), 0), "strides"),
    "padding": (
        lambda: convolve(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), 1, -1),
        "padding",
    ),
    "padding name": (lambda: Conv(1, 2, padding="CIRCULAR", rngs=nnx.Rngs(0)), "'CIRCULAR'"),
    "kernel size": (lambda: Conv(1, 2, kernel_size=(3, 3, 3), rngs=nnx.Rngs(0)), "kernel_size"),
}


@pytest.mark.parametrize("call, message", BAD.values(), ids=BAD)
def test_errors_show_what_was_given(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "size", "kernel", "strides", "padding", "channels"),
    [
        (20, (15, 16), (3, 3), (2, 2), ((1, 1), (1, 1)), (9, 8)),
        (17, (16, 17), (4, 4), (2, 2), ((1, 1), (1, 1)), (9, 8)),
        (16, (21, 20), (3, 5), (3, 2), ((0, 2), (2, 1)), (9, 8)),
        (16, (33, 33), (1, 1), (2, 2), ((0, 0), (0, 0)), (9, 8)),
        (18, (40, 40), (2, 1), (3, 3), ((0, 0), (1, 0)), (9, 8)),
        (19, (16, 16), (3, 3), (1, 1), ((1, 1), (1, 1)), (9, 8)),
        (17, (17, 16), (4, 3), (1, 1), ((2, 0), (1, 1)), (9, 2)),
        (21, (30, 31), (3, 3), (2, 2), ((1, 1), (1, 0)), (1, 32)),
        (5, (70, 70), (3, 3), (2, 1), ((1, 1), (1, 1)), (12, 8)),
        (150, (16, 17), (4, 4), (2, 2), ((1, 1), (1, 1)), (9, 8)),
        (6, (25, 31), (6, 2), (3, 2), ((0, 2), (3, 1)), (8, 4)),
        (6, (17, 19), (2, 2), (2, 2), ((0, 1), (1, 0)), (8, 4)),
        (3, (14, 15), (4, 6), (1, 3), ((5, 4), (7, 9)), (8, 4)),
        (70, (16, 16), (4, 4), (2, 2), ((1, 1), (1, 1)), (16, 8)),
        (70, (16, 16), (4, 4), (2, 2), ((1, 1), (1, 1)), (16, 256)),
        (4, (9, 8), (4, 3), (1, 1), ((5, 0), (0, 4)), (8, 7)),
    ],
    ids=str,
)
def test_many_positions_and_channels(rows, size, kernel, strides, padding, channels):
    """The forms that CPUs take for large products: phases, blocks, and patches in groups."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(rows, *size, channels[0])), jnp.float32)
    k = jnp.asarray(rng.normal(size=(*kernel, *channels)), jnp.float32)

    def plain(x, k):
        return lax.conv_general_dilated(
            x, k, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def ours(x, k):
        return convolve(x, k, strides, padding)

    expected, pull_back = jax.vjp(plain, x, k)
    g = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    result, ours_pull_back = jax.vjp(ours, x, k)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    for ours_gradient, gradient in zip(ours_pull_back(g), pull_back(g), strict=True):
        np.testing.assert_allclose(ours_gradient, gradient, rtol=1e-4, atol=2e-3)
