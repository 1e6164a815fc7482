"""A clean environment, a scripted sidecar on a real socket, and SDKs that are closed at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_SDK = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_SDK), str(_SDK.parent / "conformance")]
sys.path.append(str(_SDK.parent.parent / "tests" / "support"))

from fake_sidecar import FakeSidecar, Manners  # noqa: E402

from monitoring_sdk import MonitoringSDK  # noqa: E402


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> Iterator[None]:
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("WAFERMON_", "OTEL_", "TRACEPARENT")):
            del os.environ[name]
    os.environ["WAFERMON_SPILL_DIR"] = str(tmp_path / "spill")
    os.environ["PYTHONPATH"] = str(_SDK)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def sidecars() -> Iterator[Callable[..., FakeSidecar]]:
    started: list[FakeSidecar] = []

    def start(*script: Manners, **options: Any) -> FakeSidecar:
        started.append(FakeSidecar(script, **options).start())
        return started[-1]

    yield start
    for sidecar in started:
        sidecar.stop()
    assert not [problem for sidecar in started for problem in sidecar.problems]


@pytest.fixture
def sidecar(sidecars: Callable[..., FakeSidecar]) -> FakeSidecar:
    return sidecars()


@pytest.fixture
def sdks() -> Iterator[Callable[..., MonitoringSDK]]:
    opened: list[MonitoringSDK] = []

    def start(url: str, **options: Any) -> MonitoringSDK:
        opened.append(MonitoringSDK("tests", url, **options))
        return opened[-1]

    yield start
    for sdk in opened:
        sdk.close(0.2)


@pytest.fixture
def sdk(sidecar: FakeSidecar, sdks: Callable[..., MonitoringSDK]) -> MonitoringSDK:
    return sdks(sidecar.url)
