"""A staged folder to a repository on the Hub: private by default, retried, and fetched back to be compared."""

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, HTTPError

from pair_pkg.errors import InputError, PushFailure, one_line
from pair_pkg.records import file_sha256

logger = logging.getLogger("pair_pkg")

ATTEMPTS = 5
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0  # seconds, doubled from one attempt to the next
TRANSIENT = {408, 429, 500, 502, 503, 504}  # the Hub may answer otherwise a moment later; 507, no room, will not
Result = TypeVar("Result")
Wait = Callable[[float], Any]


def open_repository(repo_id: str, *, private: bool, token: str | None, wait: Wait = time.sleep) -> str:
    """Make the repository where it does not exist, and give its full name.

    Raises ``InputError`` for a name that cannot be, a token that may not write, and a public repository where a
    private one is wanted; ``PushFailure`` where the Hub cannot be reached.
    """
    api = HfApi(token=token)
    try:
        create = lambda: api.create_repo(repo_id, private=private, exist_ok=True).repo_id  # noqa: E731
        full_name = _retried(create, f"opening {repo_id}", token, wait)
        is_private = _retried(lambda: api.model_info(full_name).private, f"reading {full_name}", token, wait)
    except HFValidationError as error:
        raise InputError(f"{repo_id}: is no name of a repository ({_clean(error, token)})") from error
    if private and not is_private:
        raise InputError(
            f"{full_name}: is public; give --public (in training --hub_private_repo false) to publish there, or "
            "another name"
        )
    return full_name


def push_files(
    folder: Path, repo_id: str, message: str, *, token: str | None, revision: str | None = None, wait: Wait = time.sleep
) -> str:
    """Upload a folder as one commit, fetch it back and compare every file; gives the commit's sha.

    Raises ``PushFailure`` where the Hub does not take it or holds something else afterwards.
    """
    api = HfApi(token=token)
    commit = _retried(
        lambda: api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, revision=revision),
        f"uploading to {repo_id}",
        token,
        wait,
    )
    sha = commit.oid
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if _fetched_digest(api, repo_id, name, sha, token, wait) != file_sha256(path):
            raise PushFailure(f"{repo_id}: {name} came back otherwise than it was sent (commit {sha}); push it again")
    return sha


def _fetched_digest(api: HfApi, repo_id: str, name: str, sha: str, token: str | None, wait: Wait) -> str:
    """The sha256 of a file as the Hub gives it, fetched anew into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        fetch = lambda: api.hf_hub_download(repo_id, name, revision=sha, local_dir=folder)  # noqa: E731
        return file_sha256(_retried(fetch, f"fetching {name} back", token, wait))


def _retried(call: Callable[[], Result], what: str, token: str | None, wait: Wait) -> Result:
    """What a call to the Hub gives, tried again after errors that may pass; a refusal is one line with the cure."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except (HTTPError, OSError, RuntimeError) as error:  # its client wraps the errors of an upload in the last
            cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
            status = getattr(getattr(cause, "response", None), "status_code", None)
            if status is not None and status not in TRANSIENT:
                raise _refusal(what, status, error, token) from None  # the library's own chain may show the token
            if attempt == ATTEMPTS:
                raise PushFailure(f"{what}: gave up after {ATTEMPTS} attempts ({_clean(error, token)})") from None
            pause = min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT)
            logger.warning("%s: %s; again in %g s", what, _clean(error, token), pause)
            wait(pause)
    raise AssertionError("not reached")


def _refusal(what: str, status: int, error: Exception, token: str | None) -> Exception:
    cure = {
        401: "log in by `hf auth login`, or set HF_TOKEN to a token that may write",
        403: "the token may not write there; make one that may, or push under another name",
        404: "check the name, and that the token sees the repository",
        413: "a file is larger than the Hub takes",
        507: "the Hub has no room for it; look at the storage of the account",
    }.get(status, "the Hub refuses it")
    message = f"{what}: {_clean(error, token)}; {cure}"
    return InputError(message) if status in (401, 403, 404) else PushFailure(message)


def _clean(error: Exception, token: str | None) -> str:
    """An error in one line, without the token."""
    text = one_line(f"{type(error).__name__}: {error}")
    return (text.replace(token, "[token]") if token else text)[:300]
