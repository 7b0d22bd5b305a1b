"""``python -m quanta_bench.cli``, as the command ``quanta-bench``."""

from quanta_bench.cli.main import main

main()
