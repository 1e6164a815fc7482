"""`wafermon doctor`, as a shell runs it: each trouble is really there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMAND, environment, wafermon
from daemon import until
from ports import free_port
from served import Served

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: "tcp:{http}:interface=127.0.0.1"
journal: {{dir: {directory}/journal, spill_dir: {directory}/spill}}
backends:
  files: {{plugin: filesystem, path: "{directory}/logs/{{service}}.jsonl"}}
{more}
"""


def write(directory: Path, *, listen: str = "", more: str = "", **changes: object) -> Path:
    spill = directory / "spill"
    spill.mkdir(exist_ok=True)
    spill.chmod(0o3777)
    path = directory / "wafermon.yaml"
    places = {"port": free_port(), "http": free_port(), "directory": directory, **changes}
    path.write_text(CONFIG.format(listen=listen, more=more, **places))
    return path


def findings(config: Path) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """The exit status, and what was found with what to do, by state."""
    done = wafermon("doctor", "--json", "--config", config)
    assert done.stderr == ""
    found: dict[str, list[tuple[str, str]]] = {"ok": [], "warning": [], "error": []}
    for one in json.loads(done.stdout):
        found[one["state"]].append((one["what"], one["do"]))
    return done.returncode, found


def test_nothing_wrong(tmp_path: Path) -> None:
    status, found = findings(write(tmp_path))
    assert (status, found["error"]) == (0, [])
    said = " ".join(what for what, _ in found["ok"])
    for word in (
        "listened on",
        "backend files: can be used",
        "the journal: ",
        "spill folder",
        "files may be open",
        "a sync takes",
    ):
        assert word in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spill", "wafermon.yaml"], "it left something behind"


def test_the_default_config_in_a_directory_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "doctor"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert "the config that is the default is good" in done.stdout


def test_a_bad_config_is_told_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, more="nonsense: 1")
    status, found = findings(path)
    assert status == 1
    assert found["error"][0][0].startswith(f"{path}:7: nonsense: unknown key")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, found = findings(write(tmp_path, port=port))
    assert status == 1
    [(what, do)] = found["error"]
    assert what == f"listen tcp:{port}:interface=127.0.0.1 can't be listened on: Address already in use"
    assert "ss -ltnp" in do


def test_a_socket_without_a_directory(tmp_path: Path) -> None:
    status, found = findings(write(tmp_path, listen=f', "unix:{tmp_path}/run/wafermon.sock:mode=660"'))
    assert status == 1
    assert f"{tmp_path}/run can't be written, or is not there" in found["error"][0][0]
    assert "tmpfiles.d" in found["error"][0][1]


def test_places_that_can_not_be_written(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "journal").write_text("a file")
    (tmp_path / "logs").write_text("a file")
    status, found = findings(path)
    assert status == 1
    assert [what for what, _ in found["error"]] == [
        f"backend files: {tmp_path}/logs is no directory; move it, or choose another path",
        f"the journal: {tmp_path}/journal is no directory",
    ]


def test_what_others_could_read_or_remove(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret-token-of-32-characters-xx\n")
    tokens.chmod(0o644)
    listen = f", {{endpoint: 'tcp:{free_port()}:interface=127.0.0.1', token_file: {tokens}}}"
    path = write(tmp_path, listen=listen)
    (tmp_path / "journal").mkdir(mode=0o755)
    (tmp_path / "spill").chmod(0o777)
    status, found = findings(path)
    assert status == 1
    assert found["error"] == [(f"all users can read token_file {tokens}", f"chmod o= {tokens}")]
    warned = dict(found["warning"])
    assert warned[f"the journal: others can look into {tmp_path}/journal"] == f"chmod 700 {tmp_path}/journal"
    assert warned[f"anybody can remove files from the spill folder {tmp_path}/spill"].endswith(
        f"chmod +t {tmp_path}/spill"
    )


def test_a_spill_folder_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "spill").rmdir()
    _, found = findings(path)
    assert found["warning"][0][1] == (
        f"make it so that every user can write, as the sidecar's user: install -d -m 3777 -o wafermon -g wafermon {tmp_path}/spill"
    )


def test_too_few_descriptors(tmp_path: Path) -> None:
    command = ["bash", "-c", 'ulimit -n 200; exec "$@"', "bash", *COMMAND, "doctor", "--config", str(write(tmp_path))]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "warning  200 files may be open, but limits.max_connections may need 10512" in done.stdout
    assert "-> LimitNOFILE=10512 in the unit" in done.stdout


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    import os
    import time

    path = write(tmp_path)
    (tmp_path / "journal").mkdir(mode=0o700)
    segment = tmp_path / "journal" / "000000000001.segment"
    segment.touch()
    os.utime(segment, (time.time() + 7_200,) * 2)
    status, found = findings(path)
    assert status == 1
    assert "s in the future: the clock was set back" in found["error"][0][0]


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    _, found = findings(write(tmp_path).parent / "wafermon.yaml")
    assert any("its disk has" in what for what, _ in found["ok"])
    path = write(tmp_path)
    path.write_text(path.read_text().replace("journal: {", "journal: {max_bytes: 1000000GiB, "))
    _, found = findings(path)
    assert any("the journal may grow by" in what and "left" in what for what, _ in found["warning"])


