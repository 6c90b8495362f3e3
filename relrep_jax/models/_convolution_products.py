"""The three products of a convolution, in the forms that are fast on each platform.

A convolution is the trilinear form

    T(x, kernel, g) = sum_{n,i,j,f} g[n,i,j,f] * convolve(x, kernel)[n,i,j,f]

and its three products are the gradients of `T` in one argument each:

- the output, from `x` and `kernel`;
- the gradient in `x`, from `g` and `kernel`: the stride-dilated `g` convolved with the spatially
  flipped, channel-transposed kernel;
- the gradient in `kernel`, from `x` and `g`: `x` with channels as its batch, convolved with `g`
  as a kernel whose input features are the batch, dilated by the stride.

*Ordinary* forms are the convolutions that automatic differentiation would make, which the compilers
of accelerators recognise. *Patches* lay what each position sees out as rows of a matrix, for many
kernels at once on NVIDIA GPUs. On CPU automatic differentiation's convolutions leave the compiler's
fast path inside `lax.scan` and `lax.map` (https://github.com/jax-ml/jax/issues/12868); there every
convolution is a forward one of NHWC images with an HWIO kernel, the *canonical* form. Faster still:

- the output in few features is one matrix product with all taps, whose parts are shifted and
  added;
- with strides, the gradient in `x` is no convolution over a dilated, mostly empty cotangent but,
  where the strides divide the kernel's size, a matrix product that gives whole blocks of `x`, and
  one convolution for each phase of the strides elsewhere;
- the gradient in `kernel` is a matrix product with the patches of `x` that each position sees.

Such matrix products go through groups of images that stay in the cache.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]

# Fewer channels than this leave most of a vector empty.
_FEW_CHANNELS = 8


class Geometry(NamedTuple):
    """The static sizes of a convolution; every pair is (height, width)."""

    size: Pair
    kernel: Pair
    strides: Pair
    padding: tuple[Pair, Pair]

    @property
    def output(self) -> Pair:
        return tuple(
            (n + low + high - k) // s + 1
            for n, k, s, (low, high) in zip(
                self.size, self.kernel, self.strides, self.padding, strict=True
            )
        )

    def input_gradient_padding(self) -> list[Pair]:
        """Padding of the stride-dilated cotangent: what makes the result as large as `size`."""
        return [
            (k - 1 - low, n + low - (out - 1) * s - 1)
            for n, out, k, s, (low, _) in zip(
                self.size, self.output, self.kernel, self.strides, self.padding, strict=True
            )
        ]

    def kernel_gradient_padding(self) -> list[Pair]:
        """The padding less the right-hand remainder that no window covers."""
        return [
            (low, (out - 1) * s + k - n - low)
            for n, out, k, s, (low, _) in zip(
                self.size, self.output, self.kernel, self.strides, self.padding, strict=True
            )
        ]


def _convolution(x, kernel, *, layout=("NHWC", "HWIO", "NHWC"), strides=(1, 1), **options):
    """`lax.conv_general_dilated` summed in at least float32, in the dtype of `x`."""
    result = lax.conv_general_dilated(
        x,
        kernel,
        strides,
        dimension_numbers=layout,
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
        **options,
    )
    return result.astype(x.dtype)


# The canonical forms move axes themselves and convolve forwards; the ordinary ones leave the axes
# in place and name them, as automatic differentiation does.


def ordinary_output(geometry, x, kernel):
    return _convolution(x, kernel, strides=geometry.strides, padding=geometry.padding)


def _shifted_output(geometry, x, kernel):
    """The output without strides: every tap's product with every position, then shifted and added.

    Position `i` of an axis is reached by tap `t` of position `i + t - low`.
    """
    (kh, kw), channels, features = geometry.kernel, *kernel.shape[2:]
    taps = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    products = _matrix_product(x, taps, ((3,), (0,)))
    zero = jnp.zeros((), products.dtype)

    def shifted(i, j):
        edges = [
            (low - tap, out - size - low + tap, 0)
            for tap, size, out, (low, _) in zip(
                (i, j), geometry.size, geometry.output, geometry.padding, strict=True
            )
        ]
        first = (i * kw + j) * features
        part = products[..., first : first + features]
        return lax.pad(part, zero, [(0, 0, 0), *edges, (0, 0, 0)])

    return sum(shifted(i, j) for i in range(kh) for j in range(kw)).astype(x.dtype)


def cpu_output(geometry, x, kernel):
    if geometry.strides == (1, 1) and kernel.shape[3] < min(_FEW_CHANNELS, kernel.shape[2]):
        return _shifted_output(geometry, x, kernel)
    return ordinary_output(geometry, x, kernel)


def _canonical_input_gradient(geometry, g, kernel):
    return _convolution(
        g,
        lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2),
        padding=geometry.input_gradient_padding(),
        lhs_dilation=geometry.strides,
    )


def _phases_input_gradient(geometry, g, kernel):
    """The gradient in `x`, a convolution for each phase of the strides.

    Position `y = r + s q` of an axis is reached by the taps `t` with `y + low - t = s i`, that is
    by every s-th one from `t_0 = (r + low) mod s`: an undilated convolution of `g` with them.
    """
    phases = [
        [_phase(*sizes, r) for r in range(sizes[2])]
        for sizes in zip(
            geometry.size,
            geometry.kernel,
            geometry.strides,
            (low for low, _ in geometry.padding),
            geometry.output,
            strict=True,
        )
    ]
    strides, channels = geometry.strides, kernel.shape[2]
    largest = [-(-n // s) for n, s in zip(geometry.size, strides, strict=True)]

    def piece(vertical, horizontal):
        taps = kernel[vertical.first_tap :: strides[0], horizontal.first_tap :: strides[1]]
        shape = (g.shape[0], vertical.length, horizontal.length, channels)
        if 0 in taps.shape or 0 in shape:
            result = jnp.zeros(shape, g.dtype)
        else:
            result = _convolution(
                g,
                lax.rev(taps, (0, 1)).transpose(0, 1, 3, 2),
                padding=[vertical.padding, horizontal.padding],
            )
        missing = [(0, n - m) for n, m in zip(largest, shape[1:3], strict=True)]
        return jnp.pad(result, [(0, 0), *missing, (0, 0)])

    rows = [jnp.stack([piece(v, h) for h in phases[1]], axis=3) for v in phases[0]]
    result = jnp.stack(rows, axis=2)
    result = result.reshape(g.shape[0], *(n * s for n, s in zip(largest, strides, strict=True)), -1)
    return result[:, : geometry.size[0], : geometry.size[1]]


class _Phase(NamedTuple):
    """One phase of the stride of an axis: its first tap, its length, the padding of `g`."""

    first_tap: int
    length: int
    padding: Pair


def _phase(size: int, kernel: int, stride: int, low: int, output: int, r: int) -> _Phase:
    first_tap = (r + low) % stride
    taps = len(range(first_tap, kernel, stride))
    length = len(range(r, size, stride))
    # The cotangent that the first tap meets at the first position.
    start = (r + low - first_tap) // stride
    return _Phase(first_tap, length, (taps - 1 - start, start + length - output))


# Entries of the larger factor or result of `_blocks_input_gradient` that stay in the cache
# (measured: from 2 ** 18 to 2 ** 20 are as fast).
_BLOCKS_IN_CACHE = 2**19


def _blocks_input_gradient(geometry, g, kernel):
    """The gradient in `x` where the strides divide the kernel's size: a matrix product.

    Cut into blocks of the strides' size, `x` gets from `g` at (i, j) the blocks (i + p, j + q) for
    p < kernel / strides, and q alike. Copies of `g`, each shifted by a column more, are multiplied
    with the taps; the parts of the result, each shifted by a row more, add up to rows of blocks.
    """
    (sh, sw), (_, ow) = geometry.strides, geometry.output
    down, right = (k // s for k, s in zip(geometry.kernel, geometry.strides, strict=True))
    channels, features = kernel.shape[2:]
    taps = kernel.reshape(down, sh, right, sw, channels, features)
    taps = taps.transpose(2, 5, 0, 1, 3, 4).reshape(right * features, -1)
    block, columns = sh * sw * channels, ow + right - 1
    (top, _), (left, _) = geometry.padding
    height, width = geometry.size

    def gradient(g):
        zero = jnp.zeros((), g.dtype)
        unmoved, wide = (0, 0, 0), [(q, right - 1 - q, 0) for q in range(right)]
        g = jnp.concatenate([lax.pad(g, zero, [unmoved, unmoved, e, unmoved]) for e in wide], -1)
        products = _matrix_product(g, taps, ((3,), (0,)))
        zero = zero.astype(products.dtype)
        blocks = sum(
            lax.pad(
                products[..., p * block : (p + 1) * block],
                zero,
                [unmoved, (p, down - 1 - p, 0), unmoved, unmoved],
            )
            for p in range(down)
        )
        blocks = blocks.reshape(*blocks.shape[:3], sh, sw, channels).transpose(0, 1, 3, 2, 4, 5)
        x = blocks.reshape(blocks.shape[0], -1, columns * sw, channels)
        # Positions beyond the last window get nothing.
        missing = (
            max(0, n - m) for n, m in zip((top + height, left + width), x.shape[1:3], strict=True)
        )
        x = jnp.pad(x, [(0, 0), *((0, n) for n in missing), (0, 0)])
        return x[:, top : top + height, left : left + width].astype(g.dtype)

    entries = g.shape[1] * columns * max(right * features, down * block)
    return _in_groups(gradient, g, max(1, _BLOCKS_IN_CACHE // entries))


def _in_groups(function, x, size):
    """`function` of about `size` rows of `x` at a time, whose result has as many rows."""
    n = x.shape[0]
    open_ended = not isinstance(n, int)  # in `jax.export`
    if open_ended or n <= size:
        return function(x)
    groups = -(-n // size)
    size = -(-n // groups)

    def step(group, out):
        # The last group overlaps the one before it instead of being padded.
        first = jnp.minimum(group * size, n - size)
        rows = function(lax.dynamic_slice_in_dim(x, first, size))
        return lax.dynamic_update_slice_in_dim(out, rows, first, 0)

    shape = jax.eval_shape(function, jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)).shape
    # Every element is overwritten. Made from the input, so that it is mapped and sharded as it is.
    out = jnp.broadcast_to(x[(0,) * x.ndim] * 0, (n, *shape[1:]))
    return lax.fori_loop(0, groups, step, out)


def cpu_input_gradient(geometry, g, kernel):
    # Few channels are not worth the shuffling of phases or blocks either (measured: 1; 32 are).
    if geometry.strides == (1, 1) or kernel.shape[2] < _FEW_CHANNELS:
        return _canonical_input_gradient(geometry, g, kernel)
    exact = all(k % s == 0 for k, s in zip(geometry.kernel, geometry.strides, strict=True))
    # Of the columns of blocks, the outermost get less than the rest and are computed like them.
    if exact and geometry.output[1] >= 7 * (geometry.kernel[1] // geometry.strides[1] - 1):
        return _blocks_input_gradient(geometry, g, kernel)
    return _phases_input_gradient(geometry, g, kernel)


def ordinary_input_gradient(geometry, g, kernel):
    return _convolution(
        g,
        lax.rev(kernel, (0, 1)),
        layout=("NHWC", "HWOI", "NHWC"),
        padding=geometry.input_gradient_padding(),
        lhs_dilation=geometry.strides,
    )


def _canonical_kernel_gradient(geometry, x, g):
    gradient = _convolution(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        padding=geometry.kernel_gradient_padding(),
        rhs_dilation=geometry.strides,
    )
    return gradient.transpose(1, 2, 0, 3)


def _seen_by_taps(geometry, x):
    """What each tap of the kernel meets of `x`, row after row of taps: `kh * kw` arrays
    `[n, oh, ow, c]`."""
    (kh, kw), (sh, sw), (oh, ow) = geometry.kernel, geometry.strides, geometry.output
    edges = [(0, 0, 0), *((*pair, 0) for pair in geometry.kernel_gradient_padding()), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    return [
        x[:, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]


def _matrix_product(a, b, axes):
    """`lax.dot_general` over pairs of axes, summed and returned in at least float32."""
    sum_type = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=sum_type)


def _patches(geometry, x, empty=0):
    """What each position of the output sees of `x`, and `empty` zeros:
    `[n, oh, ow, kh * kw * c + empty]`."""
    seen = _seen_by_taps(geometry, x)
    if empty:
        seen.append(jnp.zeros((*seen[0].shape[:-1], empty), x.dtype))
    return jnp.concatenate(seen, axis=-1)


# Entries of the patches that stay in the cache (measured: from 2 ** 15 to 2 ** 17 are as fast).
_PATCHES_IN_CACHE = 2**16
# With fewer positions the patches gain little, and take longer to compile.
_MANY_POSITIONS = 4096


def cpu_kernel_gradient(geometry, x, g):
    if g.size // g.shape[-1] < _MANY_POSITIONS:
        return _canonical_kernel_gradient(geometry, x, g)
    if geometry.strides == (1, 1) and g.shape[-1] < x.shape[-1]:
        # With the roles exchanged the patches are those of `g`, which has fewer channels.
        exchanged = Geometry(
            geometry.output, geometry.kernel, (1, 1), tuple(geometry.input_gradient_padding())
        )
        gradient = _patches_in_groups(exchanged, g, x)
        return lax.rev(gradient, (0, 1)).transpose(0, 1, 3, 2)
    return _patches_in_groups(geometry, x, g)


def _patches_in_groups(geometry, x, g):
    """The gradient in `kernel`, a matrix product for each group of images."""
    taps = math.prod(geometry.kernel) * x.shape[-1]
    narrow = taps <= g.shape[-1]
    # Rows of a power of two meet in few lines of the cache (measured: up to 1.6 times as long).
    empty = 16 if taps % 256 == 0 else 0

    def product(x, g):
        patches, rows = _patches(geometry, x, empty), g.reshape(-1, g.shape[-1])
        patches = patches.reshape(-1, taps + empty)
        # Measured: the narrower factor first is faster, by a quarter.
        return _matrix_product(*((patches, rows) if narrow else (rows, patches)), ((0,), (0,)))

    size = max(1, _PATCHES_IN_CACHE // (math.prod(geometry.output) * taps))
    groups = x.shape[0] // size
    if not groups:
        total = product(x, g)
    else:

        def add(group, total):
            # Slices of the whole arrays: what a scan is given would be copied for it.
            images = (lax.dynamic_slice_in_dim(a, group * size, size) for a in (x, g))
            return total + product(*images)

        total = lax.fori_loop(1, groups, add, product(x[:size], g[:size]))
        if groups * size < x.shape[0]:
            total = total + product(x[groups * size :], g[groups * size :])
    total = (total if narrow else total.T)[:taps]
    return total.reshape(*geometry.kernel, x.shape[-1], g.shape[-1]).astype(x.dtype)


def ordinary_kernel_gradient(geometry, x, g):
    return _convolution(
        x,
        g,
        layout=("CHWN", "IHWO", "HWNC"),
        padding=geometry.kernel_gradient_padding(),
        rhs_dilation=geometry.strides,
    )


# The same products with the patches of the images laid out as rows of a matrix.


def patches_output(geometry, x, kernel):
    taps = kernel.reshape(-1, kernel.shape[-1])
    return _matrix_product(_patches(geometry, x), taps, ((3,), (0,))).astype(x.dtype)


def patches_kernel_gradient(geometry, x, g):
    taps = _matrix_product(_patches(geometry, x), g, ((0, 1, 2), (0, 1, 2)))
    return taps.reshape(*geometry.kernel, x.shape[-1], g.shape[-1]).astype(x.dtype)


def patches_input_gradient(geometry, g, kernel):
    *window, channels, features = kernel.shape
    patches = _matrix_product(g, kernel.reshape(-1, features), ((3,), (1,)))
    patches = patches.reshape(*patches.shape[:3], *window, channels)
    zero = jnp.zeros((), patches.dtype)

    def back(i, j):
        """What goes back to `x` through one tap, at the places which it has seen."""
        edges = [
            (tap - low, n + low - tap - (out - 1) * s - 1, s - 1)
            for tap, n, out, s, (low, _) in zip(
                (i, j),
                geometry.size,
                geometry.output,
                geometry.strides,
                geometry.padding,
                strict=True,
            )
        ]
        return lax.pad(patches[:, :, :, i, j], zero, [(0, 0, 0), *edges, (0, 0, 0)])

    total = sum(back(i, j) for i in range(window[0]) for j in range(window[1]))
    return total.astype(g.dtype)
