"""``kvw push``: a model or an adapter that kvw wrote, with its card, to a repository of the hub."""

from __future__ import annotations

from pathlib import Path

from kvw.errors import UserError
from kvw.mark import MARK, marked_kind
from kvw.models.checkpoint import HUB_ID, first_line
from kvw.progress import Reporter

PUSHED = ("model", "adapter")
"""What may leave the machine: neither holds the forget set."""
CARD = "README.md"


def check_pushed(folder: Path, name: str) -> None:
    """Refuse what is not to be pushed.

    Args:
        folder: What is to be pushed.
        name: ``owner/name`` on the hub.

    Raises:
        UserError: The folder is no model or adapter that kvw wrote, it has no card, or the name is none.
    """
    kind = marked_kind(folder)
    if kind == "run":
        model = folder / "model"
        raise UserError(
            f"{folder} is a run: its samples hold the forget set, and its edit points to it.",
            do=f"push {model}" if model.is_dir() else "write a model with kvw apply, and push that",
        )
    if kind not in PUSHED:
        raise UserError(
            f"{folder} is no model or adapter that kvw has written.",
            found=f"a folder of kind {kind}" if kind else "no mark of kvw" if folder.is_dir() else "no such folder",
            do="name RUN/model, or what kvw apply or kvw edit export has written",
        )
    if kind == "model" and not (folder / CARD).is_file():
        raise UserError(f"{folder} has no model card.", found=f"no {CARD}", do="write the model again with kvw apply")
    if "/" not in name or not HUB_ID.fullmatch(name):
        raise UserError("That is no name on the hub.", found=name, do="write it as owner/name")


def push(folder: Path, name: str, reporter: Reporter, *, branch: str = "main", public: bool = False) -> str:
    """Push a folder as one commit; returns where it is.

    The repository is made if there is none, and private unless ``public``. The token is that of ``huggingface_hub``.

    Args:
        folder: See :func:`check_pushed`.
        name: ``owner/name``.
        reporter: Told if the repository has earlier commits.
        branch: Made from the main one if there is none.
        public: Whether everybody may read the repository.

    Raises:
        UserError: See :func:`check_pushed`; or the repository is public and ``public`` is off, or the hub refuses.
    """
    check_pushed(folder, name)

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    # Of the library that makes the client's connections: which one that is depends on the client's version.
    connection = [one for one in HfHubHTTPError.__bases__ if issubclass(one, Exception)]
    told: tuple[type[Exception], ...] = (HFValidationError, OSError, *connection)
    api = HfApi()
    try:
        try:
            there = api.repo_info(name)
        except RepositoryNotFoundError:
            api.create_repo(name, private=not public)
        else:
            if not (there.private or public):
                raise UserError(f"Everybody can read {name}.", do="add --public if that is meant, or name another")
            reporter.warn(f"{name} was there before: its earlier commits stay, with all that their weights know.")
        if branch != "main":
            api.create_branch(name, branch=branch, exist_ok=True)
        with reporter.stage(f"pushing {folder.name} to {name}"):
            said = f"{folder.name} edited by kvw"
            done = api.upload_folder(
                repo_id=name, folder_path=folder, revision=branch, commit_message=said, ignore_patterns=[MARK]
            )
    except told as error:
        raise UserError(
            f"{name} could not be pushed to.",
            found=first_line(error),
            do="log in with hf auth login or set HF_TOKEN to a token that may write, and leave HF_HUB_OFFLINE unset",
        ) from error
    return str(done.commit_url)
