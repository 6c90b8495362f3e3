"""One convolution and its transpose, fast in compiled loops and under many seeds.

An ordinary `lax.conv_general_dilated` is fast in a forward pass. On CPU the two products that
automatic differentiation makes from it leave the compiler's fast path inside `lax.scan` and
`lax.map`, and `jax.vmap` over one kernel a seed turns all three into grouped convolutions. Here
they are written out, in forms of their own for each platform (`_convolution_products`).

On CPU `vmap` runs the products one seed after another, which is faster than a grouped convolution.
On other platforms it batches them, save on NVIDIA GPUs, whose grouped convolutions are slow: many
kernels become one batched matrix product with patches, or, where these are too large, go one after
another. The gradient of each product is made of the other two, so that reverse mode works to any
order.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.custom_batching import custom_vmap

from relrep_jax.models import _convolution_products as products
from relrep_jax.models._convolution_products import Pair

Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


_MAX_PATCHES = 2**23
"""Entries of one kernel's patches, above which making them costs more than they save (on an H100
with 8 kernels: they were 2.1 times as fast as one kernel after another where all have up to 2 ** 22
entries, and slower in a network with some of 2 ** 25)."""


class _Forms(NamedTuple):
    """How a product of two arrays is computed.

    Attributes:
        cpu: on CPU, a function of the geometry and the two arrays.
        ordinary: elsewhere.
        patches: where many kernels meet on an NVIDIA GPU.
        sizes: the two arrays' shapes to the numbers of images and of their channels.
        rows: whether the first axis of the first array is carried over to the result, so that
            a batch of first arrays alone can be folded into it.
    """

    cpu: Callable
    ordinary: Callable
    patches: Callable
    sizes: Callable[[tuple[int, ...], tuple[int, ...]], Pair]
    rows: bool


def _batchable(forms: _Forms, geometry: products.Geometry) -> Callable:
    """A product of two arrays with a form and a batching rule for each platform."""
    on_cpu, ordinary, patches = (partial(form, geometry) for form in forms[:3])

    @custom_vmap
    def product(a, b):
        return lax.platform_dependent(a, b, cpu=on_cpu, default=ordinary)

    @product.def_vmap
    def batched_product(axis_size, batched, a, b):
        if forms.rows and batched == [True, False]:
            result = product(a.reshape(-1, *a.shape[2:]), b)
            return result.reshape(axis_size, -1, *result.shape[1:]), True

        def one_after_another(a, b):
            mapped = tuple(
                array for array, is_batched in zip((a, b), batched, strict=True) if is_batched
            )

            def step(arrays):
                arrays = iter(arrays)
                return product(
                    *(
                        next(arrays) if is_batched else array
                        for array, is_batched in zip((a, b), batched, strict=True)
                    )
                )

            return lax.map(step, mapped)

        def at_once(form):
            return jax.vmap(form, [0 if is_batched else None for is_batched in batched])

        shapes = (
            array.shape[int(is_batched) :]
            for array, is_batched in zip((a, b), batched, strict=True)
        )
        seen = math.prod((*forms.sizes(*shapes), *geometry.output, *geometry.kernel))
        result = lax.platform_dependent(
            a,
            b,
            cpu=one_after_another,
            cuda=at_once(patches) if seen <= _MAX_PATCHES else one_after_another,
            default=at_once(ordinary),
        )
        return result, True

    return product


_OUTPUT = _Forms(
    products.cpu_output,
    products.ordinary_output,
    products.patches_output,
    lambda x, kernel: (x[0], x[3]),
    rows=True,
)
_INPUT_GRADIENT = _Forms(
    products.cpu_input_gradient,
    products.ordinary_input_gradient,
    products.patches_input_gradient,
    lambda g, kernel: (g[0], kernel[2]),
    rows=True,
)
_KERNEL_GRADIENT = _Forms(
    products.cpu_kernel_gradient,
    products.ordinary_kernel_gradient,
    products.patches_kernel_gradient,
    lambda x, g: (x[0], x[3]),
    rows=False,
)


# Reverse mode. Each forward pass calls the differentiable function itself, not the bare
# product, so that a derivative of a derivative comes back to these rules.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _output(geometry, x, kernel):
    return _batchable(_OUTPUT, geometry)(x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _input_gradient(geometry, g, kernel):
    return _batchable(_INPUT_GRADIENT, geometry)(g, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(geometry, x, g):
    return _batchable(_KERNEL_GRADIENT, geometry)(x, g)


def _with_operands(product):
    def forward(geometry, a, b):
        return product(geometry, a, b), (a, b)

    return forward


def _output_backward(geometry, operands, g):
    x, kernel = operands
    return _input_gradient(geometry, g, kernel), _kernel_gradient(geometry, x, g)


def _input_gradient_backward(geometry, operands, x):
    g, kernel = operands
    return _output(geometry, x, kernel), _kernel_gradient(geometry, x, g)


def _kernel_gradient_backward(geometry, operands, kernel):
    x, g = operands
    return _input_gradient(geometry, g, kernel), _output(geometry, x, kernel)


_output.defvjp(_with_operands(_output), _output_backward)
_input_gradient.defvjp(_with_operands(_input_gradient), _input_gradient_backward)
_kernel_gradient.defvjp(_with_operands(_kernel_gradient), _kernel_gradient_backward)


def _pair(name: str, value: int | Sequence[int], least: int = 1) -> Pair:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= least for v in pair):
        raise ValueError(
            f"{name} must be a whole number of at least {least}, or a pair of them "
            f"(height, width), got {value!r}."
        )
    return pair


def _explicit_padding(padding: Padding) -> str | tuple[Pair, Pair]:
    """`padding` as ((top, bottom), (left, right)), or its name, "SAME" or "VALID"."""
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise ValueError(f"padding must be 'SAME', 'VALID' or numbers, got {padding!r}.")
        return padding.upper()
    sides = (padding, padding) if isinstance(padding, int) else tuple(padding)
    pairs = tuple((p, p) if isinstance(p, int) else tuple(p) for p in sides)
    if len(pairs) != 2 or not all(
        len(pair) == 2 and all(isinstance(p, int) and p >= 0 for p in pair) for pair in pairs
    ):
        raise ValueError(
            "padding must be 'SAME', 'VALID', a whole number, a pair (height, width) or "
            f"((top, bottom), (left, right)), none of them negative; got {padding!r}."
        )
    return pairs


def _geometry(size: Pair, kernel: Pair, strides: Pair, padding: Padding) -> products.Geometry:
    padding = _explicit_padding(padding)
    if isinstance(padding, str):
        padding = tuple(lax.padtype_to_pads(size, kernel, strides, padding))
    return products.Geometry(size, kernel, strides, padding)


def _check_operands(name: str, x: jax.Array, kernel: jax.Array, channels: str) -> None:
    if x.ndim != 4:
        raise ValueError(
            f"{name} must have shape [n, height, width, {channels}], got {tuple(x.shape)}. "
            "Add the missing axes, or map over leading axes with jax.vmap."
        )
    if kernel.ndim != 4:
        raise ValueError(f"kernel must have shape [kh, kw, c, f], got {tuple(kernel.shape)}.")
    axis = "cf".index(channels) + 2
    if x.shape[3] != kernel.shape[axis]:
        raise ValueError(
            f"{name} has {x.shape[3]} channels where the kernel [kh, kw, c, f] takes "
            f"{channels}={kernel.shape[axis]}: got {name} {tuple(x.shape)} and kernel "
            f"{tuple(kernel.shape)}."
        )
    if 0 in x.shape or 0 in kernel.shape:
        raise ValueError(
            f"{name} {tuple(x.shape)} or kernel {tuple(kernel.shape)} is empty: "
            "every axis must be at least 1."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be real floating-point numbers, got dtype {x.dtype}.")


def _varying_axes(x: jax.Array) -> frozenset:
    """The `shard_map` axes along which `x` differs between devices."""
    kind = jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)
    return getattr(kind, "vma", frozenset()) if manual is None else manual.varying


def _vary_alike(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both arrays marked as differing along the same `shard_map` axes.

    A custom derivative must return a cotangent that varies as its argument does. Marked here,
    outside it, the mark's own transpose adds the cotangents up over the devices.
    """
    axes_a, axes_b = _varying_axes(a), _varying_axes(b)
    if missing := tuple(sorted(axes_b - axes_a)):
        a = lax.pcast(a, missing, to="varying")
    if missing := tuple(sorted(axes_a - axes_b)):
        b = lax.pcast(b, missing, to="varying")
    return a, b


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: int | Sequence[int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
) -> jax.Array:
    """Convolution of images with a kernel (cross-correlation, as in every deep-learning library).

    `y[n, i, j, f] = sum_{a, b, c} x[n, i*s_h + a - top, j*s_w + b - left, c] * kernel[a, b, c, f]`

    It gives what `jax.lax.conv_general_dilated` gives for NHWC images and HWIO kernels, and stays
    fast on CPU inside `jax.lax.scan` and `jax.lax.map`, with its gradients. `jax.vmap` over
    kernels runs one after another on CPU (and on NVIDIA GPUs where images are many or large) and
    at once elsewhere; `jax.vmap` over `x` alone folds into `n`. Where seeds are sharded over CPU
    devices, put the `vmap` inside `jax.shard_map`: each device then goes through its own seeds
    only (outside it the seeds are gathered first, or refused where the mesh axis is explicit).
    Reverse mode works to any order; forward mode (`jax.jvp`, `jax.jacfwd`) does not, so take
    Hessian products as the gradient of a gradient.

    Args:
        x: images `[n, h, w, c]`, floating point.
        kernel: `[kh, kw, c, f]`; it is cast to the dtype of `x`.
        strides: steps between windows, one number or (height, width).
        padding: zeros around the image: a number, (height, width),
            ((top, bottom), (left, right)), `"SAME"` or `"VALID"`.

    Returns:
        `[n, h', w', f]` with `h' = floor((h + top + bottom - kh) / s_h) + 1`, in the dtype of
        `x`, summed in at least float32.

    Raises:
        ValueError: wrong ranks, channels that do not match, or a kernel larger than the padded
            image.

    Example:
        >>> import jax.numpy as jnp
        >>> convolve(jnp.ones((8, 28, 28, 1)), jnp.ones((3, 3, 1, 32)), 2, 1).shape
        (8, 14, 14, 32)
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    _check_operands("x", x, kernel, "c")
    size, window, strides = x.shape[1:3], kernel.shape[:2], _pair("strides", strides)
    geometry = _geometry(size, window, strides, padding)
    if min(geometry.output) < 1:
        raise ValueError(
            f"The output would be empty: x {tuple(x.shape)} with padding {padding} is smaller "
            f"than the kernel {tuple(kernel.shape)}. Use a smaller kernel or more padding."
        )
    return _output(geometry, *_vary_alike(x, kernel.astype(x.dtype)))


def convolve_transpose(
    x: jax.Array,
    kernel: jax.Array,
    strides: int | Sequence[int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    output_size: int | Sequence[int] | None = None,
) -> jax.Array:
    """Transposed convolution: the adjoint of `convolve` with the same kernel.

    `sum(convolve_transpose(x, kernel) * u) = sum(x * convolve(u, kernel))` for every `u`, with
    the same strides and padding on both sides. The kernel is laid out for that convolution, so
    its *last* axis meets the channels of `x` and its third axis gives those of the result: one
    kernel serves an encoder layer and its mirror, and `torch_weight.transpose(2, 3, 1, 0)` turns
    the weights of both PyTorch's `Conv2d` and its `ConvTranspose2d` into it.

    Fast in loops and under `jax.vmap` as `convolve` is, and differentiable as often.

    Args:
        x: images `[n, h', w', f]`, floating point.
        kernel: `[kh, kw, c, f]`; it is cast to the dtype of `x`.
        strides: those of the convolution that is transposed, one number or (height, width).
        padding: that of the convolution, in the forms that `convolve` takes.
        output_size: (height, width) of the result, or one number for both. A stride of `s` leaves
            `s` sizes to choose from: those that `convolve` takes to (h', w'). Left out, the
            smallest, `(h' - 1) * s_h - top - bottom + kh`, which is PyTorch's without output
            padding; `h' * s_h` for `"SAME"`.

    Returns:
        `[n, h, w, c]` with `(h, w) = output_size`, in the dtype of `x`, summed in at least
        float32.

    Raises:
        ValueError: wrong ranks, channels that do not match, an empty result, or an
            `output_size` that `convolve` would not take to (h', w').

    Example:
        >>> import jax.numpy as jnp
        >>> convolve_transpose(jnp.ones((8, 7, 7, 64)), jnp.ones((4, 4, 32, 64)), 2, 1).shape
        (8, 14, 14, 32)
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    _check_operands("x", x, kernel, "f")
    given, window, strides = x.shape[1:3], kernel.shape[:2], _pair("strides", strides)
    padding = _explicit_padding(padding)
    if output_size is not None:
        size = _pair("output_size", output_size)
    elif padding == "SAME":
        size = tuple(n * s for n, s in zip(given, strides, strict=True))
    else:
        margins = ((0, 0), (0, 0)) if padding == "VALID" else padding
        size = tuple(
            (n - 1) * s - low - high + k
            for n, s, k, (low, high) in zip(given, strides, window, margins, strict=True)
        )
    if min(size) < 1:
        raise ValueError(
            f"The output would be empty, of size {size}: x {tuple(x.shape)}, kernel "
            f"{tuple(kernel.shape)}, strides {strides}, padding {padding}. Use a larger kernel "
            "or less padding."
        )
    geometry = _geometry(size, window, strides, padding)
    if geometry.output != given:
        raise ValueError(
            f"No convolution takes output_size {size} to x {tuple(x.shape)}: with kernel "
            f"{tuple(kernel.shape)}, strides {strides} and padding {padding} it gives "
            f"{geometry.output}, not {given}."
        )
    return _input_gradient(geometry, *_vary_alike(x, kernel.astype(x.dtype)))


