from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from collector import collector, taken  # noqa: F401  # fixtures
from daemon import Daemon
from hypothesis import HealthCheck, settings
from jaeger_server import jaeger  # noqa: F401
from kafka_broker import kafka_broker  # noqa: F401  # fixtures
from moto_server import log_group, moto_server  # noqa: F401  # fixtures
from postgres import database, postgres, way  # noqa: F401  # fixtures
from s3_server import bucket, s3_server  # noqa: F401  # fixtures

# What is started in the background ignores SIGINT, and hands that on to all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How quickly examples are made says how busy the machine is, not whether the code is right.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that all users can reach. pytest keeps its own from them, and closes it again when another run starts."""
    with TemporaryDirectory(prefix="wafermon-test-", dir="/tmp") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running sidecar that writes to JSONL files; its log must hold no traceback at the end."""
    with Daemon(tmp_path) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()
