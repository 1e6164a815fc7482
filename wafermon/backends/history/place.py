"""Whether a directory is one that SQLite can keep its files in. Blocks, and changes nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from wafermon.model.mounts import Mount, mount_of, parse_mounts

MOUNTS = Path("/proc/self/mountinfo")
_OVER_A_NETWORK = re.compile(
    "nfs4?|cifs|smb3|smbfs|ncpfs|afs|ceph|lustre|gpfs|beegfs|pvfs2|coda|9p|davfs|ocfs2|gfs2"
    "|fuse[.](sshfs|glusterfs|cephfs|s3fs|rclone|davfs|mfs|juicefs)|glusterfs"
)


def problem_of(directory: Path, mounts: list[Mount] | None = None) -> str:
    """What keeps files from being written there, and what to do about it; empty where nothing does."""
    place = directory.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        return f"{place} is no directory; move it, or choose another dir"
    if network := network_of(place, mounts):
        return (
            f"{directory} is on a network file system ({network}): SQLite's log needs memory that is shared, and locks that hold,"
            " on one machine; choose a dir on a local disk"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        return f"{place} can't be written by user {os.geteuid()}; chown it to the sidecar's user"
    return ""


def network_of(directory: Path, mounts: list[Mount] | None = None) -> str:
    """The kind of network file system that a directory is on; empty where it is on a local one, as far as can be told."""
    try:
        known = mounts if mounts is not None else parse_mounts(MOUNTS.read_text(errors="replace"))
    except OSError:
        return ""
    mount = mount_of(os.path.realpath(directory), known)
    return mount.kind if mount is not None and _OVER_A_NETWORK.fullmatch(mount.kind) else ""
