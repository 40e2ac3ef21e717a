"""A staged folder to a repository on the Hub: private by default, retried, and fetched back to be compared.

The library's client waits for an answer for ever; here a request that moves no byte for ``TIME_LIMIT`` is a broken one.
"""

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, constants, get_session
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from pair_pkg.errors import InputError, PushFailure, is_disk_full, one_line
from pair_pkg.hub.staging import ALLOWED
from pair_pkg.records import file_sha256

logger = logging.getLogger("pair_pkg")

ATTEMPTS = 5
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0  # seconds, doubled from one attempt to the next
TIME_LIMIT = 120.0  # seconds
# The Hub may answer otherwise a moment later: 409 and 412 are two commits at once. 507, no room, it will not.
TRANSIENT = {408, 409, 412, 429, 500, 502, 503, 504}
WRAPPERS = (
    RuntimeError,
    LocalEntryNotFoundError,
)  # by which the library hides what went wrong behind a line of its own
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

    Files of the allow-list that an earlier model left in the repository and this one does not have go in the same
    commit. Raises ``PushFailure`` where the Hub does not take it or holds something else afterwards, ``InputError``
    for a token or a name that a user can mend.
    """
    api = HfApi(token=token)
    upload = lambda: api.upload_folder(  # noqa: E731
        repo_id=repo_id,
        folder_path=folder,
        commit_message=message,
        revision=revision,
        delete_patterns=list(ALLOWED),
    )
    sha = _retried(upload, f"uploading to {repo_id}", token, wait).oid
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        fetch = lambda name=name: _fetched_digest(api, repo_id, name, sha)  # noqa: E731
        try:
            digest = _retried(fetch, f"fetching {name} back", token, wait, transient=TRANSIENT | {404, 416})
        except InputError as error:
            raise PushFailure(f"{error}; what commit {sha} holds is not proven") from error
        if digest != file_sha256(path):
            raise PushFailure(f"{repo_id}: {name} came back otherwise than it was sent (commit {sha}); push it again")
    return sha


def _fetched_digest(api: HfApi, repo_id: str, name: str, sha: str) -> str:
    """The sha256 of a file as the Hub gives it, fetched anew into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return file_sha256(api.hf_hub_download(repo_id, name, revision=sha, local_dir=folder))


def _retried(
    call: Callable[[], Result], what: str, token: str | None, wait: Wait, *, transient: set[int] = TRANSIENT
) -> Result:
    """What a call to the Hub gives, tried again after errors that may pass; a refusal is one line with the cure."""
    for attempt in range(1, ATTEMPTS + 1):
        _limit_waiting()
        try:
            return call()
        except HFValidationError:
            raise
        except OfflineModeIsEnabled as error:
            raise InputError(f"{what}: HF_HUB_OFFLINE forbids it; unset it to push") from error
        except Exception as error:  # of any kind: a broken answer is a KeyError or AssertionError in the library
            if is_disk_full(error):
                raise
            cause = _cause(error)
            status = getattr(getattr(cause, "response", None), "status_code", None)
            from_storage = isinstance(error, RuntimeError) and status is not None  # its signed addresses grow old
            if status is not None and status not in transient and not from_storage:
                raise _refusal(what, status, cause, token) from None  # the library's own chain may show the token
            if attempt == ATTEMPTS:
                gave_up = f"{what}: gave up after {ATTEMPTS} attempts ({_clean(cause, token)})"
                raise PushFailure(f"{gave_up}{_way_around(cause)}") from None
            pause = min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT)
            logger.warning("%s: %s; again in %g s", what, _clean(cause, token), pause)
            wait(pause)
    raise AssertionError("not reached")


def _limit_waiting() -> None:
    """Have the library's client give a request up as ``TIME_LIMIT`` says, also where it asks for no limit itself."""
    session = get_session()  # another one after a connection that failed
    hooks = session.event_hooks
    if _limit not in hooks["request"]:
        session.event_hooks = {**hooks, "request": [*hooks["request"], _limit]}


def _limit(request: Any) -> None:
    given = request.extensions.get("timeout", {})
    limits = {name: given.get(name) or TIME_LIMIT for name in ("connect", "read", "write", "pool")}
    request.extensions = {**request.extensions, "timeout": limits}


def _cause(error: BaseException) -> BaseException:
    """What went wrong behind the library's wrappers."""
    while isinstance(error, WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _way_around(error: BaseException) -> str:
    """The other way to the same place, where it was hf_xet that failed: its errors are Python's own."""
    from_xet = isinstance(error, OSError | RuntimeError) and not isinstance(error, HTTPError)
    if not from_xet or constants.HF_HUB_DISABLE_XET:
        return ""
    return "; HF_HUB_DISABLE_XET=1 in the environment takes the older way, by LFS"


def _refusal(what: str, status: int, error: BaseException, token: str | None) -> Exception:
    cure = {
        401: "log in by `hf auth login`, or set HF_TOKEN to a token that may write",
        403: "the token may not write there; make one that may, or push under another name",
        404: "check the name, and that the token sees the repository",
        413: "a file is larger than the Hub takes",
        507: "the Hub has no room for it; look at the storage of the account",
    }.get(status, "the Hub refuses it")
    message = f"{what}: {_clean(error, token)}; {cure}"
    return InputError(message) if status in (401, 403, 404) else PushFailure(message)


def _clean(error: BaseException, token: str | None) -> str:
    """An error in one line, without the token."""
    text = one_line(f"{type(error).__name__}: {error}")
    return (text.replace(token, "[token]") if token else text)[:300]
