"""TLS, for `tls://` alone: importing ssl costs more than all the rest."""

from __future__ import annotations

import os
import ssl
from typing import Callable

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def context(say: Callable[[str], None]) -> ssl.SSLContext:
    """Trusts the system's authorities and WAFERMON_TLS_CA's, and shows the certificate of _CERT and _KEY."""
    made = ssl.create_default_context()
    ca, cert, key = (os.environ.get(f"WAFERMON_TLS_{name}") or None for name in ("CA", "CERT", "KEY"))
    try:
        if ca:
            made.load_verify_locations(ca)
        if cert:
            made.load_cert_chain(cert, key)
    except OSError as error:
        say(f"can't use the files of WAFERMON_TLS_CA, _CERT and _KEY: {error}")
    return made
