"""What an encoder is, and encoding samples with one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

KINDS = ("text", "images")


class EncoderError(ValueError):
    """A model cannot be loaded or used as asked; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A function from samples to latents, and what it is determined by.

    Attributes:
        name: what to call it in tables and files.
        function: a batch of `b` samples to real numbers `[b, d]`. Texts come as a list of `str`;
            images as an array `[b, h, w, c]`, or a list of arrays `[h, w, c]` of any sizes.
        settings: all that its latents depend on besides the samples, in what JSON can hold: a
            store of latents goes on only with an encoder of the same settings.
        kind: `"text"` or `"images"`, or None where the function takes anything.
    """

    name: str
    function: Callable[[Any], Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None

    def encode(self, batch: Any) -> np.ndarray:
        """Latents of a batch: float32 `[b, d]`, finite.

        Raises:
            EncoderError: the function hands back something else.
        """
        found = np.asarray(self.function(batch))
        if found.ndim != 2 or len(found) != len(batch) or not found.shape[1]:
            raise EncoderError(
                f"{self.name} must give latents [b, d] for b = {len(batch)} samples, got shape "
                f"{found.shape}. Pool over tokens or positions first."
            )
        if found.dtype.kind not in "fiu":
            raise EncoderError(f"{self.name} must give real numbers, got dtype {found.dtype}.")
        found = found.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if bad.size:
            raise EncoderError(
                f"{self.name} gives NaN or infinite values for {bad.size} of {len(batch)} samples; "
                f"the first is: {_shown(batch[bad[0]])}."
            )
        return found


def from_function(
    name: str, function: Callable[[Any], Any], kind: str | None = None, **settings: Any
) -> Encoder:
    """An encoder of your own.

    Args:
        name: what to call it.
        function: as in `Encoder`.
        kind: the samples it takes, `"text"` or `"images"`; None for any.
        **settings: what its latents depend on, such as a version: a store that was begun with
            others is not gone on with.

    Returns:
        The encoder.

    Raises:
        EncoderError: an unknown kind.
    """
    if kind not in (None, *KINDS):
        raise EncoderError(f"The kind of samples is 'text', 'images' or None, got {kind!r}.")
    return Encoder(name, function, {"function": name, **settings}, kind)


def encode(encoder: Encoder, samples: Sequence[Any] | np.ndarray, batch_size: int = 32) -> Any:
    """The latents of all samples, in memory.

    Args:
        encoder: what encodes.
        samples: `n` texts, images `[n, h, w, c]`, or anything that has a length and slices.
        batch_size: how many to encode at a time.

    Returns:
        float32 `[n, d]`.

    Raises:
        EncoderError: no samples, and what `Encoder.encode` raises.
    """
    return np.concatenate(list(batches(encoder, samples, batch_size)))


def batches(
    encoder: Encoder, samples: Sequence[Any] | np.ndarray, batch_size: int, start: int = 0
) -> Iterator[np.ndarray]:
    """The latents `[b, d]` of one batch after another, from sample `start` on."""
    if batch_size < 1:
        raise EncoderError(f"batch_size must be at least 1, got {batch_size}.")
    if len(samples) == 0:
        raise EncoderError("There are no samples to encode.")
    width = None
    for first in range(start, len(samples), batch_size):
        found = encoder.encode(samples[first : first + batch_size])
        if width not in (None, found.shape[1]):
            raise EncoderError(
                f"{encoder.name} gives latents of {width} and of {found.shape[1]} columns (from "
                f"sample {first} on). Its width must not depend on the batch."
            )
        width = found.shape[1]
        yield found


def require(module: str, extra: str) -> ModuleType:
    """A module of an extra.

    Raises:
        EncoderError: it is not installed, or what is installed does not work.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise EncoderError(
            f"This model needs the package {missing.split('.')[0]}, which cannot be imported "
            f'({error}). Install it with: pip install "relrep_jax[{extra}]"'
        ) from error
    except (RuntimeError, OSError, AttributeError) as error:  # as compiled parts that do not fit
        raise EncoderError(
            f"The package {module.split('.')[0]} is installed but cannot be imported: {error}. "
            f'Builds that fit each other come with: pip install "relrep_jax[{extra}]"'
        ) from error


def _shown(sample: Any) -> str:
    return repr(sample[:80]) if isinstance(sample, str) else f"shape {np.shape(sample)}"
