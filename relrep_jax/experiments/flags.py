"""Command-line arguments of `train.py`: a config file, overrides of its fields, a workdir."""

import ast
import contextlib
import runpy
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from relrep_jax.experiments.config import ConfigError, flatten


class Arguments(NamedTuple):
    """What the command line says.

    Attributes:
        config: with the overrides in it.
        workdir: where results go.
    """

    config: ConfigDict
    workdir: Path


class HelpWanted(Exception):
    """The user asked for help; the message is the help."""


def parse_arguments(argv: Sequence[str], default_config: Path) -> Arguments:
    """Read `--config=FILE --config.field=value --workdir=DIR`.

    Args:
        argv: the program's name and its arguments.
        default_config: the config file where none is named.

    Returns:
        The arguments; the workdir is `runs/<name of the config file>` where none is named, with
        what follows the file's colon.

    Raises:
        ConfigError: anything wrong with them; the message says what.
        HelpWanted: `--help` or `-h` is among them.
    """
    argv, options = _take_options(argv)
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", "", "Where results go [runs/<name of the config>].", flag_values=values
    )
    named = [word for word in argv[1:] if _names_config(word)]
    if len(named) > 1:
        raise ConfigError(f"There is one config a run, got {' and '.join(named)}.")
    if not named:
        argv.insert(1, f"--config={default_config}")
    if any(word.lstrip("-").startswith("config.") for word in argv[: _config_index(argv)]):
        raise ConfigError("--config=FILE comes before the --config.FIELD=VALUE that change it.")
    file = _config_file(argv)
    if not file.name:
        raise ConfigError("--config has no value; write --config=FILE.")
    if not file.is_file():
        known = ", ".join(sorted(path.name for path in default_config.parent.glob("*.py")))
        raise ConfigError(
            f"There is no config file {str(file)!r}. Those in {default_config.parent}: {known}."
        )
    if not _defines_config(file):
        raise ConfigError(
            f"{file} is not a config file: it must define get_config(), which returns a ConfigDict."
        )
    holder = config_flags.DEFINE_config_file(
        "config", None, f"What to run [{default_config}].", flag_values=values, sys_argv=argv
    )
    if {"--help", "-h", "--helpfull", "--helpshort"} & set(argv):
        fields = flatten(_load(file, argv))
        raise HelpWanted(
            f"Fields of {file}:\n" + "\n".join(f"  --config.{n}={v!r}" for n, v in fields.items())
        )
    try:
        rest = values(argv)
        config = holder.value
    except flags.Error as error:
        # What is wrong with the file itself is said without a traceback.
        leaves = list(flatten(_load(file, argv)))
        raise ConfigError(_of_flags(argv, leaves, str(error)) or str(error)) from error
    except Exception as error:
        is_of_field = isinstance(error, AttributeError | KeyError | IndexError | TypeError)
        unknown = _unknown_field(file, argv) if is_of_field else ""
        if unknown:
            raise ConfigError(unknown) from error
        # Config files are the user's own Python and may raise anything.
        raise ConfigError(f"{file} cannot be read: {type(error).__name__}: {error}") from error
    _set_options(config, options)
    if len(rest) > 1:
        hint = "Fields are set with --config.FIELD=VALUE; see --help."
        if rest[1].partition(":")[0].endswith(".py"):
            hint = f"A config file is named with --config={rest[1]}."
        raise ConfigError(f"Unknown argument {rest[1]!r}. {hint}")
    _split_lists(config, argv)
    return Arguments(config, Path(values["workdir"].value or Path("runs") / _run_name(file, argv)))


def _defines_config(file: Path) -> bool:
    try:
        return "get_config" in runpy.run_path(str(file))
    except Exception:
        return True  # What is wrong is said when it is read.


def _names_config(word: str) -> bool:
    return word.startswith("-") and word.lstrip("-").split("=")[0] == "config"


def _config_index(argv: Sequence[str]) -> int:
    """Where among the arguments, of which one names it, the config file is named."""
    return next(i for i, word in enumerate(argv) if i and _names_config(word))


def _config_file(argv: Sequence[str]) -> Path:
    # ml_collections passes what follows a colon to get_config.
    return Path(_config_value(argv).partition(":")[0])


def _run_name(file: Path, argv: Sequence[str]) -> str:
    argument = _config_value(argv).partition(":")[2]
    return f"{file.stem}_{argument}" if argument else file.stem


