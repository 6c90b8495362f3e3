"""What text and vision have in common: loading PyTorch models quietly, and what identifies them."""

import contextlib
import hashlib
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from relrep_jax.encoders.base import EncoderError


def pick_device(torch: Any, device: str | None) -> Any:
    """A `torch.device`: the first GPU, or the CPU where there is none, unless one is named."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise EncoderError(
            f"The device {device!r} cannot be used: {first}. Name another, such as cpu."
        ) from error
    return chosen


def weights_hash(state: dict[str, Any], leave_out: Collection[str] = ()) -> str:
    """A SHA-256 hash of a model's weights by name, the same wherever they are loaded from."""
    found = hashlib.sha256()
    for name in sorted(set(state).difference(leave_out)):
        tensor = state[name].detach().cpu().contiguous()
        array = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).data if array.size else b"")
    return found.hexdigest()


def short_name(model: str) -> str:
    """What to call a model in tables and files: the last part of its name or folder."""
    path = Path(model).expanduser()
    return path.resolve().name if path.exists() else model.rstrip("/").rpartition("/")[2]


@contextlib.contextmanager
def loading(model: str, library: str) -> Iterator[None]:
    """Turn what a library says of a model that it cannot load into an `EncoderError`.

    Warnings and progress bars of the library are left out meanwhile.
    """
    folder = Path(model).expanduser()
    if model.startswith((".", "/", "~")) and not folder.exists():
        raise EncoderError(f"No such folder: {model} (from the folder {Path.cwd()}).")
    try:
        with _quiet(library):
            yield
    except EncoderError:
        raise
    except Exception as error:  # the errors of hubs and loaders have no class in common
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        if isinstance(root, RuntimeError) and root is not error:  # as packages that do not fit
            first = f"{first.rstrip('.')}: {root}"
        hint = (
            "It must be a folder that save_pretrained has written, with configuration, weights and "
            "tokeniser or image processor"
            if folder.exists()
            else f"It is no folder here, so {library} looked for it on its hub and among what it "
            "has downloaded. Check the name and the network, or give a local folder"
        )
        raise EncoderError(
            f"Cannot load the model {model!r}: {first.rstrip('.')}. {hint}."
        ) from error


@contextlib.contextmanager
def _quiet(library: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library != "transformers":
            yield
            return
        from transformers.utils import logging

        level = logging.get_verbosity()
        bars = logging.is_progress_bar_enabled()
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
