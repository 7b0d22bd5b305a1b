"""Check what works on this machine and say how to fix what does not."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from quanta_bench.method import Method
from quanta_bench.models import embedded
from quanta_bench.registry import METHODS_GROUP, TASKS_GROUP, Registry
from quanta_bench.sources.names import hub_address, hub_is_off
from quanta_bench.sources.wheels import DATA_WHEEL, MODEL_WHEEL, Wheel
from quanta_bench.task import Task
from quanta_bench.utils.cache import cache_folder
from quanta_bench.utils.device import this_device

_DISTRIBUTION = "quanta-bench"
_OURS = ("quanta_bench", "baselines", "tasks")
_HUB_SECONDS = 3.0
_DISK_BYTES = 2e9
_MEMORY_BYTES = 9e9


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was checked.
        ok: whether it passed.
        detail: the observation and, if it failed, what to do.
        needed: false if commands work without it.
        command: what repairs it, where one command does.
    """

    name: str
    ok: bool
    detail: str
    needed: bool = True
    command: str = ""


def next_steps(findings: Sequence[Finding]) -> list[str]:
    """What to do now, a line each: repair what is needed, or begin."""
    wrong = [finding for finding in findings if finding.needed and not finding.ok]
    commands = list(dict.fromkeys(finding.command for finding in wrong if finding.command))
    by_hand = [finding.name for finding in wrong if not finding.command]
    if by_hand:
        commands.insert(0, f"repair {_listed(by_hand)}, as said above")
    return [*commands, "quanta-bench doctor"] if wrong else list(FIRST_STEPS)


FIRST_STEPS = (
    "quanta-bench table sums --methods none,lora --seeds 0  # a first table",
    "quanta-bench list                                      # what else there is",
)


