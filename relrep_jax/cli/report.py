"""`relrep report`: finished runs on one page."""

import argparse

from relrep_jax.cli.files import add_output, check_kind, refuse_to_overwrite
from relrep_jax.cli.terminal import console

SUMMARY = "gather the reports of finished runs on one page"

EXAMPLE = """\
examples:
  relrep report runs/ -o runs/all.md
  relrep report runs/mnist runs/cora -o compared.md --title "MNIST and Cora"

DIR is the workdir of a run of train.py, the output of relrep stitch, or a folder of such. The page
has the tables of all, and links their pictures where they lie.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directories", metavar="DIR", nargs="+", help="a run, or a folder of runs")
    parser.add_argument("--title", default="Experiments", help="of the page (default: %(default)s)")
    add_output(parser, "file: .md", required=True)


def run(args: argparse.Namespace) -> int:
    check_kind(args.output, (".md",))
    refuse_to_overwrite([args.output], force=args.force)

    from relrep_jax.report.gather import find_reports, gather

    reports = find_reports(args.directories, leave_out=args.output)
    gather(args.output, reports, title=args.title)
    console().print(f"{args.output}: {len(reports)} runs", soft_wrap=True)
    return 0
