"""What is written to disk: by one run at a time, whole or not there; a full disk is said by name.

    with whole("figures.json") as handle:          # figures.json.partial, locked, until it is whole
        handle.write(data)
    with writing(folder):                          # around what libraries write
        model.save_pretrained(folder)

Locks are the kernel's (flock): they end with their process, however it ends, so that no killed run stands in the way,
and what it left is taken over.
"""

import errno
import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from alignlib import waits
from alignlib.records.links import descriptor, place, regular

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of file systems that have no locks, or none of folders (NFS): there runs are not kept apart.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


class StateError(Exception):
    """A file that cannot be written, or a run that cannot be gone on with, as asked; the commands exit with 2."""


class DiskFull(Exception):
    """No space for what is written: the message says where; the commands exit with 1."""


# -- a full disk -------------------------------------------------------------------------------------------------


def full(error: BaseException | None) -> int | None:
    """The errno of the full disk that is behind an error, in whatever words; None where none is."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error.errno
        ours = isinstance(error, ValueError) or type(error).__module__.startswith(("alignlib", "click"))
        said = "" if ours else str(error)  # not what a record says that is quoted
        for number in FULL:  # safetensors, tokenizers
            if f"(os error {number})" in said:
                return number
        if "disk is full" in said:  # SQLite
            return errno.ENOSPC
        error = error.__cause__ or error.__context__
    return None


def named(error: OSError, path: str | Path | None) -> OSError | DiskFull:
    """The error as what a full disk is called, where it is one; None: of standard output."""
    return DiskFull(no_space(error, path)) if full(error) else error


def refused(error: OSError, path: str | Path) -> DiskFull | StateError:
    """What it is called that nothing can be made at `path`."""
    if full(error):
        return DiskFull(no_space(error, path))
    return StateError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}")


@contextmanager
def writing(path: str | Path | None) -> Iterator[None]:
    """Around what is written at `path`, by whatever library; None: to standard output. Raises DiskFull."""
    if path is None and sys.stdout.isatty():
        waits.hush()
    try:
        yield
    except (DiskFull, StateError):
        raise
    except Exception as error:
        # torch's own writer, which DeepSpeed uses, gives no reason.
        silent = path and "inline_container" in str(error) and shutil.disk_usage(_folder(path)).free < 1 << 20
        if full(error) or silent:
            raise DiskFull(no_space(error, path)) from error
        raise


def no_space(error: BaseException, path: str | Path | None) -> str:
    """ "no space left on device: runs/sft" """
    return f"{os.strerror(full(error) or errno.ENOSPC).lower()}: {_folder(path)}"


def _folder(path: str | Path | None) -> str:
    """Which folder has no space for what is written at `path`."""
    if path is None:
        return "standard output"
    return str(path) if os.path.isdir(path) else os.path.dirname(path) or "."


# -- one run at a time -------------------------------------------------------------------------------------------


def lock(file: int | BinaryIO, how: int = fcntl.LOCK_EX) -> None:
    """Lock it at once, where its file system has locks. Raises BlockingIOError where another run has it."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


