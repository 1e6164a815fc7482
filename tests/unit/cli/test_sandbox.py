"""What a service manager's sandbox forbids is told before a backend meets it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from daemon import ROOT

from wafermon.backends import find_plugins
from wafermon.cli import check as check_command
from wafermon.cli import sandbox
from wafermon.cli.sandbox import of_process, of_unit, rules_of
from wafermon.config import Config, check
from wafermon.model.mounts import Mount, mount_of, parse_mounts

MOUNTINFO = """\
22 28 0:20 / /proc rw,nosuid - proc proc rw
28 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw
40 28 8:1 /var/lib/wafermon /var/lib/wafermon rw,relatime shared:1 - ext4 /dev/sda1 rw
41 28 8:2 / /data\\040one rw,relatime - ext4 /dev/sdb1 ro
nonsense
"""


def config(path: str, *, journal: str = "/var/lib/wafermon/journal") -> Config:
    text = f"""
journal: {{dir: {journal}, spill_dir: /var/spool/wafermon}}
backends: {{files: {{plugin: filesystem, path: "{path}/{{service}}.jsonl"}}}}
"""
    return check(text.encode(), "wafermon.yaml", find_plugins().factories, {})


def test_mounts_are_read_with_their_options_and_those_of_the_file_system() -> None:
    mounts = parse_mounts(MOUNTINFO)
    assert mount_of("/var/lib/wafermon/journal", mounts) == Mount("/var/lib/wafermon", read_only=False, kind="ext4")
    assert mount_of("/var/lib/wafermonitor", mounts) == Mount("/", read_only=True, kind="ext4")
    assert mount_of("/data one/x", mounts) == Mount("/data one", read_only=True, kind="ext4")


def test_a_running_sidecar_that_may_not_write_to_a_backends_directory() -> None:
    mounts = {mount.path: mount.read_only for mount in parse_mounts(MOUNTINFO)} | {"/var/spool/wafermon": False}
    process = {"pid": 7, "systemd": True, "mounts": mounts}
    [found] = of_process(config("/data/logs"), process)
    assert found.state == "error"
    assert found.what.startswith("backend files: /data/logs is read-only for the sidecar that runs (process 7)")
    assert "ReadWritePaths=/data/logs" in found.do
    assert list(of_process(config("/var/lib/wafermon/logs"), process)) == []


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A directory of units, with the one that comes with wafermon."""
    unit = (ROOT / "deploy" / "systemd" / "wafermon.service").read_text()
    (tmp_path / "wafermon.service").write_text(unit)
    return tmp_path


FILE = Path("/etc/wafermon/wafermon.yaml")


@pytest.mark.parametrize(
    ("path", "setting"),
    [
        ("/data/logs", "ProtectSystem=strict"),
        ("/home/logs", "ProtectHome=yes"),
        ("/var/log/other", "ProtectSystem=strict"),
    ],
)
def test_what_the_documented_unit_forbids(units: Path, path: str, setting: str) -> None:
    [found] = of_unit(config(path), FILE, [units])
    assert found.what == f"backend files: {path} could not be written by wafermon.service: its {setting} forbids that"
    assert f"ReadWritePaths={path}" in found.do


def test_what_the_documented_unit_allows(units: Path) -> None:
    assert list(of_unit(config("/var/log/wafermon/logs"), FILE, [units])) == []


def test_a_drop_in_may_allow_more(units: Path) -> None:
    drop_ins = units / "wafermon.service.d"
    drop_ins.mkdir()
    (drop_ins / "override.conf").write_text("[Service]\nReadWritePaths=/data/logs\n")
    assert list(of_unit(config("/data/logs"), FILE, [units])) == []
    (drop_ins / "zzz.conf").write_text("[Service]\nReadWritePaths=\n")
    assert [found.what.partition(":")[0] for found in of_unit(config("/data/logs"), FILE, [units])] == [
        "the spill folder",
        "backend files",
    ]


def test_a_unit_of_another_config_says_nothing(units: Path) -> None:
    assert list(of_unit(config("/data/logs"), Path("/srv/other.yaml"), [units])) == []
    assert list(of_unit(config("/data/logs"), FILE, [units / "empty"])) == []


def test_check_warns_of_what_the_unit_of_this_config_forbids(
    units: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(
        "backends: {files: {plugin: filesystem, path: /data/logs/x.jsonl}}\njournal: {dir: /var/lib/wafermon/j}\n"
    )
    unit = units / "wafermon.service"
    monkeypatch.setattr(sandbox, "of_unit", partial(of_unit, directories=[units]))
    assert "warning" not in CliRunner().invoke(check_command.command, [str(file)]).output
    unit.write_text(unit.read_text().replace(str(FILE), str(file)))
    checked = CliRunner().invoke(check_command.command, [str(file)])
    assert checked.exit_code == 0
    assert f"{file}: warning: backend files: /data/logs could not be written by wafermon.service" in checked.output
    assert "ReadWritePaths=/data/logs" in checked.output


def test_without_a_sandbox_all_is_allowed() -> None:
    assert rules_of("[Service]\nExecStart=/bin/true\n") == ([], {})
