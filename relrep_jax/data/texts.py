"""Labelled texts as rows of tokens."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relrep_jax.data.base import DatasetError
from relrep_jax.data.samples import columns_of, load_samples

PAD, UNKNOWN = 0, 1
"""Tokens that are no words: what fills a text up, and a word that training texts lack."""

TOPICS = ("specialnames", "compound", "types", "formatstrings", "string-methods", "debugger")
"""Chapters of Python's own documentation that share no paragraph: the embedded classes."""


@dataclass(frozen=True, eq=False)
class TextDataset:
    """A training and a test part of labelled texts.

    Attributes:
        name: what to call the data set in tables.
        x_train: `[n, length]` int32 tokens, padded with 0.
        y_train: `[n]` int32 class numbers in `0 .. num_classes - 1`.
        x_test: `[k, length]` int32.
        y_test: `[k]` int32.
        vocabulary: the words; token `i + 2` is word `i`.
        num_classes: the number of classes.
        is_embedded: whether it came with this package.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    vocabulary: tuple[str, ...]
    num_classes: int
    is_embedded: bool

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are, padding and unknown words among them."""
        return len(self.vocabulary) + 2


def load_texts(
    path: str | os.PathLike[str] = "",
    *,
    column: str | None = None,
    label_column: str | None = None,
    max_length: int = 32,
    max_words: int = 10_000,
) -> TextDataset:
    """Texts and their classes, as tokens: words and punctuation marks, in lower case.

    Args:
        path: `.tsv` or `.csv`, perhaps `.gz`, with columns of texts, labels and the split (`train`,
            `dev`, `test`); empty: paragraphs of Python's own documentation, whose class is
            the chapter.
        column, label_column: of texts and labels, where the heading does not tell.
        max_length: tokens that are kept of a text.
        max_words: the most frequent words that are kept, of those that training texts have twice.

    Returns:
        The data set; rows of the development part are left out.

    Raises:
        DatasetError: a file that cannot be read, lacks labels, a split, or training or test rows.
    """
    if path:
        name = Path(path).name.split(".")[0]
        if not Path(path).name.lower().removesuffix(".gz").endswith((".tsv", ".csv")):
            raise DatasetError(
                f"{path} is no table of texts: these are read from .tsv or .csv (also .gz) "
                "with columns text, label and split (train, dev or test)."
            )
        samples = load_samples(path, column=column or None, label_column=label_column or None)
        if samples.labels is None:
            raise DatasetError(
                f"{path} has no column 'label'. Name the one of labels with label_column; there "
                f"are {', '.join(columns_of(path))}."
            )
        if samples.split is None:
            raise DatasetError(
                f"{path} has no column 'split', which says whether a text is for train, dev or "
                f"test; there are {', '.join(columns_of(path))}."
            )
        texts, labels, split = samples.values, samples.labels, samples.split
    else:
        name = "python_docs"
        texts, labels, split = _python_docs()
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    train, test = np.flatnonzero(split == 0), np.flatnonzero(split == 2)
    if not len(train) or not len(test):
        raise DatasetError(f"{path}: the column split names no training or no test rows.")
    unseen = np.setdiff1d(labels[test], labels[train])
    if len(unseen) or len(np.unique(labels[train])) < 2:
        what = (
            f"{len(unseen)} of the classes of test texts have no training texts"
            if len(unseen)
            else "all training texts are of one class"
        )
        raise DatasetError(f"{path}: {what}, so that nothing can be learned of them.")
    words = _vocabulary([texts[i] for i in train], max_words)
    tokens = _tokens(texts, words, max_length)
    return TextDataset(
        name,
        tokens[train],
        labels[train],
        tokens[test],
        labels[test],
        tuple(words),
        int(labels.max()) + 1,
        not path,
    )


_WORD = re.compile(r"\w+|[^\w\s]")


def _split_words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _vocabulary(texts: list[str], max_words: int) -> list[str]:
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer=_split_words, min_df=2, max_features=max_words)
    try:
        return counter.fit(texts).get_feature_names_out().tolist()
    except ValueError as error:
        raise DatasetError(f"No word occurs in two training texts: {error}") from error


def _tokens(texts: list[str], words: list[str], max_length: int) -> np.ndarray:
    number = {word: i + 2 for i, word in enumerate(words)}
    tokens = np.full((len(texts), max_length), PAD, np.int32)
    for row, text in enumerate(texts):
        found = [number.get(word, UNKNOWN) for word in _split_words(text)[:max_length]]
        tokens[row, : len(found)] = found
    return tokens


def _python_docs() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Paragraphs of prose, the chapter of each, and every fifth for testing."""
    from pydoc_data.topics import topics

    texts, labels = [], []
    for label, topic in enumerate(TOPICS):
        for paragraph in topics[topic].split("\n\n"):
            text = " ".join(paragraph.split())
            letters = sum(character.isalpha() or character == " " for character in text)
            # Code, tables and headings have few letters or are short.
            if 60 <= len(text) <= 1000 and letters / len(text) > 0.85 and ">>>" not in text:
                texts.append(text)
                labels.append(label)
    split = np.where(np.arange(len(texts)) % 5 == 4, 2, 0)
    return texts, np.array(labels), split
