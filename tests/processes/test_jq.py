"""What is stored is JSON for a program of others."""

from __future__ import annotations

import shutil
import subprocess

from sent_lines import GOOD, NOW, ORIGIN

from wafermon.wire.lines import LineReader


def test_jq_reads_what_is_stored() -> None:
    jq = shutil.which("jq")
    assert jq, "jq is missing: apt-get install jq"
    lines = b"".join(LineReader(ORIGIN).read_line(data, NOW)[0] + b"\n" for data in GOOD)
    done = subprocess.run([jq, "-c", "."], input=lines, capture_output=True, timeout=60, check=True)
    assert len(done.stdout.splitlines()) == len(GOOD)
