"""Train models from many seeds, stitch every encoder to every decoder, print the table.

    python train.py
    python train.py --config=configs/autoencoder_mnist.py --workdir=runs/mnist
    python train.py --config.seeds.count=16 --config.model.latent_dim=32

Without arguments it runs configs/default.py, an autoencoder on the embedded digits. Any field of
the config can be overridden. Everything goes to --workdir (runs/<name of the config> if left
out); a run that was stopped there goes on, a finished one is reported again.
"""

import _thread
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

WIDTH_OF_FILES = 120
"""Columns of what goes to a file or a pipe."""
DEFAULT_CONFIG = Path(__file__).resolve().parent / "configs" / "default.py"


def main(argv: list[str]) -> int:
    # Here, not above: they take seconds, in which Ctrl-C may come.
    from relrep_jax.training.seeds import use_host_devices

    use_host_devices()
    from rich.console import Console

    from relrep_jax.experiments import get_experiment
    from relrep_jax.experiments.config import ConfigError, differences
    from relrep_jax.experiments.flags import HelpWanted, parse_arguments
    from relrep_jax.experiments.workdir import claim_workdir, hold_workdir
    from relrep_jax.training.checkpoints import CheckpointError

    with ExitStack() as stack:
        try:
            config, workdir = parse_arguments(argv, DEFAULT_CONFIG)
            experiment = get_experiment(config)
            job = experiment.prepare(config)
            workdir = claim_workdir(workdir, config)
            stack.enter_context(hold_workdir(workdir))
        except HelpWanted as wanted:
            print(f"{__doc__}\n{wanted}")
            return 0
        except (ValueError, OSError) as error:
            print(f"train.py: {error}", file=sys.stderr)
            return 2
        except MemoryError as error:
            print(f"train.py: this does not fit into memory: {error}", file=sys.stderr)
            return 2

        # Paths and names are printed as they are, whatever brackets they hold.
        console = Console(markup=False, emoji=False)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = WIDTH_OF_FILES
        if cuts := differences(config, job.config):
            console.print("This run is smaller than its config, since config.scale is smoke:")
            console.print("\n".join(f"  {cut}" for cut in cuts), highlight=False, soft_wrap=True)
        stack.enter_context(_interrupts_come_through())
        try:
            experiment.run(job, workdir, console, command=shlex.join(["python", *argv]))
        except (ConfigError, CheckpointError) as error:  # what only training can tell
            print(f"train.py: {error}", file=sys.stderr)
            return 2
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            print(
                f"train.py: this does not fit into memory: {error}\nTake fewer seeds, smaller "
                f"batches or a smaller model. What is done is in {workdir}.",
                file=sys.stderr,
            )
            return 2
        except KeyboardInterrupt:
            print(
                f"train.py: stopped; what is done is in {workdir}. The same command goes on there.",
                file=sys.stderr,
            )
            return 130  # What shells report for SIGINT.
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    words = ("out of memory", "resource_exhausted")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


@contextmanager
def _interrupts_come_through() -> Iterator[None]:
    """A Ctrl-C that Python drops comes again.

    Python drops exceptions in callbacks of the garbage collector, of which JAX has one, and a
    Ctrl-C that comes during it would be lost.
    """
    before = sys.unraisablehook

    def interrupt():
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        else:  # Windows; it does not end a sleep.
            _thread.interrupt_main()

    def hook(dropped):
        if dropped.exc_type is KeyboardInterrupt:
            threading.Timer(0.1, interrupt).start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except KeyboardInterrupt:  # before training, when nothing is there to go on from
        print("train.py: stopped.", file=sys.stderr)
        sys.exit(130)
