"""A sidecar that gives up root before it runs."""

from __future__ import annotations

AS_NOBODY = """
import os, sys
from pathlib import Path
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from wafermon.backends import find_plugins
from wafermon.config import load
from wafermon.daemon.sidecar import Sidecar
from wafermon.web.assets import load as load_assets
"x".encode("idna"); load_assets()  # what is loaded late, nobody may be unable to read
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
plugins = find_plugins()
config = load(Path("wafermon.yaml"), plugins=plugins.factories, environ={{}})
os.setgid({gid}); os.setgroups([]); os.setuid({uid})
sidecar = Sidecar(config, plugins, reactor)
reactor.callWhenRunning(sidecar.startService)
reactor.addSystemEventTrigger("before", "shutdown", sidecar.stopService)
reactor.run()
"""
