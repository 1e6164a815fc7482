"""Takes in the lot files of a folder, one after the other, and has each parsed: file_receiver.py INCOMING WORK

A part of the demonstration (examples/run_demo.sh). The job is the trace that the environment names.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from monitoring_sdk import MonitoringSDK

PARSER = Path(__file__).with_name("parser.py")


def take_in(sdk: MonitoringSDK, source: Path, work: Path) -> bool:
    """Copy one file and have it parsed. True where all of that worked."""
    target = work / source.name
    shutil.copyfile(source, target)
    data = target.read_bytes()
    sdk.log_metric("bytes_received", len(data), "By", {"file": source.name})
    digest = hashlib.sha256(data).hexdigest()
    sdk.log_event("info", "file received", {"file": source.name, "bytes": len(data), "sha256": digest})
    # The span that is open, and its trace, reach the child by the environment.
    done = subprocess.run([sys.executable, str(PARSER), str(target)], check=False)
    if done.returncode:
        sdk.log_event("error", "the parser failed", {"file": source.name, "status": done.returncode})
    return done.returncode == 0


def main(incoming: Path, work: Path) -> int:
    job = os.environ["WAFERMON_TRACE_ID"]
    files = sorted(incoming.glob("*.csv"))
    good = 0
    with MonitoringSDK("file-receiver") as sdk:
        sdk.log_progress(job, 0, "running")
        with sdk.span("intake", tags={"folder": incoming.name}):
            sdk.log_event("info", "files found", {"count": len(files)})
            for number, source in enumerate(files, 1):
                with sdk.span("receive", tags={"file": source.name}):
                    good += take_in(sdk, source, work)
                sdk.log_progress(job, 100 * number / (len(files) + 1), "running")
        sdk.log_resource()
        sdk.log_progress(job, 100, "done" if files and good == len(files) else "failed")
        sdk.flush()
        print(sdk.get_stats()["called"])
    return 0 if files and good == len(files) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
