"""Writing a file or a directory so that it is there whole or not at all."""

import contextlib
import glob
import hashlib
import os
import shutil
import stat
import uuid

import tensorflow as tf

try:
    import fcntl
except ImportError:  # Windows: what a killed writer left stays there.
    fcntl = None  # type: ignore[assignment]

_ENDING = ".partial"


@contextlib.contextmanager
def written_whole(path, *, owner, overwrite, room=0):
    """Gives a temporary path to write to, and renames what is there to `path` in the end.

    A reader never sees half of it under the final name, whatever happens: an error removes the
    temporary one, and what a killed process left is removed by the next that writes to the same
    name. It is in a folder of its own beside `path`, on the same file system, where a rename is
    one step. The data are on the disk before the rename, and the rename before the return.

    A link at `path` stays one: what it points to is replaced. A file that is replaced hands on
    its mode.

    Args:
      path: `str` or `os.PathLike`, the final path, a local one. Missing parents are made.
      owner: name of the calling method, for messages.
      overwrite: whether a file that is there is replaced. A directory never is.
      room: number of bytes that the file system must have room for before the block starts, for
        writers that do not survive a full disk.

    Raises:
      FileExistsError: if there is something at `path` that is not to be replaced.
      ValueError: for a remote path.
      OSError: if it could not be written.
    """
    path = _local(path, owner)
    _refuse_existing(path, owner, overwrite)
    try:
        target = os.path.realpath(path)
        folder, name = os.path.split(target)
        os.makedirs(folder, exist_ok=True)
        _remove_leftovers(folder, name)
        with _own_folder(folder, name) as own:
            partial = os.path.join(own, "new")
            if room:
                _check_room(partial, room)
            yield partial
            _refuse_existing(path, owner, overwrite)
            if os.path.isfile(target):
                os.chmod(partial, stat.S_IMODE(os.stat(target).st_mode))
            _to_disk(partial)
            os.replace(partial, target)
            _folder_to_disk(folder)
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


def remove_leftovers(folder):
    """Removes from a folder what killed writers left there, whatever they were writing."""
    for left in glob.glob(os.path.join(glob.escape(folder), f".*{_ENDING}")):
        _remove_if_dead(left)


@contextlib.contextmanager
def _own_folder(folder, name):
    """A folder that is locked for as long as its writer lives, removed in the end."""
    descriptor = None
    try:
        while descriptor is None:
            own = os.path.join(folder, f"{_stem(name)}.{uuid.uuid4().hex[:12]}{_ENDING}")
            os.mkdir(own)
            descriptor = _locked(own, wait=True)
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        if descriptor:
            os.close(descriptor)


def _locked(folder, wait):
    """A descriptor that holds the lock of a folder; `None` if it has gone, or is another's.

    The system gives the lock back when the process ends, however it ends. Between the folder's
    making and its locking another may take it for a dead one's: then it is gone, and the maker
    tries again.
    """
    if fcntl is None:
        return 0 if wait else None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            return descriptor
    except FileNotFoundError:
        pass
    except OSError:  # Another's; or a file system without locks, where the folder is in no danger.
        if wait:
            return descriptor
    os.close(descriptor)
    return None


def _stem(name):
    """What a temporary name begins with: legible, and no longer than a name may be."""
    legible = name.encode(errors="surrogateescape")[:60].decode(errors="ignore")
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]
    return f".{legible}.{digest}"


def _remove_leftovers(folder, name):
    """Removes what killed writers to this name left."""
    beginning = glob.escape(os.path.join(folder, _stem(name)))
    for left in glob.glob(f"{beginning}.*{_ENDING}"):
        _remove_if_dead(left)


def _remove_if_dead(left):
    descriptor = _locked(left, wait=False)
    if descriptor is not None:
        shutil.rmtree(left, ignore_errors=True)
        os.close(descriptor)


def _to_disk(path):
    """Waits until a file, or all that is in a directory, is on the disk."""
    if os.path.isdir(path):
        for entry in os.scandir(path):
            _to_disk(entry.path)
        _folder_to_disk(path)
        return
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _folder_to_disk(folder):
    # Not every system opens a folder, nor every file system syncs one; the data are safe by then.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
