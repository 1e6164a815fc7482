"""What `deploy/` holds, tried with the programs that it is for: systemd's own checkers, promtool, a real Prometheus."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import wafermon
from daemon import ROOT, until
from ports import free_port
from served import Served

DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "wafermon.service"
PROMETHEUS = DEPLOY / "prometheus"


def run(*command: object, cwd: Path = ROOT) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# -- systemd


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "wafermon.service"
    # The programs of this installation in place of those that an operator installs.
    unit.write_text(UNIT.read_text().replace("/opt/wafermon/bin", str(Path(sys.executable).parent)))
    assert run("systemd-analyze", "verify", "--man=no", unit) == ""


def test_the_unit_is_sandboxed() -> None:
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", UNIT)
    exposure = re.search(r"Overall exposure level for wafermon.service: ([0-9.]+)", said)
    assert exposure and float(exposure[1]) < 2.5, said


def test_user_and_directories_are_made(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}", DEPLOY / "sysusers.d" / "wafermon.conf")
    assert "wafermon:" in (tmp_path / "etc" / "passwd").read_text()
    run("systemd-tmpfiles", f"--root={tmp_path}", "--create", DEPLOY / "tmpfiles.d" / "wafermon.conf")
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o7777 for path in tmp_path.glob("*/*/wafermon")}
    assert modes == {"var/spool/wafermon": 0o3777, "var/lib/wafermon": 0o700, "var/log/wafermon": 0o750}
    assert (tmp_path / "var/lib/wafermon").stat().st_uid == int(
        (tmp_path / "etc/passwd").read_text().split("wafermon:")[1].split(":")[1]
    )


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told_when_it_is_ready_alive_and_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    address = f"@wafermon-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if abstract else address)
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        with Served(tmp_path) as served:
            assert manager.recv(100) == b"READY=1"
            socket.create_connection(("127.0.0.1", served.port)).close()
            assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            served.stop()
            said = []
            manager.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    said.append(manager.recv(100))
        assert said[-1] == b"STOPPING=1"
        assert said.count(b"STOPPING=1") == 1


# -- configs


def kubernetes() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "sidecar.yaml").read_text()))


def test_the_configs_are_good(tmp_path: Path) -> None:
    pod = tmp_path / "pod.yaml"
    pod.write_text(kubernetes()[0]["data"]["wafermon.yaml"])
    pytest.importorskip("txpostgres")
    configs = [DEPLOY / "wafermon.yaml", *(DEPLOY / "docker").glob("wafermon*.yaml"), pod]
    assert len(configs) == 4
    for path in configs:
        done = wafermon("check", path)
        assert done.returncode == 0, done.stderr


def test_the_configs_of_edges_and_a_central_sidecar_are_good(tmp_path: Path) -> None:
    node = tmp_path / "node.yaml"
    node.write_text(
        next(iter(yaml.safe_load_all((DEPLOY / "kubernetes" / "edge.yaml").read_text())))["data"]["wafermon.yaml"]
    )
    for path in (DEPLOY / "forwarding" / "central.yaml", DEPLOY / "forwarding" / "edge.yaml", node):
        done = wafermon("check", path)
        assert done.returncode == 0, done.stderr


def test_two_edges_share_neither_a_journal_nor_a_token() -> None:
    services = yaml.safe_load((DEPLOY / "forwarding" / "compose.yaml").read_text())["services"]
    assert set(services) == {"central", "edge-1", "edge-2"}
    one, two = (
        {v for v in services[name]["volumes"] if "token" in v or not v.startswith(".")} for name in ("edge-1", "edge-2")
    )
    assert not one & two
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])


@pytest.mark.parametrize(("name", "has"), [
    ("compose.yaml", {"wafermon", "db", "prometheus", "grafana"}),
    ("compose.otlp.yaml", {"wafermon", "lgtm"}),
])  # fmt: skip
def test_what_a_compose_file_mounts_is_there_and_nothing_is_published_to_the_world(name: str, has: set[str]) -> None:
    path = DEPLOY / "docker" / name
    services = yaml.safe_load(path.read_text())["services"]
    assert set(services) == has
    for service in services.values():
        for mounted in service["volumes"]:
            source = mounted.split(":")[0]
            assert not source.startswith(".") or (path.parent / source).exists(), source
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_image_has_what_it_copies() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    allowed = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    for name in [line[1:] for line in allowed if line.startswith("!")]:
        assert (ROOT / name).exists(), name
    assert "!deploy/docker/wafermon.yaml" in allowed and "COPY deploy/docker/wafermon.yaml" in text


def test_the_pod_mounts_what_its_config_names() -> None:
    pod = kubernetes()[1]["spec"]["template"]["spec"]
    [sidecar] = pod["initContainers"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in sidecar["volumeMounts"]} <= volumes
    paths = {mount["mountPath"] for mount in sidecar["volumeMounts"]}
    assert {"/var/lib/wafermon", "/var/spool/wafermon", "/etc/wafermon"} <= paths


def images() -> list[str]:
    """All images that are named, but those that stand for the reader's own program."""
    dockerfile = (DEPLOY / "docker" / "Dockerfile").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)", dockerfile, re.MULTILINE))
    found = [
        re.sub(r"\$\{(\w+)\}", lambda name: arguments[name[1]], one)
        for one in re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    ]
    for path in DEPLOY.rglob("compose*.yaml"):
        services = yaml.safe_load(path.read_text())["services"].values()
        found += [service["image"] for service in services if "image" in service]
    for path in (DEPLOY / "kubernetes").glob("*.yaml"):
        found += re.findall(r"^ +(?:- )?image: (\S+)$", path.read_text(), re.MULTILINE)
    return [image for image in found if not image.startswith("etl:")]


