"""Configs: checking them against an experiment's defaults, and against an earlier run's."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from ml_collections import ConfigDict

LARGEST = float(np.finfo(np.float32).max)
"""Of the numbers that training computes with."""


class ConfigError(ValueError):
    """A config that cannot be run; the message says which field and what to do."""


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model.latent_dim": 64, ...}`: every leaf under its dotted name."""
    leaves: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict) and value:
            leaves.update(flatten(value, f"{prefix}{name}."))
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def check_fields(config: ConfigDict, reference: ConfigDict, free: tuple[str, ...] = ()) -> None:
    """Raise `ConfigError` where `config` has a field that `reference` lacks, or lacks one.

    Args:
        config: what a user brought.
        reference: a config with every field.
        free: dotted names of sub-configs whose own fields are not compared.
    """

    def compare(given: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> None:
        for name in given:
            if name not in known:
                nearest = get_close_matches(name, list(known), n=1)
                hint = f" Did you mean config.{prefix}{nearest[0]}?" if nearest else ""
                raise ConfigError(
                    f"Unknown config field config.{prefix}{name}.{hint} Fields here: "
                    f"{', '.join(sorted(known))}."
                )
        for name, value in known.items():
            is_group = isinstance(value, Mapping | ConfigDict)
            if name not in given:
                what = "a group of " + ", ".join(value) if is_group else f"its default is {value!r}"
                raise ConfigError(f"The config lacks the field config.{prefix}{name}; {what}.")
            if is_group != isinstance(given[name], Mapping | ConfigDict):
                kind = "a group of fields" if is_group else "a value"
                raise ConfigError(f"config.{prefix}{name} must be {kind}, got {given[name]!r}.")
            if f"{prefix}{name}" in free:
                continue
            if is_group:
                compare(given[name], value, f"{prefix}{name}.")
            else:
                _check_type(f"config.{prefix}{name}", given[name], value)

    compare(config, reference, "")
    for name, value in flatten(config).items():
        if isinstance(value, float) and not abs(value) <= LARGEST:
            raise ConfigError(f"config.{name} must be a finite number of 32 bits, got {value}.")
        if name.endswith("seed") and isinstance(value, int) and not 0 <= value < 2**32:
            raise ConfigError(f"config.{name} must be from 0 to 2**32 - 1, got {value}.")
    seeds = config.get("seeds", {})
    if "first" in seeds and seeds.first + seeds.count > 2**32:
        raise ConfigError(
            "config.seeds.first and the seeds after it must be below 2**32, got "
            f"{seeds.first} and config.seeds.count {seeds.count}."
        )


_KINDS: tuple[tuple[type, type | tuple[type, ...], str], ...] = (
    # A bool is an int to Python, which it is not here.
    (bool, bool, "True or False"),
    (int, int, "a whole number"),
    (float, (int, float), "a number"),
    (str, str, "a text"),
    ((tuple, list), (tuple, list), "a list"),
)
"""Of a default's type what values it may have, and what messages call them."""


def _check_type(field: str, given: Any, default: Any) -> None:
    """Raise `ConfigError` where a value is not of its default's kind, or cannot be written."""
    try:
        json.dumps(given)
    except TypeError as error:
        raise ConfigError(
            f"{field} holds what config.json cannot: {error}. Use names, texts and plain numbers "
            "of Python; functions of your own go with the library's functions."
        ) from error
    for kind, allowed, wanted in _KINDS:
        if isinstance(default, kind):
            is_bool = isinstance(given, bool) and kind is not bool
            if is_bool or not isinstance(given, allowed):
                example = f", such as {default!r}" if default not in ((), [], "") else ""
                raise ConfigError(f"{field} must be {wanted}{example}, got {given!r}.")
            break
    if isinstance(default, tuple | list) and default:
        for entry in given:
            _check_type(f"every entry of {field}", entry, default[0])


def check_at_least(config: ConfigDict, minimum: Mapping[str, float]) -> None:
    """Raise `ConfigError` where a number, named by its dotted name, is below its minimum."""
    leaves = flatten(config)
    for name, least in minimum.items():
        if not leaves[name] >= least:
            raise ConfigError(f"config.{name} must be at least {least}, got {leaves[name]}.")


SCALES = ("full", "smoke")
"""What `config.scale` may be: the config as it is, or small enough to see it run."""


def cut_to_scale(config: ConfigDict, most: Mapping[str, Mapping[str, int]]) -> ConfigDict:
    """The config at its `config.scale`: at `smoke`, numbers are cut to those of `most`.

    Args:
        config: with a field `scale`.
        most: largest values by group and field. A field whose name ends in `limit` counts 0 as
            no limit.

    Raises:
        ConfigError: an unknown scale.
    """
    if config.scale not in SCALES:
        raise ConfigError(f"config.scale must be one of {', '.join(SCALES)}, got {config.scale!r}.")
    if config.scale == "full":
        return config
    config = config.copy_and_resolve_references()
    for group, fields in most.items():
        for name, value in fields.items():
            is_unlimited = name.endswith("limit") and config[group][name] == 0
            config[group][name] = value if is_unlimited else min(config[group][name], value)
    return config


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON text with sorted keys."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines `config.field: old -> new` for every leaf that differs."""
    absent = "(absent)"
    before, after = flatten(old), flatten(new)
    lines = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name, absent), after.get(name, absent)
        if was != now:
            lines.append(f"config.{name}: {was} -> {now}")
    return lines