def test_a_database_that_does_not_answer(tmp_path: Path) -> None:
    pytest.importorskip("txpostgres")
    path = write(tmp_path)
    dsn = f"postgresql://wafermon@127.0.0.1:{free_port()}/wafermon"
    path.write_text(path.read_text().replace("backends:", f"backends:\n  db: {{plugin: timescaledb, dsn: '{dsn}'}}"))
    status, found = findings(path)
    assert status == 1
    assert "backend db: can't connect to wafermon at 127.0.0.1:" in found["error"][0][0]
    assert "Connection refused" in found["error"][0][0]


def test_a_sidecar_that_runs_is_asked(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with Served(tmp_path) as served:
        client = served.client()
        client.send([1])
        client.until_acked(1)
        until(lambda: served.request("/health/ready")[0] == 503, "unready")
        done = subprocess.run(
            [*COMMAND, "doctor", "--config", "wafermon.yaml"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "a sidecar 2.0.0 runs" in done.stdout
        assert "error    the backend files fails: " in done.stdout
        assert "can't be listened on" not in done.stdout
        (tmp_path / "logs").unlink()
        client.close()


@pytest.mark.skipif(os.getuid() != 0, reason="becoming other users needs root")
@pytest.mark.parametrize(("mode", "owner", "problem"), [
    (0o3777, 65_533, ""),
    (0o1777, 65_533, "Permission denied"),
    (0o1777, 0, ""),
    (0o3755, 65_533, "other users spill elsewhere"),
])  # fmt: skip
def test_the_spill_folder_is_tried_by_two_users(public_path: Path, mode: int, owner: int, problem: str) -> None:
    config = write(public_path)
    os.chown(public_path / "spill", owner, owner)
    (public_path / "spill").chmod(mode)
    _, found = findings(config)
    said = [(state, what) for state, all_of in found.items() for what, _ in all_of if f"{public_path}/spill" in what]
    [(state, what)] = said
    assert state == ("error" if problem == "Permission denied" else "ok")
    assert problem in what
    assert list((public_path / "spill").iterdir()) == []


def asked(directory: Path, *arguments: str, **variables: str) -> str:
    """What it says in that directory."""
    command = [*COMMAND, "doctor", *arguments]
    done = subprocess.run(
        command, cwd=directory, env=environment(**variables), capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def test_the_limits_are_those_of_the_sidecar_and_not_of_the_shell(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.command = ["bash", "-c", 'ulimit -n 300; exec "$@"', "bash", *served.command]
    with served:
        said = asked(tmp_path, "--config", "wafermon.yaml")
    assert "300 files may be open by the sidecar that runs, but limits.max_connections may need" in said


def test_without_a_config_it_takes_that_of_the_sidecar_that_runs(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Served(tmp_path) as served:
        url = f"http://127.0.0.1:{served.http_port}"
        said = asked(elsewhere, WAFERMON_HTTP=url)
        assert f"the config {tmp_path}/wafermon.yaml is good" in said
        assert f"the journal: {tmp_path}/journal can be written" in said, "paths are as the sidecar has them"
        other = tmp_path / "other.yaml"
        other.write_text((tmp_path / "wafermon.yaml").read_text())
        said = asked(tmp_path, "--config", "other.yaml")
        assert f"the sidecar that runs has another config: {tmp_path}/wafermon.yaml" in said


def test_another_program_on_the_port_is_no_sidecar(tmp_path: Path) -> None:
    path = write(tmp_path)
    number = next(line for line in path.read_text().splitlines() if line.startswith("http:")).split(":")[2]
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", number],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: socket.socket().connect_ex(("127.0.0.1", int(number))) == 0, "the other program")
        said = asked(tmp_path, "--config", "wafermon.yaml")
        assert "a sidecar runs, but does not tell how it is" in said
        assert "the journal: " in said, "the other checks are made"
    finally:
        server.kill()
        server.wait()


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_what_the_sidecar_may_not_write_to_is_told_before_a_backend_meets_it(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
    if subprocess.run(["unshare", "-m", "sh", "-c", mount, str(closed)], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount")
    served = Served(tmp_path)
    served.command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', str(closed), *served.command]
    with served:
        # The operator looks at a config that would send messages there, before it is put in force.
        text = (tmp_path / "wafermon.yaml").read_text()
        new = "backends:\n  more: {plugin: filesystem, path: 'closed/{service}.jsonl'}\n"
        (tmp_path / "new.yaml").write_text(text.replace("backends:\n", new))
        said = asked(tmp_path, "--config", "new.yaml")
        assert f"error    backend more: {closed} is read-only for the sidecar that runs" in said
        assert "backend files: " + str(tmp_path) not in said
