"""Another config for a running sidecar: whole or not at all, and nobody notices but by what it says."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from daemon import Client, Daemon, read_lines, until
from ports import free_port
from twisted.internet.task import Clock

from wafermon.backends import find_plugins
from wafermon.config import Watch, check, differences, needs_restart

RELOADS = int(os.environ.get("WAFERMON_TEST_RELOADS", "100"))

TEMPLATE = """
listen: [{listen}]
http: {http}
{hooks}
reload: {reload}
journal: {{dir: {journal}, segment_bytes: 1MiB, max_bytes: {max_bytes}, spill_dir: spill}}
limits: {{{limits}}}
correlation: {{{correlation}}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}{files}}}
{backends}
routes: {routes}
dead_letters: {{dir: {letters}}}
"""
SECOND = '  second: {{plugin: filesystem, path: "second/{{service}}.jsonl", batch: {{age: 20ms}}, on_remove: {on_remove}{more}}}'
BOTH = "[{to: [files, second]}]"


def second(on_remove: str = "drain", more: str = "") -> str:
    return SECOND.format(on_remove=on_remove, more=more)


class Reloading(Daemon):
    """A daemon whose config is written again and again."""

    def __init__(self, directory: Path, **parts: str) -> None:
        super().__init__(directory)
        self.file = directory / "wafermon.yaml"
        self.file.write_text(self.config(**parts))

    def config(self, **parts: str) -> str:
        defaults = {
            "listen": f'"tcp:{self.port}:interface=127.0.0.1"', "reload": "signal", "journal": "journal",
            "max_bytes": "64MiB", "limits": "", "correlation": "", "files": "", "backends": "",
            "routes": "[{to: [files]}]", "letters": "dead-letters", "http": "false", "hooks": "",
        }  # fmt: skip
        return TEMPLATE.format(**{**defaults, **parts})

    def write(self, **parts: str) -> None:
        """As a deployment does: a new file in the place of the old."""
        new = self.file.with_suffix(".new")
        new.write_text(self.config(**parts))
        new.replace(self.file)

    def hup(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def outcomes(self, *words: str) -> int:
        words = words or ("is in force: ", "says what was in force", "is refused; ")
        return sum(self.log().count(one) for one in words)

    def reload(self, **parts: str) -> str:
        """Answers with what the log says of it."""
        return self.after(lambda: (self.write(**parts), self.hup()))  # type: ignore[func-returns-value]

    def after(self, change: Callable[[], Any], *words: str) -> str:
        """The same for any change; `words` are the outcomes to wait for."""
        outcomes, length = self.outcomes(*words), len(self.log())
        change()
        until(lambda: self.outcomes(*words) > outcomes, "the reload")
        return self.log()[length:]

    def stored_in(self, directory: str) -> list[dict[str, Any]]:
        return [line for path in sorted((self.directory / directory).glob("*.jsonl")) for line in read_lines(path)]


# Refusals

BAD = [
    ("not YAML", {"limits": "]"}, "while parsing"),
    ("an unknown key", {"limits": "max_conections: 5"}, "limits.max_conections: unknown key"),
    ("a bad value", {"limits": "idle_timeout: soon"}, "limits.idle_timeout: expected a time"),
    ("a route to no backend", {"routes": "[{to: [files, dn]}]"}, "no backend 'dn'"),
    ("an unknown plugin", {"backends": "  x: {plugin: redis}"}, "no plugin 'redis' is installed"),
    ("overlapping files", {"backends": '  x: {plugin: filesystem, path: "logs/{service}.txt"}'}, "overlaps with"),
    ("a journal elsewhere", {"journal": "other"}, "journal.dir: can't change from journal to other while wafermon runs"),
    ("dead letters elsewhere", {"letters": "other"}, "dead_letters.dir: can't change from dead-letters to other"),
    ("no listener", {"listen": ""}, "listen: expected at least one endpoint"),
    ("TLS without certificate", {"listen": '"tls:0"'}, "listen[0]: missing; 'tls:0' needs a certificate and a key"),
    ("a certificate that is not there", {"listen": '{endpoint: "tls:0", certificate: no.pem, key: no.key}'},
     "tls:0: key no.key: No such file or directory"),
    ("tokens that are not there", {"listen": '{endpoint: "tcp:0", token_file: no}'}, "token_file no: No such file"),
    ("a socket in no directory", {"listen": '"unix:no/w.sock"'}, "can't listen on unix:no/w.sock: there is no directory"),
    ("an unknown user", {"listen": '{endpoint: "unix:w.sock", owner: nobody-here}'}, "there is no user 'nobody-here'"),
    ("an address of another machine", {"listen": '"tcp:0:interface=192.0.2.1"'}, "Cannot assign requested address"),
]  # fmt: skip


def test_a_bad_config_is_refused_whole_and_says_why(tmp_path: Path) -> None:
    with Reloading(tmp_path) as daemon, socket.create_server(("127.0.0.1", 0)) as taken:
        client = daemon.client()
        busy = ("a port that is taken", {"listen": f'"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"'}, "in use")
        for seq, (name, parts, message) in enumerate([*BAD, busy], 1):
            said = daemon.reload(**{"backends": second(), "routes": BOTH, **parts})
            assert "wafermon.yaml is refused; what was in force stays so" in said, name
            assert message in said, name
            assert "Traceback" not in said, name
            client.send([seq])
            client.until_acked(seq)
            assert daemon.client().welcome["type"] == "welcome"
        assert "in force: limits" in daemon.reload(limits="max_connections: 77")
        until(lambda: len(daemon.stored()) == len(BAD) + 1)
        assert daemon.stored_in("second") == []
        assert not (tmp_path / "other").exists()
    assert "Traceback" not in daemon.log()


def config(text: str) -> Any:
    return check(text.encode(), "w.yaml", find_plugins().factories, {})


def test_what_differs() -> None:
    one = 'backends: {a: {plugin: filesystem, path: "a/{service}"}, b: {plugin: filesystem, path: "b/{service}"}}\n'
    two = 'backends: {a: {plugin: filesystem, path: "x/{service}"}, c: {plugin: filesystem, path: "c/{service}"}}\n'
    assert differences(config(one), config(one)) == []
    found = differences(config(one), config(two + "limits: {max_connections: 3}\nreload: signal\n"))
    assert found == ["limits", "reload", "routes", "backends.a", "backends.b (removed: keep)", "backends.c (new)"]
    moved = config(one + "journal: {dir: other}\n")
    assert [str(fault) for fault in needs_restart(config(one), moved, "w.yaml")] == [
        f"w.yaml: {key}: can't change from {old} to {new} while wafermon runs; stop it, move the directory, and start it"
        for key, old, new in (
            ("journal.dir", "wafermon-data/journal", "other"),
            ("dead_letters.dir", "wafermon-data/dead-letters", "dead-letters"),
        )
    ]


# The watch


def looked(path: Path, changes: Callable[[], Any], looks: int = 3) -> list[int]:
    """At which looks after a change it was noticed."""
    noticed: list[int] = []
    clock = Clock()
    watch = Watch(path, lambda: noticed.append(round(clock.seconds() / 0.5)), clock)
    watch.start()
    clock.pump([0.5] * 4)
    assert noticed == []
    changes()
    clock.pump([0.5] * looks)
    watch.stop()
    assert not clock.getDelayedCalls()
    return noticed


def test_a_file_that_is_renamed_over_is_noticed_at_once_and_one_that_is_written_once_it_rests(tmp_path: Path) -> None:
    path, new = tmp_path / "w.yaml", tmp_path / "new"
    path.write_text("a")
    new.write_text("b")
    assert looked(path, lambda: new.replace(path)) == [5]
    assert looked(path, lambda: path.write_text("cc")) == [6]
    assert looked(path, lambda: None) == []


def test_symlinks_that_are_swapped_as_kubernetes_does_are_noticed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.yaml").write_text("same")
    (tmp_path / "..data").symlink_to("one")
    path = tmp_path / "w.yaml"
    path.symlink_to("..data/w.yaml")

    def swap() -> None:
        (tmp_path / "..tmp").symlink_to("two")
        (tmp_path / "..tmp").replace(tmp_path / "..data")

    assert looked(path, swap) == [5]


def test_a_file_that_goes_and_comes_back_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("a")
    assert looked(path, path.unlink) == [5]
    assert looked(path, lambda: path.write_text("a")) == [5]


def test_a_file_that_never_rests_is_read_nevertheless(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("")
    noticed: list[int] = []
    clock = Clock()
    watch = Watch(path, lambda: noticed.append(1), clock)
    watch.start()
    for number in range(25):
        path.write_text("x" * number)
        clock.advance(0.5)
    watch.stop()
    assert len(noticed) == 2


def test_a_running_sidecar_sees_its_file_change(tmp_path: Path) -> None:
    with Reloading(tmp_path, reload="watch") as daemon:
        said = daemon.after(lambda: daemon.write(reload="watch", limits="max_connections: 9"))
        assert "in force: limits" in said
        said = daemon.after(lambda: daemon.file.write_text("nonsense"))
        assert "is refused" in said
        assert "in force: limits, reload" in daemon.after(lambda: daemon.write(reload="signal"))
        before = daemon.outcomes()
        daemon.write(reload="watch")
        time.sleep(1.5)
        assert daemon.outcomes() == before
        assert "in force: reload" in daemon.after(daemon.hup)


# Backends


def test_a_new_backend_gets_what_comes_after_it(tmp_path: Path) -> None:
    with Reloading(tmp_path) as daemon:
        client = daemon.client()
        client.send(range(1, 11))
        client.until_acked(10)
        assert "backends.second (new)" in daemon.reload(backends=second(), routes=BOTH)
        client.send(range(11, 21))
        client.until_acked(20)
        until(lambda: len(daemon.stored_in("second")) == 10 and len(daemon.stored()) == 20)
        assert [line["seq"] for line in daemon.stored_in("second")] == list(range(11, 21))


@pytest.mark.parametrize("on_remove", ["keep", "drain", "discard"])
def test_a_backend_that_is_removed_with_a_backlog(tmp_path: Path, on_remove: str) -> None:
    blocked = tmp_path / "second"
    blocked.write_text("a file where a directory should be")
    with Reloading(tmp_path, backends=second(on_remove), routes=BOTH) as daemon:
        client = daemon.client()
        client.send(range(1, 11))
        client.until_acked(10)
        until(lambda: "second can't" in daemon.log(), "the trouble")
        assert f"backends.second (removed: {on_remove})" in daemon.reload()
        client.send(range(11, 21))
        client.until_acked(20)
        blocked.unlink()
        if on_remove == "keep":
            until(lambda: "second is gone; its cursor stays" in daemon.log())
        else:
            until(lambda: "second is gone, and its cursor with it" in daemon.log())
        assert len(daemon.stored_in("second")) == (10 if on_remove == "drain" else 0)
        daemon.reload(backends=second(on_remove), routes=BOTH)
        client.send(range(21, 31))
        client.until_acked(30)
        expected = {"keep": [*range(1, 11), *range(21, 31)], "drain": [*range(1, 11), *range(21, 31)]}
        wanted = expected.get(on_remove, list(range(21, 31)))
        until(lambda: len(daemon.stored_in("second")) >= len(wanted))
        time.sleep(0.3)
        assert [line["seq"] for line in daemon.stored_in("second")] == wanted


def test_a_backend_that_comes_back_while_it_drains(tmp_path: Path) -> None:
    blocked = tmp_path / "second"
    blocked.write_text("a file where a directory should be")
    with Reloading(tmp_path, backends=second(), routes=BOTH) as daemon:
        client = daemon.client()
        client.send(range(1, 11))
        client.until_acked(10)
        daemon.reload()
        client.send(range(11, 21))
        client.until_acked(20)
        daemon.reload(backends=second(more=", rotate_bytes: 1GiB"), routes=BOTH)
        client.send(range(21, 31))
        client.until_acked(30)
        blocked.unlink()
        until(lambda: len(daemon.stored_in("second")) == 20)
        assert [line["seq"] for line in daemon.stored_in("second")] == [*range(1, 11), *range(21, 31)]


def test_other_options_take_over_at_the_cursor(tmp_path: Path) -> None:
    with Reloading(tmp_path) as daemon:
        client = daemon.client()
        for number in range(6):
            client.send(range(number * 100 + 1, number * 100 + 101))
            assert "backends.files" in daemon.reload(files=f", rotate_bytes: {number + 1}KiB")
        client.until_acked(600)
        until(lambda: len(daemon.stored_in("logs")) == 600)
        assert Counter(line["seq"] for line in daemon.stored_in("logs")) == Counter(range(1, 601))


# Listeners and limits


def test_listeners_come_and_go_and_drop_nobody(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    ours.issue("server", server=True)
    path, other = tmp_path / "w.sock", free_port()
    with Reloading(tmp_path) as daemon:
        plain = f'"tcp:{daemon.port}:interface=127.0.0.1"'
        clients = [daemon.client()]

        def all_go_on() -> None:
            for client in clients:
                seq = client.welcome["acked"] + 1
                client.welcome["acked"] = seq
                client.send([seq])
                client.until_acked(seq)

        daemon.reload(listen=f'{plain}, "unix:{path}:mode=600", "tcp:{other}:interface=127.0.0.1"')
        clients += [Client(str(path)), Client(("127.0.0.1", other))]
        all_go_on()
        daemon.reload(listen=f'{plain}, "unix:{path}:mode=666"')
        assert path.stat().st_mode & 0o777 == 0o666
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other))
        all_go_on()

        daemon.reload(listen=f'"tcp:{daemon.port}", "tcp:{other}:interface=127.0.0.1"')
        assert not path.exists()
        clients += [Client(("127.0.0.2", daemon.port)), Client(("127.0.0.1", other))]
        all_go_on()
        daemon.reload(listen=f"{plain}")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", daemon.port))
        clients.append(daemon.client())
        all_go_on()

        tls = f'{{endpoint: "tls:{daemon.port}:interface=127.0.0.1", certificate: server.pem, key: server.key}}'
        daemon.reload(listen=tls)
        clients.append(Client(("127.0.0.1", daemon.port), tls=ours.context()))
        all_go_on()
        daemon.reload(listen=f"{plain}")
        clients.append(daemon.client())
        all_go_on()


def test_who_is_not_admitted_any_more_goes(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("secret\n")
    with Reloading(tmp_path) as daemon:
        without, having = daemon.client(), daemon.client(token="secret")
        daemon.reload(listen=f'{{endpoint: "tcp:{daemon.port}:interface=127.0.0.1", token_file: tokens}}')
        assert without.reply() == {}
        assert having.reply() == {}, "it was nobody in particular before"
        assert daemon.client().welcome["code"] == "unauthorized"
        again = daemon.client(token="secret")
        daemon.reload()
        again.send([1])
        again.until_acked(1)


def test_limits_change_for_who_comes_next(tmp_path: Path) -> None:
    with Reloading(tmp_path, limits="max_line_bytes: 1MiB") as daemon:
        client = daemon.client()
        daemon.reload(limits="max_line_bytes: 64KiB, max_connections: 2")
        client.send([1], context={"fill": "x" * 500_000})
        assert client.until_acked(1) == [], "its welcome said 1 MiB"
        newer = daemon.client()
        assert newer.welcome["max_line"] == 65536
        assert daemon.client().welcome["code"] == "too_many_connections"
        daemon.reload(limits="max_line_bytes: 64KiB, messages_per_second: 50")
        newer.send(range(1, 101))
        newer.until_acked(100)
        begun = time.monotonic()
        newer.send([101])
        newer.until_acked(101)
        assert time.monotonic() - begun > 0.5


# Under load


class Steady:
    """A client on one connection that must hold through everything."""

    def __init__(self, daemon: Daemon, number: int) -> None:
        self.service = f"steady-{number}"
        self.sent = self.acked = 0
        self.failure = ""
        self._stopping = False
        self._client = daemon.client(service=self.service)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping:
                first = self.sent + 1
                self.sent += random.randrange(1, 200)
                self._client.send(range(first, self.sent + 1), service=self.service)
                assert self._client.until_acked(self.sent) == []
                self.acked = self.sent
                time.sleep(random.uniform(0, 0.02))
        except Exception as error:  # noqa: BLE001  # told by join
            self.failure = repr(error)

    def join(self) -> None:
        self._stopping = True
        self._thread.join(60)
        assert self.failure == ""
        assert not self._thread.is_alive()


def random_config(daemon: Reloading, extra_port: int) -> tuple[dict[str, str], bool]:
    """One that is as good as any, and whether it routes to the second backend."""
    plain = f'"tcp:{daemon.port}:interface=127.0.0.1"'
    parts = {
        "listen": random.choice([plain, f'{plain}, "tcp:{extra_port}"', f'{plain}, "unix:w.sock:mode=600"']),
        "limits": random.choice(["", "first_line: 10s, ", "idle_timeout: 5m, partial_bytes: 1MiB, "]),
        "correlation": random.choice(["", "trace_idle: 1m", "max_traces: 500"]),
        "max_bytes": random.choice(["64MiB", "32MiB"]),
        "files": random.choice(["", ", rotate_bytes: 64MiB", ", retry: {max: 1s}"]),
    }
    kind = random.choice(["none", "configured", "routed", "routed"])
    if kind != "none":
        on_remove = random.choice(["keep", "drain"])
        parts["backends"] = second(on_remove, random.choice(["", ", rotate_bytes: 64MiB"]))
    if kind == "routed":
        parts["routes"] = BOTH
    return parts, kind == "routed"


def test_random_reloads_under_load_lose_nothing_double_nothing_and_drop_nobody(tmp_path: Path) -> None:
    random.seed(4711)
    extra_port = free_port()
    with Reloading(tmp_path, reload="watch") as daemon:
        loads = [Steady(daemon, number) for number in range(3)]
        routed = False
        spans: list[tuple[str, int, int, bool]] = []
        for number in range(RELOADS):
            begun = [(load.service, load.sent + 1) for load in loads]
            time.sleep(random.uniform(0.02, 0.2))
            spans += [(name, first, load.acked, routed) for (name, first), load in zip(begun, loads, strict=True)]
            if random.random() < 0.15:
                bad = random.choice(BAD)[1]
                daemon.after(lambda bad=bad: (daemon.write(reload="watch", **bad), daemon.hup()), "is refused; ")  # type: ignore[func-returns-value, misc]
                continue
            parts, to_second = random_config(daemon, extra_port)
            parts["limits"] += f"max_connections: {1000 + number}"  # each differs, so that its time can be told
            signals = random.random() < 0.8

            def change(parts: dict[str, str] = parts, signals: bool = signals) -> None:
                daemon.write(reload="watch", **parts)
                if signals:
                    daemon.hup()

            daemon.after(change, "is in force: ")
            routed = to_second
        for load in loads:
            load.join()
        daemon.reload(backends=second("keep"), routes=BOTH)
        found: dict[str, dict[str, list[int]]] = {name: {} for name in ("logs", "second")}
        until(lambda: len(daemon.stored_in("logs")) >= sum(load.acked for load in loads), "all in the files")
        for load in loads:
            for directory in found:
                lines = [line["seq"] for line in daemon.stored_in(directory) if line["service"] == load.service]
                found[directory][load.service] = lines
            assert found["logs"][load.service] == list(range(1, load.acked + 1))
        expected = {name: {seq for one, first, last, to in spans if one == name and to for seq in range(first, last + 1)}
                    for name in found["second"]}  # fmt: skip
        unexpected = {name: {seq for one, first, last, to in spans if one == name and not to
                             for seq in range(first, last + 1)} for name in found["second"]}  # fmt: skip

        def second_complete() -> bool:
            for name in expected:
                seqs = [line["seq"] for line in daemon.stored_in("second") if line["service"] == name]
                found["second"][name] = seqs
            return all(expected[name] <= set(found["second"][name]) for name in expected)

        until(second_complete, "what was routed to the second backend")
        for name, seqs in found["second"].items():
            assert seqs == sorted(set(seqs)), "none twice, all in order"
            assert not unexpected[name] & set(seqs), "none that was not meant for it"
        assert sum(map(len, expected.values())) > 100
        assert daemon.letters() == []
    assert "Traceback" not in daemon.log()


def test_a_hundred_reloads_a_second_do_no_harm(tmp_path: Path) -> None:
    with Reloading(tmp_path) as daemon:
        load = Steady(daemon, 1)
        stop = time.monotonic() + 5
        number = 0
        while time.monotonic() < stop:
            number += 1
            daemon.write(backends=second() if number % 2 else "", limits=f"max_connections: {100 + number}")
            daemon.hup()
            time.sleep(0.01)
        assert number > 200
        last = daemon.reload(limits="max_connections: 7")
        assert "refused" not in last
        clients = [daemon.client() for _ in range(8)]
        assert "too_many_connections" in str([client.welcome for client in clients])
        load.join()
        until(lambda: len(daemon.stored(load.service)) == load.acked)
        assert [line["seq"] for line in daemon.stored(load.service)] == list(range(1, load.acked + 1))
        assert daemon.outcomes() > 5
    assert "Traceback" not in daemon.log()


def test_http_and_hooks_change_too(tmp_path: Path) -> None:
    def get(port: int, page: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=10) as answer:
            return str(answer.read().decode())

    def http(number: int | None) -> str:
        return "false" if number is None else f"tcp:{number}:interface=127.0.0.1"

    one, two = free_port(), free_port()
    with Reloading(tmp_path, http=http(one)) as daemon:
        assert json.loads(get(one, "/health/ready"))["refused_config"] is None
        hook = "hooks: {command: \"sh -c 'cat >> told'\", on: [job_failed]}"
        assert "in force: http, hooks" in daemon.reload(http=http(two), hooks=hook)
        with pytest.raises(OSError):
            get(one, "/health/live")
        daemon.reload(http=http(two), limits="nonsense: 1")
        refused = json.loads(get(two, "/health/ready"))["refused_config"]
        assert abs(refused["at"] / 1e6 - time.time()) < 60
        assert "limits.nonsense: unknown key" in refused["faults"][0]
        with socket.create_server(("127.0.0.1", 0)) as taken:
            said = daemon.reload(http=http(taken.getsockname()[1]), listen='"tcp:0"')
            assert "can't serve HTTP on" in said
        client = daemon.client()
        client.send_line(
            {"type": "progress", "job_id": "j", "percent": 1, "status": "failed", "client": client.client, "seq": 1}
        )
        client.until_acked(1)
        until((tmp_path / "told").exists, "the hook")
        assert "in force: http, hooks" in daemon.reload(http="false")
        with pytest.raises(OSError):
            get(two, "/health/live")
        client.send([2])
        client.until_acked(2)
        assert "in force: http, hooks" in daemon.reload(http=http(one), hooks=hook)
        assert json.loads(get(one, "/health/ready"))["refused_config"] is None
    assert "Traceback" not in daemon.log()
