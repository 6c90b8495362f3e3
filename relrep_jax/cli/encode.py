"""`relrep encode`: samples to latents, by a pretrained model or a function of the user's."""

import argparse
import sys
from pathlib import Path
from typing import Any

from relrep_jax.cli.files import add_output, refuse_to_overwrite
from relrep_jax.cli.terminal import console, progress, whole_number

SUMMARY = "encode texts or images with a pretrained model"

EXAMPLE = """\
examples:
  relrep encode questions.tsv --model bert-base-cased -o latents/bert.npy --label-column topic
  relrep encode questions.tsv --model roberta-base --pooling mean --layer 8 -o latents/roberta.npy
  relrep encode cifar10.npz --model vit_small_patch16_224 -o images/vit_small.npy
  relrep encode photos/ --model clip-vit-base-patch32 -o photos.npy
  relrep encode texts.txt --onnx model/model.onnx --pooling mean -o onnx.npy
  relrep encode texts.txt --function my_module:encode -o mine.npy

DATA is a file of texts (.txt, a text a line; .tsv or .csv with a heading, perhaps .gz), images in
the Keras layout (.npz) or a folder of image files, in which folders are classes. Labels and split
that DATA has go to labels.npy and split.npy beside OUT, so that `relrep stitch` reads the folder.

A run that was stopped goes on where it stopped when the same command is given again. NAME.json
beside NAME.npy tells the model, its settings and the data.

Models need extras: pip install "relrep_jax[text]", "relrep_jax[vision]" or "relrep_jax[onnx]".
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="file of texts or images, or folder of images")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model",
        metavar="NAME",
        help="name of a model in transformers or timm, or a folder that holds one",
    )
    source.add_argument("--onnx", metavar="FILE", help="model in a file .onnx")
    source.add_argument(
        "--function",
        metavar="MODULE:NAME",
        help="function of yours, from a list of samples to an array [b, d]; a file MODULE.py may "
        "lie in the current folder",
    )
    parser.add_argument("--column", metavar="NAME", help="of texts in a table (default: text)")
    parser.add_argument("--label-column", metavar="NAME", help="default: label, if there is one")
    parser.add_argument("--split-column", metavar="NAME", help="default: split, if there is one")
    parser.add_argument(
        "--pooling",
        metavar="NAME",
        help="cls, mean or projected (CLIP); default: projected for CLIP, the model's own in timm, "
        "else cls",
    )
    parser.add_argument(
        "--layer", metavar="L", help="layer whose states are pooled (default: -1, the last)"
    )
    parser.add_argument("--max-length", metavar="TOKENS", help="where longer texts are cut")
    parser.add_argument(
        "--library", metavar="NAME", help="timm or transformers, where a name does not tell"
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="weights for a model of timm")
    parser.add_argument("--output-name", metavar="NAME", help="output of an ONNX model")
    parser.add_argument(
        "--image-mean", metavar="R,G,B", help="of images in [0, 1] for an ONNX model (default: 0)"
    )
    parser.add_argument("--image-std", metavar="R,G,B", help="as --image-mean (default: 1)")
    parser.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1 (default: a GPU)")
    parser.add_argument("--batch-size", metavar="B", default="32", help="default: %(default)s")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="to store (default: %(default)s; everything is computed in float32)",
    )
    add_output(parser, "file NAME.npy", required=True)


_OPTIONS = {
    "text": ("pooling", "layer", "max_length", "device"),
    "images": ("pooling", "layer", "library", "checkpoint", "device"),
    "onnx": ("pooling", "max_length", "output_name", "image_mean", "image_std"),
    "function": (),
}
"""The options that each way of encoding has."""


class FunctionError(RuntimeError):
    """A function of the user's own raised, which the traceback shows."""


def run(args: argparse.Namespace) -> int:
    from relrep_jax.encoders.store import check_place

    check_place(args.output)
    refuse_to_overwrite([args.output], force=True)  # whether it may is for the store to say
    batch_size = whole_number("--batch-size", args.batch_size, 1)

    from relrep_jax.encoders import encode_to_store, load_samples

    samples = load_samples(
        args.data,
        column=args.column,
        label_column=args.label_column,
        split_column=args.split_column,
    )
    beside = _beside(args.output, samples, force=args.force)
    encoder = _load(args, samples.kind)
    if encoder.kind not in (None, samples.kind):
        other = "texts" if encoder.kind == "text" else encoder.kind
        raise ValueError(f"{encoder.name} encodes {other}, which {args.data} does not hold.")
    try:
        with progress(f"encoding with {encoder.name}", len(samples.values)) as advance:
            space = encode_to_store(
                encoder,
                samples.values,
                args.output,
                batch_size=batch_size,
                dtype=args.dtype,
                force=args.force,
                advance=advance,
            )
    except KeyboardInterrupt:
        print(
            f"\nrelrep encode: stopped. The same command goes on to {args.output}.", file=sys.stderr
        )
        return 130
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, FunctionError):
            raise
        raise ValueError(
            f"{encoder.name} failed: {str(error).splitlines()[0]} If it is memory that is short, "
            "go on with a smaller --batch-size."
        ) from error
    _write(beside)
    out = console()
    n, d = space.array.shape
    out.print(f"{args.output}: {[n, d]} {space.array.dtype} by {encoder.name}", soft_wrap=True)
    for path in beside:
        out.print(str(path), soft_wrap=True)
    return 0