class Conv(nnx.Module):
    """Convolution layer, `convolve(x, kernel) + bias`, with the sizes of PyTorch's `Conv2d`.

    The result's height is `floor((h + 2 * padding - kh) / stride) + 1`, and so its width.

    Args:
        in_features: channels `c` of the images `[n, h, w, c]` that it takes.
        out_features: channels `f` of the images `[n, h', w', f]` that it gives.
        kernel_size: one number or (height, width).
        strides: one number or (height, width).
        padding: in the forms that `convolve` takes.
        use_bias: whether a bias is added.
        rngs: where the kernel `[kh, kw, c, f]` is drawn from: LeCun normal, of variance
            `1 / (kh * kw * c)`; the bias `[f]` starts at zero.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = Conv(1, 32, strides=2, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((8, 28, 28, 1))).shape
        (8, 14, 14, 32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        padding: Padding = 1,
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.in_features = in_features
        self.out_features = out_features
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        self.padding = _explicit_padding(padding)
        initialise = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(
            initialise(rngs.params(), (*self.kernel_size, in_features, out_features), jnp.float32)
        )
        self.bias = nnx.Param(jnp.zeros(out_features, jnp.float32)) if use_bias else nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[n, h, w, in_features]` to `[n, h', w', out_features]`, in the dtype of `x`."""
        y = convolve(x, self.kernel[...], self.strides, self.padding)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