class Held:
    """A file or folder that no other run writes as long as this one has it open. Raises StateError where one does.

    append   at the file's end, always
    shared   others may hold it so too, but none write it
    folder   a folder; those above it are made too
    there    only if it is there already; FileNotFoundError if not
    shown    the name that the user knows it by

    path: where it is, links followed; fd: its descriptor; new: whether this run has made it.
    """

    fd = -1

    def __init__(self, path: str | Path, *, append: bool = False, shared: bool = False, folder: bool = False,
                 there: bool = False, shown: str | Path | None = None):
        self.path, self.shown, self.new = place(path), str(shown or path), False
        self._above: list[str] = []  # folders made for it, the innermost first
        self._lock = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        flags = os.O_DIRECTORY if folder else os.O_RDONLY if shared else os.O_WRONLY | (os.O_APPEND if append else 0)
        try:
            if folder:
                self._above = make_folders(os.path.dirname(self.path))
            while not self._take(flags | os.O_CLOEXEC, folder, there):
                pass
        except FileNotFoundError as error:
            if there:
                raise
            raise StateError(f"{self.shown}: no such folder") from error
        except OSError as error:
            remove_empty(self._above)
            raise refused(error, self.shown) from error

    def _take(self, flags: int, folder: bool, there: bool) -> bool:
        """Open and lock it; False if it was renamed or removed meanwhile by the run that had it."""
        if not there:
            self.new = self._make(folder)
        try:
            self.fd = os.open(self.path, flags)
        except FileNotFoundError:
            if there:
                raise
            return False
        try:
            lock(self.fd, self._lock)
        except BlockingIOError as error:
            self.close()
            kind = "folder" if folder else "file"
            raise StateError(f"{self.shown}: another run is writing it; give each run, and each --shard, "
                             f"a {kind} of its own") from error
        except OSError:
            self.close()
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self.fd), os.stat(self.path)):
                return True
        self.close()
        return False

    def _make(self, folder: bool) -> bool:
        try:
            if folder:
                os.mkdir(self.path)
            else:
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except FileExistsError:
            return False
        return True

    def alone(self) -> bool:
        """Whether nobody shares it; then nobody will from now on."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # where there are no locks nobody knows
            return False
        return True

    def remove(self) -> None:
        """It goes, with all that is in it, and the folders that were made for it."""
        if os.path.isdir(self.path):
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                os.unlink(self.path)
        remove_empty(self._above)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def make_folders(path: str | Path) -> list[str]:
    """Make a folder, and those above it, where the links at `path` lead: those that were not there, innermost first.

    Raises StateError, DiskFull; then none of them is there.
    """
    inner = place(path)
    made: list[str] = []
    try:
        for folder in reversed([inner, *map(str, Path(inner).parents)]):
            if not os.path.isdir(folder):
                with suppress(FileExistsError):
                    os.mkdir(folder)
                    made.insert(0, folder)
    except OSError as error:
        remove_empty(made)
        raise refused(error, path) from error
    return made


def remove_empty(folders: list[str]) -> None:
    """The innermost first; those stay into which somebody has put something."""
    for folder in folders:
        with suppress(OSError):
            os.rmdir(folder)


def must_be_finished(path: str | Path) -> None:
    """Refuse to write over what a filter's run has still to go on with. Raises StateError."""
    near, state = f"{path}.state", f"{place(path)}.state"  # as the user may call it, and where it is
    if os.path.exists(state):
        with suppress(FileNotFoundError):
            Held(path, there=True).close()  # if it is being written, that is what is said
        raise StateError(f"{path}: an unfinished run is here: --resume goes on with it, "
                         f"removing {near if os.path.exists(near) else state} starts anew")


def must_not_be_replaced(path: str | Path) -> None:
    """Refuse to write in place what another run is about to replace, by `whole`. Raises StateError."""
    with suppress(FileNotFoundError):
        Held(f"{place(path)}.partial", there=True, shown=path).close()


# -- whole, or not there -----------------------------------------------------------------------------------------


@contextmanager
def whole(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write into, which gets its name once it is whole: a run that fails leaves what was there.

    A device, a pipe, /dev/stdout are written as they are. Raises StateError, DiskFull.
    """
    if not regular(str(path)):
        with writing(path), open(open_as_it_is(str(path)), "wb") as handle:
            yield handle
        return
    target = place(path)
    must_be_finished(path)
    with being_made(f"{target}.partial", shown=path) as partial, ExitStack() as stack, writing(path):
        with suppress(FileNotFoundError):
            before = Held(target, there=True, shown=path)
            stack.callback(before.close)
            with suppress(PermissionError):  # of file systems that have no modes
                os.fchmod(partial.fd, stat.S_IMODE(os.fstat(before.fd).st_mode))
        os.ftruncate(partial.fd, 0)
        with open(partial.fd, "wb", closefd=False) as handle:
            yield handle
        os.fsync(partial.fd)
        os.replace(partial.path, target)


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to write into, which gets its name once it is whole, as `whole`: a killed run leaves FOLDER.partial."""
    target = place(folder)
    if os.path.ismount(target) or target == os.getcwd():
        raise StateError(f"{folder}: cannot be replaced where it is in use: name a folder in it")
    with being_made(f"{target}.partial", folder=True, shown=folder) as partial, writing(folder):
        for left in Path(partial.path).iterdir():  # by a run that was killed
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield Path(partial.path)
        os.replace(partial.path, target)


@contextmanager
def being_made(path: str, **how: Any) -> Iterator[Held]:
    """What is Held goes, unless the body ends well."""
    held = Held(path, **how)
    try:
        yield held
    except BaseException:
        held.remove()
        raise
    finally:
        held.close()


def even_modes(folder: Path, like: str) -> None:
    """Weights, which safetensors writes for their owner alone, as the file `like` of the folder: by the umask."""
    for file in folder.glob("*.safetensors"):
        file.chmod(stat.S_IMODE((folder / like).stat().st_mode))


def open_as_it_is(path: str) -> int:
    """A descriptor of a device, a pipe, or what this process has open already. Raises StateError."""
    number = descriptor(path)
    try:
        if number is None:
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        sys.stdout.flush()
        return os.dup(number)
    except OSError as error:
        raise refused(error, path) from error
