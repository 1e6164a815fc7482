"""A network on which answers get lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from proxy import Proxy


@contextmanager
def lost_replies(proxy: Proxy) -> Iterator[None]:
    """Requests come through, and their answers don't. `100 Continue` is none: the body comes after it."""
    proxy.rule = lambda pair, chunk, from_client: "pass" if from_client or b"100 Continue" in chunk else "cut"
    try:
        yield
    finally:
        proxy.rule = lambda pair, chunk, from_client: "pass"
