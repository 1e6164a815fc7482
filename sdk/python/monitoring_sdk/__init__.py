"""The Python SDK of wafermon: events, metrics, progress, resources and spans for the sidecar.

What it promises:

- A call never blocks on the network and never raises because of it; only a programming error (an unknown level, a
  percent of 300) raises, at the call. What a call was given is fixed when it returns.
- A message is kept until the sidecar acknowledges it. While that is away, up to `buffer` messages wait in memory;
  what does not fit goes to spill files, and only when those are full or can't be written is a message dropped, which
  is counted.
- Threads may share an SDK, and signal handlers may use it. A forked child starts empty, with a connection and a client
  of its own, whether Python forked or a C library did. An SDK that is dropped without `close()` is closed.
- `get_stats()` adds up: called = acked + rejected + dropped + waiting + handed_over.

How it does so, from a call to the socket:

- `client.py` has the calls. They check what they are given (`checks.py`), note the time and the span they are made in
  (`trace.py`), and put it all into an inbox; that is the whole of a call's cost.
- `sender.py` is the one thread behind the inbox, started by the first call: it encodes messages (`encoding.py`) and
  decides where they go.
- `stream.py` is one connection with its window of numbered messages; `peer.py` knows the sidecar; `spill.py` the files.
- `process.py` is about forks and exits.
- `tls.py`, `frames.py` (compression), `usage.py` and `decorated.py` (spans around coroutine functions and generators)
  are imported by those alone who use them.

Programs use `MonitoringSDK` and nothing else of it.
"""

from __future__ import annotations

from .client import MonitoringSDK
from .peer import VERSION as __version__

__all__ = ["MonitoringSDK", "__version__"]
