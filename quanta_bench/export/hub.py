"""Push an exported folder to a model hub: only on request, and private at first."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.export.stored import Form, StoredRun
from quanta_bench.sources.names import hub_address, hub_is_off


def check_push(run: StoredRun, repository: str, form: Form) -> None:
    """Refuse, before anything is written, what could not be pushed or loaded from there.

    Raises:
        UsageError: the repository has no such name, the hub is switched off, or the base model of
            an adapter is a folder of this machine.
    """
    # By import_module, since the names are public but not declared as exported.
    hub = import_module("huggingface_hub.utils")

    try:
        hub.validate_repo_id(repository)
    except hub.HFValidationError as error:
        raise UsageError(f"--push takes OWNER/NAME: {error}") from None
    if hub_is_off():
        raise UsageError("--push needs the hub, and HF_HUB_OFFLINE is set: unset it.")
    model = run.result.training.spec.model
    if form != "merged" and model.source != "hub":
        raise UsageError(
            "An adapter on a hub needs a base model on a hub, and this one's is a folder of this "
            "machine: push the merged model (--merged)."
        )


def push(folder: Path, repository: str) -> str:
    """Upload a folder into a repository, which is made if need be, private.

    Returns:
        The address of the upload.

    Raises:
        BenchError: the hub cannot be reached or refuses; the folder stays.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub_address())
    try:
        made = api.create_repo(repository, private=True, exist_ok=True)
        done = api.upload_folder(repo_id=made.repo_id, folder_path=folder)
    except Exception as error:  # the client raises errors of several HTTP libraries
        reason = next(iter(str(error).strip().splitlines()), "no reason given")[:200]
        raise BenchError(
            f"{folder} is written, but {repository} could not be pushed to {hub_address()}: "
            f"{type(error).__name__}: {reason.rstrip('.')}. Once that is solved: "
            f"hf upload {repository} {folder}"
        ) from error
    return str(done.commit_url)
