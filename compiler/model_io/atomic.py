"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from ...backends.errors import OutputError

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, or write to another disk"),
    errno.EDQUOT: ("your disk quota is used up", "free some space, or write to another disk"),
    errno.EFBIG: ("the file would be larger than allowed", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "write to another folder"),
    errno.EACCES: ("the folder is not writable", "write to another folder"),
    errno.EPERM: ("the folder is not writable", "write to another folder"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter name"),
}


def output_error(path: Path, error: OSError) -> OutputError:
    """``error``, met while writing ``path``, as a sentence with a way out."""
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
    return OutputError(f"{path} cannot be written: {reason}", hint=hint)


class Staged:
    """Files of one folder that are put in place together, the last one last.

    Written under temporary names, each flushed to the disk; :meth:`commit` renames them in the
    order they were written. If anything fails before the last rename, :exc:`KeyboardInterrupt`
    included, leaving the context removes every trace and what stood there before stands still.
    All but the last must have names that are free, so that nothing is replaced before the end.
    """

    def __init__(self) -> None:
        self._files: list[tuple[Path, Path]] = []
        self._placed: list[Path] = []
        self._committing = False

    def write(self, path: Path, pieces: Iterable[bytes | memoryview]) -> None:
        """Write ``pieces`` to what will become ``path``.

        Raises:
            OutputError: They cannot be written.
        """
        temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
        self._files.append((temporary, path))
        try:
            with temporary.open("xb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise output_error(path, error) from error

    def commit(self) -> None:
        """Put all files in place.

        Raises:
            OutputError: They cannot be put there.
        """
        self._committing = True
        last = self._files[-1][1]
        for temporary, path in self._files:
            try:
                if path is not last:
                    self._placed.append(path)
                elif path.exists():
                    temporary.chmod(path.stat().st_mode & 0o777)
                temporary.replace(path)
            except OSError as error:
                raise output_error(path, error) from error
        _flush_folder(last.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # An interrupt may come right after the last rename: then all is in place and stays.
        if self._committing and not self._files[-1][0].exists():
            return
        for path in (*self._placed, *(temporary for temporary, _ in self._files)):
            with contextlib.suppress(OSError):
                path.unlink()


def _flush_folder(folder: Path) -> None:
    """Make the renames in ``folder`` last through a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
