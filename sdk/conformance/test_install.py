"""Each SDK is installed as its people install things, from a copy of its folder, and used by a program elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance import PYTHON, SDK, VARIABLES, Language
from fake_sidecar import FakeSidecar

LEFT_OUT = "build target node_modules __pycache__ *.egg-info *.o *.a *.so* driver driver-* bench".split()

Environ = dict[str, str]
Install = Callable[[Path, Path], tuple[list[str], Environ]]
"""Takes the SDK's folder and an empty one; gives the command that runs the program there, and its environment."""


def run(folder: Path, *command: object, **environ: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "PYTHONPATH")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**inherited, **environ},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(source: Path, user: Path) -> tuple[list[str], Environ]:
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
    run(user, sys.executable, "-m", "pip", "install", *options, "--target", user / "site", source)
    (user / "user.py").write_text(
        "from monitoring_sdk import MonitoringSDK\n"
        "with MonitoringSDK('user') as sdk:\n"
        "    sdk.log_event('info', 'installed')\n"
    )
    return [PYTHON, "user.py"], {"PYTHONPATH": str(user / "site")}


def perl(source: Path, user: Path) -> tuple[list[str], Environ]:
    run(source, "perl", "Makefile.PL", f"INSTALL_BASE={user}/perl5")
    run(source, "make", "install")
    (user / "user.pl").write_text(
        "use strict; use warnings; use MonitoringSDK;\n"
        "my $sdk = MonitoringSDK->new(service => 'user');\n"
        "$sdk->log_event('info', 'installed');\n"
        "$sdk->close;\n"
    )
    return ["perl", "user.pl"], {"PERL5LIB": str(user / "perl5/lib/perl5")}


def c(source: Path, user: Path) -> tuple[list[str], Environ]:
    run(source, "make", "-s", "install", f"PREFIX={user}/usr")
    (user / "user.c").write_text(
        "#include <monitoring_sdk.h>\n"
        "int main(void) {\n"
        '    monitoring_options options = { .service = "user" };\n'
        "    monitoring_sdk *sdk;\n"
        "    if (monitoring_open(&sdk, &options)) return 1;\n"
        '    monitoring_log_event(sdk, "info", "installed", MON_END);\n'
        "    monitoring_free(sdk);\n"
        "    return 0;\n"
        "}\n"
    )
    found = {"PKG_CONFIG_PATH": str(user / "usr/lib/pkgconfig")}
    flags = run(user, "pkg-config", "--cflags", "--libs", "monitoring_sdk", **found).split()
    run(user, "cc", "-std=c99", "user.c", *flags, "-o", "user")
    return ["./user"], {"LD_LIBRARY_PATH": str(user / "usr/lib")}


def r(source: Path, user: Path) -> tuple[list[str], Environ]:
    (user / "library").mkdir()
    run(user, "R", "CMD", "INSTALL", f"--library={user}/library", source)
    (user / "user.R").write_text(
        "library(monitoringsdk)\n"
        "sdk <- MonitoringSDK$new('user')\n"
        "sdk$log_event('info', 'installed')\n"
        "invisible(sdk$close())\n"
    )
    return ["Rscript", "user.R"], {"R_LIBS": str(user / "library")}


def go(source: Path, user: Path) -> tuple[list[str], Environ]:
    run(user, "go", "mod", "init", "user")
    run(user, "go", "mod", "edit", "-require=wafermon/monitoring@v0.0.0", f"-replace=wafermon/monitoring={source}")
    (user / "main.go").write_text(
        "package main\n\n"
        'import (\n\t"context"\n\n\t"wafermon/monitoring"\n)\n\n'
        "func main() {\n"
        '\tsdk, err := monitoring.Open("user")\n'
        "\tif err != nil {\n\t\tpanic(err)\n\t}\n"
        "\tdefer sdk.Close(context.Background())\n"
        '\t_ = sdk.LogEvent("info", "installed")\n'
        "}\n"
    )
    run(user, "go", "build", "-o", "user", GOPROXY="off", GOFLAGS="")
    return ["./user"], {}