def test_each_image_is_one_version_or_one_digest() -> None:
    assert len(images()) >= 9
    loose = [
        image
        for image in images()
        if not re.search(r"@sha256:[0-9a-f]{64}$", image) and not re.search(r":v?\d+\.\d+\.\d+(-[\w.-]+)?$", image)
    ]
    assert loose == []


def test_the_policy_lets_through_what_the_pod_needs() -> None:
    config, deployment, policy = kubernetes()
    spec = policy["spec"]
    assert spec["podSelector"] == deployment["spec"]["selector"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    [sidecar] = deployment["spec"]["template"]["spec"]["initContainers"]
    [ingress] = spec["ingress"]
    assert [port["port"] for port in ingress["ports"]] == [port["containerPort"] for port in sidecar["ports"]]
    dsn = yaml.safe_load(config["data"]["wafermon.yaml"])["backends"]["db"]["dsn"]
    host = re.fullmatch(r"postgresql://\w+@\w+\.(\w+)(?::(\d+))?/\w+", dsn)
    assert host
    _, database = spec["egress"]
    [to] = database["to"]
    assert to["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": host[1]}
    assert database["ports"] == [{"protocol": "TCP", "port": int(host[2] or 5432)}]


# -- Prometheus


def test_the_rules_are_sound_and_fire_when_they_should() -> None:
    assert "SUCCESS" in run("promtool", "check", "rules", "alerts.yml", cwd=PROMETHEUS)
    assert "SUCCESS" in run("promtool", "check", "config", "prometheus.yml", cwd=PROMETHEUS)
    assert "SUCCESS" in run("promtool", "test", "rules", "alerts_test.yml", cwd=PROMETHEUS)


def alerts() -> dict[str, dict[str, Any]]:
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
    return {rule["alert"]: rule for rule in rules}


def panels(dashboard: Path) -> list[dict[str, Any]]:
    """All of a dashboard but its rows."""
    return [panel for panel in json.loads(dashboard.read_text())["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("name", ["jobs", "services", "sidecar"])
def test_each_panel_says_what_it_shows(name: str) -> None:
    bare = [
        panel["title"] for panel in panels(DEPLOY / f"grafana/dashboards/{name}.json") if not panel.get("description")
    ]
    assert bare == []


def test_the_panel_of_dead_letters_counts_what_the_alarm_counts() -> None:
    alarms = [
        rule
        for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    [alarm] = [rule["expr"] for rule in alarms if rule["alert"] == "WafermonDeadLetters"]
    [shown] = [
        panel for panel in panels(DEPLOY / "grafana/dashboards/sidecar.json") if panel["title"] == "Dead letters today"
    ]
    counted = re.findall(r"wafermon_[a-z_]+", shown["targets"][0]["expr"])
    assert counted == re.findall(r"wafermon_[a-z_]+", alarm)


def test_only_health_and_metrics_are_served_outside_a_container() -> None:
    """The image's config and the one of the Kubernetes pod."""
    pods = list(yaml.safe_load_all((DEPLOY / "kubernetes/sidecar.yaml").read_text()))
    texts = [(DEPLOY / "docker/wafermon.yaml").read_text(), pods[0]["data"]["wafermon.yaml"]]
    for text in texts:
        outside, inside = yaml.safe_load(text)["http"]
        assert outside == {"endpoint": "tcp:7412", "serve": ["health", "metrics"]}
        assert inside == {"endpoint": "tcp:7414:interface=127.0.0.1", "serve": ["api", "page"]}


def test_rules_and_dashboards_ask_for_metrics_that_there_are(tmp_path: Path) -> None:
    hooks = "hooks: {{command: 'true'}}\nschedules: {{nightly: {{match: {{job: load}}, cron: '@daily'}}}}\n"
    from served import CONFIG

    topic = f", {{kafka: {{brokers: ['127.0.0.1:{free_port()}'], topics: [fab]}}}}"  # a broker that can't be reached
    with Served(tmp_path, CONFIG + hooks, listen=topic) as served:
        # A schedule has figures once the config is in force in the journal.
        until(lambda: any(name.startswith("wafermon_schedule_troubled") for name in served.metrics()), "a schedule")
        exposed = {name.partition("{")[0] for name in served.metrics()}
        # Of sidecars that forward there is no sample before one has come.
        exposed |= set(
            re.findall(r"^# TYPE (wafermon_forwarder\w+) ", served.request("/metrics")[1].decode(), re.MULTILINE)
        )
    asked = set(re.findall(r"wafermon_[a-z_]+", " ".join(rule["expr"] for rule in alerts().values())))
    dashboards = (DEPLOY / "grafana" / "dashboards" / "sidecar.json").read_text()
    asked |= set(re.findall(r"\b(wafermon_[a-z_]+)", " ".join(re.findall(r'"expr": "(.*?)",?\n', dashboards))))
    assert asked <= exposed, asked - exposed


def test_every_alarm_is_explained() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in alerts() if f"`{name}`" not in page] == []


class Prometheus:
    """A real one, which scrapes a sidecar every half second, with our rules and without their patience."""

    def __init__(self, directory: Path, target: int) -> None:
        self.port = free_port()
        rules = re.sub(r"^( +for: ).*", r"\g<1>1s", (PROMETHEUS / "alerts.yml").read_text(), flags=re.MULTILINE)
        (directory / "alerts.yml").write_text(rules)
        config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [shutil.which("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                   f"--web.listen-address=127.0.0.1:{self.port}"]  # fmt: skip
        with (directory / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen([*map(str, command)], cwd=directory, stdout=log, stderr=log)

    def get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=10) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def value(self, metric: str) -> float | None:
        found = self.get(f"query?query={metric}")
        return float(found["result"][0]["value"][1]) if found and found["result"] else None

    def firing(self) -> set[tuple[str, str]]:
        found = self.get("alerts") or {"alerts": []}
        return {
            (one["labels"]["alertname"], one["labels"].get("backend", ""))
            for one in found["alerts"]
            if one["state"] == "firing"
        }

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Served]:
    """A sidecar whose backend can't write."""
    (tmp_path / "logs").write_text("a file where the directory should be")
    with Served(tmp_path) as served:
        yield served


def test_a_real_prometheus_scrapes_it_and_its_alarms_fire_and_end(tmp_path: Path, broken: Served) -> None:
    (tmp_path / "prometheus").mkdir()
    prometheus = Prometheus(tmp_path / "prometheus", broken.http_port)
    try:
        until(lambda: prometheus.value("wafermon_ready") is not None, "a scrape")
        client = broken.client()
        client.send(range(1, 11))
        client.send_line({"type": "event", "service": "s", "level": "warning", "message": "3 messages dropped",
                          "context": {"kind": "dropped", "count": 3}, "client": client.client, "seq": 11})  # fmt: skip
        client.send_line(b"nonsense")
        client.until_acked(12)
        wanted = {
            ("WafermonBackendFailing", "files"), ("WafermonNotReady", ""), ("WafermonMessagesDropped", ""),
            ("WafermonDeadLetters", ""),
        }  # fmt: skip
        until(lambda: wanted <= prometheus.firing(), "the alarms")
        assert prometheus.value("wafermon_messages_accepted_total") == 11
        assert prometheus.value("wafermon_delivery_lag_messages") == 11
        (tmp_path / "logs").unlink()
        until(lambda: ("WafermonBackendFailing", "files") not in prometheus.firing(), "the end of it")
        assert prometheus.value("wafermon_messages_delivered_total") == 11
        client.close()
        broken.stop()
        until(lambda: ("WafermonDown", "") in prometheus.firing(), "the last alarm")
        broken.start()
    finally:
        prometheus.stop()
