# A job that receives files, as wafermon sees it:  Rscript example.R
# The address comes from WAFERMON_URL, else tcp://127.0.0.1:7411. Without a sidecar it runs just the same.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[[1L]]))
source(file.path(here, "monitoring_sdk.R"))

sdk <- MonitoringSDK$new("example-r")
sdk$set_trace_id("job-4711")

files <- c("wafer-01.dat", "wafer-02.dat", "wafer-03.dat")
with_span(sdk, "receive", {
  for (i in seq_along(files)) {
    sdk$log_event("info", "file received", list(file = files[[i]], rows = 1000L * i, complete = TRUE))
    sdk$log_metric("file.size", 12.5 * i, "MBy", list(file = files[[i]]))
    sdk$log_progress("job-4711", 100 * i / length(files), if (i == length(files)) "done" else "running")
  }
})
sdk$log_resource()

# What a script fails with is worth a line, too.
tryCatch(with_span(sdk, "parse", stop("no header")), error = function(e) sdk$log_event("error", conditionMessage(e)))

sdk$close()
stats <- sdk$get_stats()
cat(sprintf("%.0f calls, %.0f acknowledged, %.0f left in spill files\n", stats$called, stats$acked, stats$handed_over))
