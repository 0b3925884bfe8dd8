"""Repositories of the Hugging Face hub: fetched once, then read from its cache."""

import re
from pathlib import Path
from typing import Any

from resnet_jax.errors import UserError

_FILES = ["*config.json", "README.md", "*.safetensors", "*.safetensors.index.json"]
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(name: str, revision: str, advice: str) -> tuple[Path, str | None]:
    """Brings a repository's configuration and weights into the hub's cache, or finds them there.

    Safetensors are preferred; the pickles of PyTorch are fetched only where there are none.

    Args:
      name: "owner/repository".
      revision: a branch, a tag or a commit.
      advice: what to suggest when there is no such repository.

    Returns:
      The directory, and the commit it is of.

    Raises:
      UserError: huggingface_hub is not installed, the repository does not exist or is gated, the
        hub cannot be reached and the cache lacks a file, or the download breaks off.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"{name}: the hub is read by a package that is missing; pip install huggingface_hub, or"
            " give the directory of a downloaded repository"
        ) from error
    try:
        path = _snapshot(huggingface_hub, name, revision, _FILES)
        if not any(path.glob("*.safetensors")):
            path = _snapshot(huggingface_hub, name, revision, [*_FILES, "*.bin"])
    # The HTTP client's own errors come through, and which client it is changes with the version.
    except Exception as error:
        raise UserError(_explain(huggingface_hub, error, name, revision, advice)) from error
    return path, path.name if _COMMIT.fullmatch(path.name) else None


def _snapshot(hub: Any, name: str, revision: str, patterns: list[str]) -> Path:
    return Path(hub.snapshot_download(name, revision=revision, allow_patterns=patterns))


def _explain(hub: Any, error: Exception, name: str, revision: str, advice: str) -> str:
    """Returns one line that says what is wrong and what to do."""
    errors = hub.errors
    where = f"{name} at {revision}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name}: the repository is gated; accept its terms on its page at the hub, then log in"
            " with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{where}: the repository has no such revision; leave revision= out, or name another"
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return f"{name}: no such repository at the hub, nor a directory here; {advice}"
    if isinstance(error, getattr(errors, "IncompleteSnapshotError", ())):
        return (
            f"{where}: only a part of it is in the cache and the hub cannot be reached; run again"
            " with a connection, and the download goes on"
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return (
            f"{where}: the hub cannot be reached and the cache has no copy; run once with a"
            " connection, or give the directory of a downloaded repository"
        )
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"{where}: the download broke off ({reason}); run again, and it goes on"
