"""Writing a file or a directory so that it is there whole or not at all."""

import contextlib
import os
import shutil
import uuid

import tensorflow as tf


@contextlib.contextmanager
def written_whole(path, *, owner, overwrite, suffix="", room=0):
    """Gives a temporary sibling of `path` to write to, and renames it when the block is done.

    A reader never sees half of it under the final name, whatever happens: an error removes the
    temporary one, and a process that is killed leaves it under a name that starts with a dot
    and holds `.partial`. The sibling lies on the same file system, where a rename is one step.

    Args:
      path: `str` or `os.PathLike`, the final path, a local one. Missing parents are made.
      owner: name of the calling method, for messages.
      overwrite: whether a file that is there is replaced. A directory never is.
      suffix: what the temporary name must end in.
      room: number of bytes that the file system must have room for before the block starts, for
        writers that do not survive a full disk.

    Raises:
      FileExistsError: if there is something at `path` that is not to be replaced.
      ValueError: for a remote path.
      OSError: if it could not be written.
    """
    path = _local(path, owner)
    _refuse_existing(path, owner, overwrite)
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:12]}.partial{suffix}")
    try:
        os.makedirs(folder, exist_ok=True)
        if room:
            _check_room(partial, room)
        yield partial
        _refuse_existing(path, owner, overwrite)
        os.replace(partial, path)
    except FileExistsError:
        raise
    except (OSError, tf.errors.OpError) as error:
        # TensorFlow's errors have a message and no number, the system's have both.
        number = getattr(error, "errno", None)
        reason = getattr(error, "message", None) or getattr(error, "strerror", None) or error
        message = (
            f"{owner}: could not write '{path}': {reason}. Nothing was left there"
            f"{' but what was there before' if os.path.lexists(path) else ''}."
        )
        raise OSError(*([] if number is None else [number]), message) from error
    finally:
        if os.path.isdir(partial):
            shutil.rmtree(partial, ignore_errors=True)
        elif os.path.lexists(partial):
            os.remove(partial)


def _check_room(path, size):
    """Raises the system's own error (disk full, quota, limit) if `size` bytes find no room."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "xb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        finally:
            os.remove(path)


def _local(path, owner):
    path = os.fspath(path)
    if not isinstance(path, str) or not path:
        raise ValueError(f"{owner}: expected a path, got {path!r}.")
    if "://" in path:
        raise ValueError(
            f"{owner}: expected a local path, got '{path}': only there a rename is one step. "
            "Write to a local path and copy it."
        )
    return os.path.abspath(path)


def _refuse_existing(path, owner, overwrite):
    if os.path.lexists(path) and (not overwrite or os.path.isdir(path)):
        raise FileExistsError(
            f"{owner}: there is a {'directory' if os.path.isdir(path) else 'file'} at '{path}' "
            "already. Choose another path, or remove it first."
        )
