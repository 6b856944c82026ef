"""A checkpoint's folder to the Hugging Face hub."""

from collections.abc import Iterable, Sequence
from inspect import signature
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi


def upload(
    folder: Path,
    files: Sequence[str],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload model",
    commit_description: str | None = None,
) -> CommitInfo:
    """Sends files to a model repository, which is made where it is missing.

    Args:
        folder: of the files.
        files: their paths in it.
        repo_id: "user/name", or a name of one's own.
        private: of a new repository.
        token: None takes that of the machine's login.
        revision: the branch, made where it is missing.
        create_pr: propose the files in a pull request.
        commit_message, commit_description: of the commit.

    Returns:
        The commit; as text, its address.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/") and not create_pr:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    return api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        allow_patterns=list(files),
        revision=revision,
        create_pr=create_pr,
        commit_message=commit_message,
        commit_description=commit_description,
    )


def check_options(names: Iterable[str]) -> None:
    """Refuses what `upload` does not take, before anything is written.

    Raises:
        TypeError: it takes no such option.
    """
    if unknown := sorted(set(names) - signature(upload).parameters.keys()):
        raise TypeError(f"There is no option '{unknown[0]}'.")
