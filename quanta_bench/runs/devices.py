"""Over which devices of this machine one run is spread, and how."""

from __future__ import annotations

from dataclasses import dataclass

from quanta_bench.errors import UsageError, did_you_mean

STRATEGIES = ("ddp", "fsdp")
"""How a run is spread; the first one is the default."""

MOST_DEVICES = 64


@dataclass(frozen=True)
class Devices:
    """Over what a run is spread.

    Attributes:
        count: GPUs of this machine, or processes where it has none.
        strategy: one of `STRATEGIES`; empty for one device.
    """

    count: int = 1
    strategy: str = ""

    @classmethod
    def of(cls, count: int, strategy: str = "") -> Devices:
        """Check what the command line gives.

        Raises:
            UsageError: there is no such strategy, or it has nothing to spread over.
        """
        if not 1 <= count <= MOST_DEVICES:
            raise UsageError(f"--devices takes a number from 1 to {MOST_DEVICES}, not {count}.")
        if strategy and strategy not in STRATEGIES:
            hint = did_you_mean(strategy, STRATEGIES)
            raise UsageError(f"There is no strategy {strategy!r}. {hint}")
        if strategy and count == 1:
            raise UsageError(
                f"--strategy {strategy} says how a run is spread over several devices: name their "
                "number with --devices."
            )
        return cls(count, (strategy or STRATEGIES[0]) if count > 1 else "")

    def check_here(self) -> None:
        """Refuse more devices than there are.

        Raises:
            UsageError: there are fewer GPUs.
        """
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else self.count
        if self.count > gpus:
            raise UsageError(f"--devices {self.count}: this machine has {gpus} GPUs.")


ONE = Devices()
