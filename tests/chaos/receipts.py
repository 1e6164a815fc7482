"""What the sidecar's receipts say, beside what the oracle counted."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from claims import Claim
from oracle import Verdict


class _OverUnix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


def receipt(path: Path, trace_id: str) -> dict[str, Any]:
    """Of a trace; empty where it is not known. `path` is the sidecar's socket for HTTP."""
    connection = _OverUnix(path)
    try:
        connection.request("GET", f"/api/traces/{quote(trace_id, safe='')}/receipt")
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        return found if answer.status == 200 else {}
    finally:
        connection.close()


def differences(claims: Iterable[Claim], verdicts: Mapping[str, Verdict], path: Path) -> list[str]:
    """Where receipts and count differ. `verdicts` are by backend; each service is a trace of its own."""
    found = []
    for claim in claims:
        if not claim.claimed:
            continue
        said = receipt(path, claim.service)
        counted = {name: verdict.by_service[claim.service] for name, verdict in verdicts.items()}
        received = max(counted.values())
        expected: dict[str, Any] = {
            "received": received,
            "complete": claim.closed,
            "sent": claim.claimed if claim.closed else None,
            "rejected": 0,
            "dropped": 0,
            "gaps": [],
            "unnumbered": 0,
            "unjudged": 0,
            "backends": {
                name: {"routed": received, "stored": stored, "dead": 0, "skipped": 0}
                for name, stored in counted.items()
            },
        }
        wrong = {name: said.get(name) for name, value in expected.items() if said.get(name) != value}
        if wrong or bool(said.get("unclosed")) is claim.closed:
            found.append(
                f"{claim.service}: the receipt says {wrong}, the count {expected}; unclosed {said.get('unclosed')}"
            )
    return found


def say_final(address: tuple[str, int], claim: Claim, client: str) -> None:
    """The closing stats line of a stream. Raises OSError where that fails."""
    last = claim.claimed
    stats = {
        "type": "stats", "service": claim.service, "client": client, "seq": last + 1, "called": last, "dropped": 0, "unsent": 0,
        "last": last, "streams": [], "final": True,
    }  # fmt: skip
    with socket.create_connection(address, timeout=30) as connection:
        hello = {"v": 2, "type": "hello", "client": client, "service": claim.service, "ack": True}
        connection.sendall("".join(json.dumps(line) + "\n" for line in (hello, stats)).encode())
        replies = connection.makefile("rb")
        while reply := json.loads(replies.readline() or b"null"):
            if reply.get("type") == "ack" and reply["seq"] == last + 1:
                claim.closed = True
                return
    raise ConnectionError("the sidecar ended the connection")
