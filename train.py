"""Train models from many seeds, stitch every encoder to every decoder, print the table.

    python train.py
    python train.py --config=configs/autoencoder_mnist.py --workdir=runs/mnist
    python train.py --config.seeds.count=16 --config.model.latent_dim=32

Without arguments it runs configs/default.py, an autoencoder on the embedded digits. Any field of
the config can be overridden. Everything goes to --workdir (runs/<name of the config> if left
out); a run that was stopped there goes on, a finished one is reported again.
"""

import shlex
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from relrep_jax.training.seeds import use_host_devices

ROOT = Path(__file__).resolve().parent
CONFIG = config_flags.DEFINE_config_file(
    "config", str(ROOT / "configs" / "default.py"), "What to run: a file with get_config()."
)
WORKDIR = flags.DEFINE_string("workdir", "", "Where results go [runs/<name of the config>].")


def parse_flags(arguments: list[str]) -> list[str]:
    """Flags and config overrides; a bad one ends with a message instead of a traceback."""
    try:
        return app.parse_flags_with_usage(arguments)
    except Exception as error:
        # ml_collections lets whatever goes wrong in a config or an override through.
        stop(error)


def stop(error: BaseException) -> None:
    """Say what was wrong with the input, and end with exit code 2."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    print(f"train.py: {message}", file=sys.stderr)
    sys.exit(2)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        stop(ValueError(f"unknown argument {arguments[1]!r}; see python train.py --help."))
    logging.set_verbosity(logging.WARNING)
    use_host_devices()

    from relrep_jax.experiments import get_experiment
    from relrep_jax.experiments.workdir import claim_workdir

    try:
        experiment = get_experiment(CONFIG.value)
        job = experiment.prepare(CONFIG.value)
        name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
        workdir = claim_workdir(WORKDIR.value or Path("runs") / name, CONFIG.value)
    except (ValueError, OSError) as error:
        stop(error)

    command = shlex.join(["python", *sys.argv])
    experiment.run(job, workdir, Console(), command)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
