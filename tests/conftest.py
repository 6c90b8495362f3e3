"""Tests run on two XLA host devices, so that whatever is spread over devices really is."""

import jax

jax.config.update("jax_num_cpu_devices", 2)
