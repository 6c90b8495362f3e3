"""`python -m relrep_jax` is `relrep`."""

import sys

from relrep_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
