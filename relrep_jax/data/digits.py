"""The embedded data set: scikit-learn's handwritten digits as a tfds builder."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

TRAIN_SIZE = 1500

_CITATION = """\
@misc{alpaydin1998optical,
  author = {Alpaydin, Ethem and Kaynak, Cenk},
  title = {Optical Recognition of Handwritten Digits},
  year = {1998},
  publisher = {UCI Machine Learning Repository},
  doi = {10.24432/C50P49}
}
"""


class Digits(tfds.core.GeneratorBasedBuilder):
    """1797 handwritten digits, 8x8 grey levels in 0 .. 16, from inside scikit-learn.

    Nothing is downloaded and TensorFlow is not needed: records are written as array_record
    (parquet where that package does not exist, as on Windows) and images are stored as
    plain tensors, since tfds's `Image` feature encodes with TensorFlow.

    The split is the first 1500 against the last 297 in scikit-learn's order. That order
    mostly runs through the ten digits again and again, so both parts, and any long enough
    prefix of them, hold every class about equally, and nothing depends on a seed.

    Every row carries its `index` in scikit-learn's order, because tfds shuffles rows by a
    hash of their key when it writes them.
    """

    name = "digits8x8"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    # tfds looks for checksums of downloads beside the code, by way of a package that it does
    # not declare (importlib_resources). Nothing is downloaded here, so there is nowhere to look.
    code_path = None

    def __init__(self, *, file_format: Any = None, **kwargs: Any):
        if file_format is None:
            file_format = "array_record" if find_spec("array_record") else "parquet"
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "The test set of the UCI optical recognition of handwritten digits data, "
                "as it ships inside scikit-learn: 1797 images of 8x8 pixels in 0 .. 16."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                    "index": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {
            "train": self._generate_examples(0, TRAIN_SIZE),
            "test": self._generate_examples(TRAIN_SIZE, None),
        }

    def _generate_examples(self, start: int, stop: int | None) -> Iterator[tuple[int, dict]]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = digits.images.astype(np.uint8)[..., None]
        for index in range(len(images))[start:stop]:
            yield (
                index,
                {"image": images[index], "label": int(digits.target[index]), "index": index},
            )