def node(source: Path, user: Path) -> tuple[list[str], Environ]:
    (user / "package.json").write_text('{"name": "user", "version": "1.0.0", "private": true}')
    run(user, "npm", "install", "--offline", "--no-audit", "--no-fund", "--loglevel=error", source)
    (user / "user.mjs").write_text(
        "import { MonitoringSDK } from 'monitoring-sdk';\n"
        "const sdk = new MonitoringSDK('user');\n"
        "sdk.logEvent('info', 'installed');\n"
        "await sdk.close();\n"
    )
    return ["node", "user.mjs"], {}


CACHE = """
<settings><profiles><profile><id>cache</id>
  <repositories><repository><id>cache</id><url>file://{home}/.m2/repository</url></repository></repositories>
  <pluginRepositories><pluginRepository><id>cache</id><url>file://{home}/.m2/repository</url></pluginRepository></pluginRepositories>
</profile></profiles><activeProfiles><activeProfile>cache</activeProfile></activeProfiles></settings>
"""
POM = """
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>user</groupId><artifactId>user</artifactId><version>1</version>
  <properties><maven.compiler.release>11</maven.compiler.release></properties>
  <dependencies><dependency>
    <groupId>wafermon</groupId><artifactId>monitoring-sdk</artifactId><version>2.0.0</version>
  </dependency></dependencies>
  <build><plugins><plugin>
    <groupId>org.apache.maven.plugins</groupId><artifactId>maven-compiler-plugin</artifactId><version>{compiler}</version>
  </plugin></plugins></build>
</project>
"""


def java(source: Path, user: Path) -> tuple[list[str], Environ]:
    """Into a repository of the test's own, which takes what the user's has before it asks the network."""
    (user / "settings.xml").write_text(CACHE.format(home=Path.home()))
    maven = ("mvn", "-q", "-B", "-gs", user / "settings.xml", f"-Dmaven.repo.local={user}/repository")
    run(source, *maven, "-DskipTests", "-Dmaven.javadoc.skip", "-pl", "core", "-am", "install")
    classes = user / "src/main/java"
    classes.mkdir(parents=True)
    version = r"<artifactId>maven-compiler-plugin</artifactId>\s*<version>(.*)</version>"
    compiler = re.search(version, (source / "pom.xml").read_text())
    assert compiler is not None
    (user / "pom.xml").write_text(POM.format(compiler=compiler[1]))
    (classes / "User.java").write_text(
        "import wafermon.sdk.MonitoringSDK;\n"
        "class User {\n"
        "    public static void main(String[] arguments) {\n"
        '        try (MonitoringSDK sdk = MonitoringSDK.open("user")) {\n'
        '            sdk.logEvent("info", "installed");\n'
        "        }\n"
        "    }\n"
        "}\n"
    )
    run(user, *maven, "compile")
    jar = user / "repository/wafermon/monitoring-sdk/2.0.0/monitoring-sdk-2.0.0.jar"
    return ["java", "-cp", f"{jar}:target/classes", "User"], {}


INSTALLS: dict[str, Install] = {
    "python": python, "perl": perl, "c": c, "r": r, "go": go, "node": node, "java": java,
}  # fmt: skip
TOOLS = {"c": ["pkg-config"], "perl": ["make"], "node": ["npm"], "java": ["mvn"]}
"""What an installation needs that the suite does not need for the rest."""


def test_it_is_installed_and_used(language: Language, sidecar: FakeSidecar, tmp_path: Path) -> None:
    absent = [tool for tool in TOOLS.get(language.name, ()) if not shutil.which(tool)]
    if absent:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{', '.join(absent)} is not installed")
    source, user = tmp_path / "source", tmp_path / "user"
    shutil.copytree(SDK / language.name, source, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    user.mkdir()
    command, environ = INSTALLS[language.name](source, user)
    run(user, *command, **environ, WAFERMON_URL=sidecar.url, WAFERMON_SPILL_DIR=str(tmp_path / "spill"))
    [event] = [message for message in sidecar.messages if message["type"] == "event"]
    assert (event["service"], event["message"]) == ("user", "installed")
    assert not list((tmp_path / "spill").glob("*"))