def _config_value(argv: Sequence[str]) -> str:
    index = _config_index(argv)
    _, found, value = argv[index].partition("=")
    return value if found else "".join(argv[index + 1 : index + 2])


def _unknown_field(file: Path, argv: Sequence[str]) -> str:
    """What to say of the first override that names no field of the config; empty if all do."""
    leaves = list(flatten(_load(file, argv)))
    groups = {leaf.rsplit(".", depth)[0] for leaf in leaves for depth in range(leaf.count(".") + 1)}
    for field in _fields(argv):
        if field not in groups:
            nearest = _nearest(field, leaves)
            hint = f" Did you mean config.{nearest}?" if nearest else ""
            fields = ", ".join(leaf for leaf in leaves if leaf.split(".")[0] == field.split(".")[0])
            return (
                f"Unknown config field config.{field}.{hint} Fields: {fields or ', '.join(leaves)}."
            )
    return ""


def _fields(argv: Sequence[str]) -> list[str]:
    """The dotted names of the fields that arguments set."""
    names = (word.lstrip("-").split("=")[0] for word in argv[1:] if word.startswith("-"))
    return [name.removeprefix("config.") for name in names if name.startswith("config.")]


def _nearest(field: str, leaves: Sequence[str]) -> str:
    """The field that was likely meant; empty where none is like it."""
    last = field.rsplit(".", 1)[-1]
    same = [leaf for leaf in leaves if last in leaf.split(".")]
    alike = get_close_matches(field, same or leaves, n=1, cutoff=0.0 if same else 0.5)
    return alike[0] if alike else ""


def _of_flags(argv: Sequence[str], leaves: Sequence[str], said: str) -> str:
    """What to say of a flag that absl refuses, where what it said leads nowhere; else empty."""
    for field in _fields(argv):
        inside = [leaf for leaf in leaves if leaf.startswith(f"{field}.")]
        if inside and f"--config.{field}=" in said:
            return (
                f"config.{field} is a group of fields. Set one of them, such as "
                f"--config.{inside[0]}=VALUE. Fields: {', '.join(inside)}."
            )
    for word in argv[1:]:
        name = word.lstrip("-").split("=")[0]
        meant = [leaf for leaf in leaves if name in (leaf, *leaf.split("."))]
        if word.startswith("--") and meant:
            flags_meant = " or ".join(f"--config.{leaf}=VALUE" for leaf in meant)
            return f"Unknown flag --{name}. Did you mean {flags_meant}?"
    return ""


def _split_lists(config: ConfigDict, argv: Sequence[str]) -> None:
    """Make `a,b`, which ml_collections takes for a list of one text, a list of two, and nothing one
    of none."""
    leaves = flatten(config)
    for field in _fields(argv):
        value = leaves.get(field)
        is_text = isinstance(value, tuple | list) and len(value) == 1 and isinstance(value[0], str)
        if is_text and ("," in value[0] or not value[0].strip()):
            config.update_from_flattened_dict(
                {field: tuple(part.strip() for part in value[0].split(",") if part.strip())}
            )


def _load(file: Path, argv: Sequence[str]) -> ConfigDict:
    argument = _config_value(argv).partition(":")[1:]
    try:
        return runpy.run_path(str(file))["get_config"](*argument[1:] if argument[0] else ())
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{file} cannot be read: {type(error).__name__}: {error}") from error


OPTIONS = "config.optimizer.options."


def _take_options(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Arguments without those that set an optimiser's own options, which no config lists."""
    rest, options, words = [], {}, iter(argv)
    for word in words:
        name, found, value = word.lstrip("-").partition("=")
        if not (word.startswith("-") and name.startswith(OPTIONS)):
            rest.append(word)
            continue
        if not found and ((value := next(words, "--")).startswith("--")):
            raise ConfigError(f"--{name} has no value; write --{name}=VALUE.")
        with contextlib.suppress(SyntaxError, ValueError):  # a word, such as a name
            value = ast.literal_eval(value)
        options[name.removeprefix(OPTIONS)] = value
    return rest, options


def _set_options(config: ConfigDict, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if "optimizer" not in config or "options" not in config.optimizer:
            raise ConfigError(
                f"Unknown config field {OPTIONS}{name}: this experiment has no optimiser."
            )
        with config.unlocked():
            config.optimizer.options[name] = value
