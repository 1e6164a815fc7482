"""Who is measured. All take the same lines over TCP and write each to a file named by its service."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from suite.debian import unpacked
from suite.native import HERE, program

ROOT = HERE.parent.parent


@dataclass(frozen=True)
class Contestant:
    """A server and how it is started."""

    command: Callable[[Path, int], Sequence[str]]
    """Prepares a directory and answers with the command that serves there on this port; messages come to `out` in it."""
    environ: Callable[[], Mapping[str, str]] = dict
    plain: bool = False
    """It takes lines alone: no hello, no acks."""
    copies: int = 1
    """How often each message is stored."""


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def naive() -> Contestant:
    """What one writes first with Twisted; acknowledges what is in a buffer of its process."""
    return Contestant(lambda directory, port: python(str(HERE / "naive.py"), str(port), str(made(directory / "out"))))


def floor() -> Contestant:
    """C that only reads and appends: what the kernel costs."""
    return Contestant(
        lambda directory, port: [program("floor"), str(port), str(made(directory / "out") / "all.jsonl")], plain=True
    )


def made(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory


SIDECAR = """\
listen: ["tcp:{port}:interface=127.0.0.1"]
http: "unix:http.sock"
reload: signal
journal: {{dir: journal, spill_dir: spill, sync: {sync}, max_bytes: {journal}}}
backends:
{backends}
routes:
{routes}
dead_letters: {{dir: dead-letters}}
"""
FILES = '{plugin: filesystem, path: "out/%s{service}.jsonl", rotate_bytes: 0}'


def files(folder: str = "") -> str:
    return FILES % folder


@dataclass(frozen=True)
class Sidecar:
    """A sidecar with everything on: correlation, HTTP, deduplication, dead letters."""

    backends: Mapping[str, str] = field(default_factory=lambda: {"files": files()})
    """The config of each, in YAML."""
    sync: str = "always"
    routes: int = 1
    """The last of them takes everything, to all backends."""
    journal: str = "4GiB"
    copies: int = 1

    def contestant(self) -> Contestant:
        return Contestant(self._command, lambda: {"PYTHONPATH": str(ROOT)}, copies=self.copies)

    def _command(self, directory: Path, port: int) -> list[str]:
        made(directory / "spill")
        (directory / "wafermon.yaml").write_text(self.config(port))
        twistd = str(Path(sys.executable).with_name("twistd"))
        return python(twistd, "-n", "--pidfile=", "wafermon", "--config", "wafermon.yaml")

    def config(self, port: int) -> str:
        backends = "\n".join(f"  {name}: {options}" for name, options in self.backends.items())
        to = json.dumps(list(self.backends))
        others = "".join(f"  - {{match: {{service: other-{n}}}, to: {to}}}\n" for n in range(1, self.routes))
        return SIDECAR.format(
            port=port, sync=self.sync, journal=self.journal, backends=backends, routes=f"{others}  - to: {to}"
        )


RSYSLOG = """\
global(workDirectory="{directory}" maxMessageSize="64k")
module(load="imptcp")
module(load="mmjsonparse")
template(name="path" type="string" string="{directory}/out/%$!service%.jsonl")
template(name="line" type="string" string="%rawmsg%\\n")
ruleset(name="all" queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="1024" queue.timeoutEnqueue="600000") {{
  action(type="mmjsonparse" cookie="" useRawMsg="on")
  action(type="omfile" dynaFile="path" template="line" dynaFileCacheSize="100" ioBufferSize="64k")
}}
input(type="imptcp" port="{port}" address="127.0.0.1" ruleset="all" supportOctetCountedFraming="off")
"""


def rsyslog() -> Contestant:
    def command(directory: Path, port: int) -> list[str]:
        root, _ = unpacked("rsyslog", "usr/sbin/rsyslogd")
        made(directory / "out")
        (directory / "rsyslog.conf").write_text(RSYSLOG.format(directory=directory, port=port))
        [modules] = root.glob("usr/lib/*/rsyslog")
        return [str(root / "usr/sbin/rsyslogd"), "-n", "-f", "rsyslog.conf", "-i", str(directory / "pid"),
                "-M", str(modules)]  # fmt: skip

    return Contestant(command, lambda: unpacked("rsyslog", "usr/sbin/rsyslogd")[1], plain=True)


SYSLOG_NG = """\
@version: 3.38
options {{ keep-hostname(yes); use-dns(no); stats-freq(0); flush-lines(1000); create-dirs(yes); log-msg-size(65536);
  log-fifo-size(200000); }};
source lines {{ network(ip("127.0.0.1") port({port}) transport("tcp") flags(no-parse) max-connections(600)
  log-iw-size(60000) log-fetch-limit(1000)); }};
parser json {{ json-parser(prefix(".json.")); }};
destination files {{ file("{directory}/out/${{.json.service}}.jsonl" template("${{MESSAGE}}\\n")); }};
log {{ source(lines); parser(json); destination(files); flags(flow-control); }};
"""


def syslog_ng() -> Contestant:
    def command(directory: Path, port: int) -> list[str]:
        root, _ = unpacked("syslog-ng-core", "usr/sbin/syslog-ng")
        made(directory / "out")
        (directory / "syslog-ng.conf").write_text(SYSLOG_NG.format(directory=directory, port=port))
        [modules] = root.glob("usr/lib/syslog-ng/3.*")
        return [str(root / "usr/sbin/syslog-ng"), "-F", "--no-caps", "--stderr", f"--module-path={modules}",
                *(f"--{name}={directory / name}" for name in ("pidfile", "persist-file", "control")),
                f"--cfgfile={directory / 'syslog-ng.conf'}"]  # fmt: skip

    return Contestant(command, lambda: unpacked("syslog-ng-core", "usr/sbin/syslog-ng")[1], plain=True)


COLLECTOR = """\
receivers:
  tcp_log:
    listen_address: "127.0.0.1:{port}"
    max_log_size: 64KiB
    operators:
      - {{type: json_parser}}
      - {{type: move, from: attributes.service, to: resource.service}}
exporters:
  file: {{path: "{directory}/out/*.jsonl", encoding: lines, flush_interval: 100ms, group_by: {{enabled: true, resource_attribute: service}}}}
extensions: {{lines: {{}}}}
service:
  extensions: [lines]
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines: {{logs: {{receivers: [tcp_log], exporters: [file]}}}}
"""


def collector() -> Contestant | None:
    """The OpenTelemetry Collector that `tests/otelcol` builds; None where it has not been built."""
    path = subprocess.run([ROOT / "tests/otelcol", "path"], capture_output=True, text=True, check=True).stdout.strip()

    def command(directory: Path, port: int) -> list[str]:
        made(directory / "out")
        (directory / "collector.yaml").write_text(COLLECTOR.format(directory=directory, port=port))
        return [path, "--config=file:collector.yaml"]

    return Contestant(command, plain=True) if Path(path).exists() else None
