"""The command line `relrep`: one module a command, over files of latents.

A command module has `SUMMARY`, `EXAMPLE`, `add_arguments(parser)` and `run(args) -> exit code`.
At its top it imports nothing heavy, so that help comes at once; bad input is a `ValueError` or
`OSError`, which ends with its message and exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from relrep_jax import __version__
from relrep_jax.checks import lookup

COMMANDS: dict[str, str] = {
    "encode": "relrep_jax.cli.encode",
    "compare": "relrep_jax.cli.compare",
    "project": "relrep_jax.cli.project",
    "translate": "relrep_jax.cli.translate",
    "anchors": "relrep_jax.cli.anchors",
    "stitch": "relrep_jax.cli.stitch",
    "report": "relrep_jax.cli.report",
}
"""The module of every command."""

_EPILOG = """\
examples:
  relrep encode questions.tsv --model bert-base-cased -o latents/bert.npy
  relrep compare latents/ -o runs/compared
  relrep project a.npy --anchors anchors.npy -o relative.npy
  relrep COMMAND --help

Latents are files [n, d], row i the same sample in all of them: .npy, .npz, .safetensors or
.parquet (a column of lists); one array of several is named by FILE:KEY. A folder stands for all
of its files, except labels.* and split.*.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="relrep",
        description="Relative representations: compare, translate and stitch latent spaces.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"relrep {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, home in COMMANDS.items():
        module = import_module(home)
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY[0].upper() + module.SUMMARY[1:] + ".",
            epilog=module.EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; those of the process where left out.

    Returns:
        The exit code: 0, or 2 where the input was at fault, after one message on stderr.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    if not argv:
        parser.print_help()
        return 0
    try:
        if not argv[0].startswith("-"):
            lookup("command", argv[0], COMMANDS)
        args = parser.parse_args(argv)
    except ValueError as error:
        return _refuse("relrep", error)
    except SystemExit as end:  # help, version, or bad arguments, which argparse has explained
        return int(end.code or 0)
    args.command_line = argv
    try:
        return args.run(args)
    except BrokenPipeError:  # the reader of the output has gone, as in `relrep ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"\nrelrep {args.command}: stopped; nothing was written.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        return _refuse(f"relrep {args.command}", error)


def _refuse(who: str, error: Exception) -> int:
    print(f"{who}: {error}", file=sys.stderr)
    return 2
