"""Whether file locks do anything where a run lies."""

from __future__ import annotations

import struct
import tempfile
from contextlib import ExitStack
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, whose locks always hold
    fcntl = None

# File systems that lie on another machine: SQLite's write-ahead log needs memory that all of its
# processes share (https://sqlite.org/wal.html), whatever their locks say.
_REMOTE = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "ceph", "fuse.ceph", "lustre", "beegfs",
    "gpfs", "panfs", "afs", "glusterfs", "fuse.glusterfs",
}  # fmt: skip
_MOUNTS = Path("/proc/self/mounts")


def locks_hold(folder: Path) -> bool:
    """Whether a lock on a file in `folder` keeps a second one out.

    They do on local drives. On a drive of another machine they are not relied on. Anywhere two
    descriptors of one file are tried: a drive on which both get the lock has locks that do nothing.

    Args:
        folder: a folder that can be written.
    """
    command = getattr(fcntl, "F_OFD_SETLK", None)
    if _file_system(folder) in _REMOTE:
        return False
    if fcntl is None or command is None:
        return True
    # struct flock: type, whence, start, length, pid.
    exclusive = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
    got = []
    with ExitStack() as stack:
        one = stack.enter_context(tempfile.NamedTemporaryFile(dir=folder, prefix=".locks-"))
        for file in (one, stack.enter_context(open(one.name, "r+b"))):
            try:
                fcntl.fcntl(file, command, exclusive)
                got.append(True)
            except OSError:
                got.append(False)
    return got == [True, False]


def _file_system(folder: Path) -> str:
    """The kind of drive that a folder lies on; empty where that is not known."""
    try:
        mounts = _MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    place, found = folder.resolve(), (0, "")
    for mount in mounts:
        _, point, kind, *_ = mount.split(" ")
        point = Path(point.replace("\\040", " "))
        if place.is_relative_to(point):
            found = max(found, (len(point.parts), kind))
    return found[1]
