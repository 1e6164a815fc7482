"""The one way to a disk for whatever must outlive a crash.

Everything durable takes a `Files` and makes its changes through it alone, so that a test can hand in one that fails, that
stops, or that forgets what was not synced:

- the **journal**: segments (`create`, `write`, `sync`, `cut`), what is set aside (`replace`), deleted segments (`remove`);
- **correlation checkpoints**: `replace`: after it the old or the new content is there under the name, whatever happens;
- **dead letters**: `ours` to list the directory, `open_ours` + `append` + `sync`, `cut` after a failed append, `create` for a
  new file, `remove` for the oldest;
- the **file backend**: the calls one by one (`open`, `append`, `sync`, `cut`, `rename`, `sync_directory`), since it makes many
  names last with one sync of their directory;
- **spill take-up**: `open_ours` (no link, no pipe, nothing that waits), `rename` before reading, `remove` once the lines are
  durable elsewhere;
- the **history**, later: as the journal.

Rules of all of them. A file's bytes last once `sync` has returned. A name lasts, or is gone for good, once `sync_directory` of
its directory has returned. A truncation lasts like bytes: after `sync`. A sync that failed says nothing about what is on the
disk, and a second one that succeeds doesn't either: what was not synced is written again, elsewhere.
"""

from wafermon.files.files import Files, NotOurs, naming

__all__ = ["Files", "NotOurs", "naming"]