def check() -> list[Finding]:
    """Run all checks. Changes nothing; never raises; takes a few seconds."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("packages", _packages),
        ("torch", _torch),
        ("bfloat16", _bfloat16),
        ("disk", _disk),
        ("memory", _memory),
        ("embedded model", _embedded_model),
        ("embedded data", _embedded_data),
        ("hub", _hub),
        ("package names", _package_names),
        ("methods", lambda: _registry(METHODS_GROUP, "method", Method)),
        ("tasks", lambda: _registry(TASKS_GROUP, "task", Task)),
    ]
    findings = []
    for name, run_check in checks:
        try:
            findings.append(run_check())
        except Exception as error:
            # One broken part must not hide the others.
            findings.append(
                Finding(name, False, f"could not be checked: {type(error).__name__}: {error}")
            )
    return findings


def _python() -> Finding:
    from packaging.specifiers import SpecifierSet

    required = metadata.metadata(_DISTRIBUTION)["Requires-Python"] or ""
    version = platform.python_version()
    ok = SpecifierSet(required).contains(version, prereleases=True)
    todo = (
        "" if ok else f"; {_DISTRIBUTION} needs {required}: make the environment with another one"
    )
    return Finding("python", ok, version + todo)


def _packages() -> Finding:
    from packaging.requirements import Requirement

    good, bad = [], []
    for line in metadata.requires(_DISTRIBUTION) or []:
        need = Requirement(line)
        # Extras are optional, so their packages may be absent.
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            bad.append(f"{need.name} is missing")
            continue
        if need.specifier.contains(version, prereleases=True):
            good.append(f"{need.name} {version}")
        else:
            bad.append(f"{need.name} is {version}, required {need.specifier}")
    if bad:
        todo = "install this project again (`pip install -e .` or `make`)"
        return Finding("packages", False, "; ".join(bad) + ": " + todo)
    return Finding("packages", True, ", ".join(good))


def _torch() -> Finding:
    import torch

    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"no GPU, {torch.get_num_threads()} threads"
    return Finding("torch", True, f"{torch.__version__}, {device}")


def _bfloat16() -> Finding:
    import torch

    from quanta_bench.models.precision import fast_dtype

    device = this_device().type
    fast = fast_dtype(device) is torch.bfloat16
    verdict = (
        "fast here: frozen bases are kept in bfloat16"
        if fast
        else "slow here: bases stay in float32, so runs take longer and use more memory"
    )
    return Finding("bfloat16", True, verdict, needed=False)


def _disk() -> Finding:
    cache = cache_folder()
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    ok = free >= _DISK_BYTES
    todo = "" if ok else "; 2 GB are needed: free space or set QUANTA_BENCH_CACHE to another folder"
    return Finding("disk", ok, f"{free / 1e9:.1f} GB free for the cache in {cache}{todo}")


def _memory() -> Finding:
    import psutil

    free = float(psutil.virtual_memory().available)
    ok = free >= _MEMORY_BYTES
    todo = "" if ok else "; two runs at once take up to 9 GB: close other programs, or use --jobs 1"
    return Finding("memory", ok, f"{free / 1e9:.1f} GB available{todo}", needed=False)


def _embedded_model() -> Finding:
    if embedded.is_converted():
        return Finding("embedded model", True, f"{embedded.DESCRIPTION}, ready")
    if MODEL_WHEEL.fetched:
        return Finding("embedded model", True, f"{embedded.DESCRIPTION}, converted at first use")
    return _not_fetched("embedded model", MODEL_WHEEL)


def _embedded_data() -> Finding:
    if DATA_WHEEL.fetched:
        return Finding("embedded data", True, f"{DATA_WHEEL}, ready")
    return _not_fetched("embedded data", DATA_WHEEL)


def _not_fetched(name: str, wheel: Wheel) -> Finding:
    return Finding(
        name,
        False,
        f"{wheel} is not in the cache: run `quanta-bench fetch` ({wheel.size / 1e6:.0f} MB)",
        command="quanta-bench fetch",
    )


def _hub() -> Finding:
    address = hub_address()
    alternative = "--source embedded and local:DIR do without it"
    if hub_is_off():
        detail = f"HF_HUB_OFFLINE is set; {alternative}; unset it to use the hub"
        return Finding("hub", False, detail, needed=False)
    replies: list[str] = []

    def probe() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=_HUB_SECONDS):
                replies.append("")
        except urllib.error.HTTPError:
            replies.append("")  # Any answer at all means that it can be reached.
        except Exception as error:
            # An exception in a thread would be lost, and any failure means the same here.
            replies.append(str(getattr(error, "reason", error)) or type(error).__name__)

    # In a thread, because a DNS lookup has no timeout.
    start = time.perf_counter()
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS)
    if replies and not replies[0]:
        taken = time.perf_counter() - start
        return Finding("hub", True, f"{address} answers in {taken:.1f} s", needed=False)
    reason = replies[0] if replies else f"no answer in {_HUB_SECONDS:.0f} s"
    detail = f"{address} cannot be reached ({reason}); {alternative}"
    return Finding("hub", False, detail, needed=False)


def _package_names() -> Finding:
    import quanta_bench

    home = Path(quanta_bench.__file__).resolve().parent.parent
    owners = metadata.packages_distributions()
    wrong = []
    for name in _OURS:
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else [*(spec.submodule_search_locations or [spec.origin or ""])]
        others = sorted(set(owners.get(name, [])) - {_DISTRIBUTION})
        by = f" (from {', '.join(others)})" if others else ""
        if not places:
            wrong.append(f"{name} cannot be imported")
        elif home / name not in {Path(place).resolve() for place in places}:
            wrong.append(f"{name} is imported from {places[0]}{by}, not from {home / name}")
        elif others:
            wrong.append(f"{', '.join(others)} also installs a package called {name}")
    if wrong:
        todo = "uninstall the other package, or install this project in a separate environment"
        return Finding("package names", False, f"{'; '.join(wrong)}: {todo}")
    return Finding("package names", True, f"{_listed(_OURS)} are this project's, in {home}")


def _registry(group: str, noun: str, base: type) -> Finding:
    plugins, reasons = Registry[object](group, noun, base).usable()
    title = f"{noun}s"
    if reasons:
        todo = "; repair or uninstall its package"
        return Finding(title, False, "; ".join(reasons.values()) + todo)
    if not plugins:
        return Finding(title, False, "none are registered; install this project again")
    return Finding(title, True, _listed(plugins))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
