"""The door to labelled images, by name or from a file."""

import os
from collections.abc import Callable

from relrep_jax.checks import lookup
from relrep_jax.data.base import DatasetError, ImageDataset
from relrep_jax.data.npz import load_npz
from relrep_jax.data.prepared import OFFICIAL_CLASSES, load_digits, load_official

LOADERS: dict[str, Callable[..., ImageDataset]] = {
    "digits": load_digits,
    **{
        name: lambda *args, _name=name: load_official(_name, *args)  # bound now, not when called
        for name in OFFICIAL_CLASSES
    },
}


def load_images(
    name: str | None = "digits",
    *,
    path: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
) -> ImageDataset:
    """Labelled images with a training and a test part, as NumPy arrays in their stored dtype.

    Args:
        name: `digits` (embedded: 1797 images of 8x8, prepared on first use), or `mnist`,
            `fashion_mnist`, `cifar10`, `cifar100` (fine labels) as prepared by
            tensorflow-datasets in array_record or parquet format. Nothing is downloaded.
            Not looked at where `path` is given.
        path: an `.npz` file in the Keras layout: `x_train`, `x_test` of shape `[n, h, w]` or
            `[n, h, w, c]` and `y_train`, `y_test` of shape `[n]` or `[n, 1]`. Images are
            floats in `[0, 1]` (then `scale` is 1) or whole numbers in 0 .. 255 of any
            dtype (then `scale` is 255).
        data_dir: where tensorflow-datasets keeps prepared data; its own default
            (`TFDS_DATA_DIR`, else `~/tensorflow_datasets`) where None.
        train_limit: keep only the first so many training rows.
        test_limit: keep only the first so many test rows.

    Returns:
        An `ImageDataset`. Rows of `digits` and of files are in their source's order; those of
        the others in the order in which tfds stored them, which is shuffled and fixed.
        A label that occurs in a file's test part alone is kept, with a `UserWarning`.

    Raises:
        ValueError: an unknown name.
        DatasetError: (a `ValueError`) neither a name nor a path, a data set that is not
            prepared or a data directory that cannot be written, a limit out of range, and
            every fault of a file; the message names the place and says what to do.

    Example:
        >>> data = load_images("digits", train_limit=100)  # doctest: +SKIP
        >>> data.x_train.shape, data.x_train.dtype, data.scale  # doctest: +SKIP
        ((100, 8, 8, 1), dtype('uint8'), 16.0)
    """
    if path is not None:
        return load_npz(path, train_limit, test_limit)
    if name is None:
        raise DatasetError(f"Give a path, or a name out of: {', '.join(sorted(LOADERS))}.")
    if str(name).endswith(".npz"):
        raise DatasetError(f"{name!r} looks like a file: load it with path={str(name)!r}.")
    return lookup("image data set", name, LOADERS)(data_dir, train_limit, test_limit)