class ConvTranspose(nnx.Module):
    """Transposed convolution layer with the sizes of PyTorch's `ConvTranspose2d`.

    `convolve_transpose(x, kernel) + bias`, whose height is
    `(h - 1) * stride - 2 * padding + kh`, and so its width. The kernel size decides where it
    lands: from 7 with a stride of 2 and a padding of 1, 3 gives 13 and 4 gives 14.

    Args:
        in_features: channels `f` of the images `[n, h, w, f]` that it takes.
        out_features: channels `c` of the images `[n, h', w', c]` that it gives.
        kernel_size: one number or (height, width).
        strides: one number or (height, width).
        padding: what is left off each side: a number, (height, width) or
            ((top, bottom), (left, right)), `"SAME"` (the result is `stride` times as large) or
            `"VALID"`.
        use_bias: whether a bias is added.
        rngs: where the kernel `[kh, kw, c, f]` is drawn from, laid out as
            `convolve_transpose` takes it: LeCun normal, of variance `1 / (kh * kw * f)`; the
            bias `[c]` starts at zero.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = ConvTranspose(64, 32, kernel_size=4, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((8, 7, 7, 64))).shape
        (8, 14, 14, 32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 2,
        padding: Padding = 1,
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.in_features = in_features
        self.out_features = out_features
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        self.padding = _explicit_padding(padding)
        # The kernel's last axis meets the input: it is the fan-in here.
        initialise = nnx.initializers.lecun_normal(in_axis=-1, out_axis=-2)
        self.kernel = nnx.Param(
            initialise(rngs.params(), (*self.kernel_size, out_features, in_features), jnp.float32)
        )
        self.bias = nnx.Param(jnp.zeros(out_features, jnp.float32)) if use_bias else nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[n, h, w, in_features]` to `[n, h', w', out_features]`, in the dtype of `x`."""
        y = convolve_transpose(x, self.kernel[...], self.strides, self.padding)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)