def _load(args: argparse.Namespace, kind: str) -> Any:
    """The encoder that the arguments ask for."""
    from relrep_jax import encoders

    way = "onnx" if args.onnx else "function" if args.function else kind
    given = {}
    for option in dict.fromkeys(name for names in _OPTIONS.values() for name in names):
        value = getattr(args, option)
        if value is None:
            continue
        if option not in _OPTIONS[way]:
            what = {"text": "models of texts", "images": "models of images"}.get(way, f"--{way}")
            raise ValueError(f"--{option.replace('_', '-')} is no option of {what}.")
        given[option] = value
    for option, least in (("layer", -(10**6)), ("max_length", 1)):
        if option in given:
            given[option] = whole_number(f"--{option.replace('_', '-')}", given[option], least)
    if way == "function":
        return _load_function(args.function)
    if way == "onnx":
        for option in ("image_mean", "image_std"):
            if option in given:
                given[option] = _three_numbers(option, given[option])
        if "output_name" in given:
            given["output"] = given.pop("output_name")
        return encoders.load_onnx(args.onnx, **given)
    load = encoders.load_text if kind == "text" else encoders.load_vision
    return load(args.model, **given)


def _load_function(place: str) -> Any:
    """The function that `MODULE:NAME` names, known by the bytes of its module's file."""
    import hashlib
    from importlib import import_module

    from relrep_jax.encoders import from_function

    module_name, _, name = place.partition(":")
    if not module_name or not name or module_name.startswith("."):
        raise ValueError(f"--function is MODULE:NAME, got {place!r}.")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"--function {place}: cannot import {module_name} (from the folder {Path.cwd()}): "
            f"{error}."
        ) from error
    except Exception as error:
        raise FunctionError(f"{module_name} could not be imported") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"--function {place}: {module_name} has no function {name}.")
    file = getattr(module, "__file__", None)
    source = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None

    def marked(samples: Any) -> Any:
        try:
            return function(samples)
        except Exception as error:
            raise FunctionError(f"{place} failed") from error

    return from_function(f"{module_name}.{name}", marked, sha256=source)


def _three_numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise ValueError(
            f"--{option.replace('_', '-')} takes three numbers, such as 0.5,0.5,0.5, got {text!r}."
        )
    return numbers


def _beside(output: Path, samples: Any, *, force: bool) -> dict[Path, Any]:
    """What goes to files beside the output, unless it is there already.

    Raises:
        ValueError: labels or a split of other samples are there.
    """
    import numpy as np

    from relrep_jax.data.latents import load_labels, load_split

    found: dict[Path, Any] = {}
    for name, wanted, read in (
        ("labels", samples.labels, load_labels),
        ("split", samples.split, load_split),
    ):
        path = output.parent / f"{name}.npy"
        if wanted is None:
            continue
        if force or not path.exists():
            found[path] = wanted
        elif not np.array_equal(read(path), wanted):
            raise ValueError(
                f"{path} exists and differs from the {name} of the data: row i of all files of a "
                "folder must be the same sample. Choose another folder, or replace it with --force."
            )
    if samples.classes:
        names = output.parent / "labels.json"
        if force or not names.exists():
            found[names] = list(samples.classes)
        elif _read_json(names) != list(samples.classes):
            raise ValueError(
                f"{names} exists and holds other names than those of the classes of the data. "
                "Choose another folder, or replace it with --force."
            )
    return found


def _read_json(path: Path) -> Any:
    import json

    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


def _write(files: dict[Path, Any]) -> None:
    import json

    import numpy as np

    from relrep_jax._files import atomic_open, atomic_write_text

    for path, content in files.items():
        if path.suffix == ".npy":
            with atomic_open(path) as file:
                np.save(file, content)
        else:
            atomic_write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
