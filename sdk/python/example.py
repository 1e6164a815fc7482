"""Reads files and tells the sidecar about it: python example.py FILE...

The address comes from WAFERMON_URL (tcp://127.0.0.1:7411 where that is not set). It works without a sidecar too.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # not needed where monitoring-sdk is installed

from monitoring_sdk import MonitoringSDK  # noqa: E402


def main(names):
    with MonitoringSDK("example") as sdk:
        sdk.set_trace_id("job-4711")
        for number, name in enumerate(names, 1):
            with sdk.span("read", tags={"file": name}):
                try:
                    data = Path(name).read_bytes()
                except OSError as error:
                    sdk.log_event("error", "unreadable", {"file": name, "reason": error.strerror})
                    continue
                sdk.log_event("info", "read", {"file": name, "lines": data.count(b"\n")})
                sdk.log_metric("bytes_read", len(data), "By", {"file": name})
            sdk.log_progress("job-4711", 100 * number / len(names))
        sdk.log_resource()
        sdk.log_progress("job-4711", 100, "done")
        delivered = sdk.flush(2)
    print(f"{sdk.get_stats()['called']} messages, " + ("all acknowledged" if delivered else "left for the sidecar"))


if __name__ == "__main__":
    main(sys.argv[1:] or [__file__])
