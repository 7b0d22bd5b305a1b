"""The suite's own protocols, a file each; see :mod:`quanta_bench.protocol`."""
