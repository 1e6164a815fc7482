# What a log_event with a context of four costs, beside what people use today, in one run:
#   Rscript bench.R [calls]
# The sidecar is a small R process that acknowledges in groups, a few milliseconds apart, as the daemon does with its
# syncs; then one that accepts and never answers; then none.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[[1L]]))
source(file.path(here, "monitoring_sdk.R"))
calls <- as.integer(c(commandArgs(TRUE), 20000)[[1L]])
Sys.setenv(WAFERMON_SPILL_DIR = tempfile("spill"))

sidecar <- function(port, mute = FALSE) {
  listener <- serverSocket(port)
  con <- socketAccept(listener, blocking = TRUE, open = "r+b", timeout = 60)
  readLines(con, 1L)
  if (mute) Sys.sleep(60)
  writeLines('{"type":"welcome","sidecar":"bench","acked":0,"max_line":65536}', con)
  socketTimeout(con, 0)
  seen <- 0
  repeat {
    socketSelect(list(con), FALSE, 60)
    bytes <- readBin(con, "raw", 65536)
    if (!length(bytes)) quit("no")
    seen <- seen + sum(bytes == as.raw(10L))
    Sys.sleep(0.003)
    writeLines(sprintf('{"type":"ack","seq":%.0f}', seen), con)
  }
}

# Microseconds a call. R's garbage collection takes milliseconds when it comes; the last columns are without the calls in
# which it came, and how many calls there are to one in which it came.
measure <- function(label, call, n = calls) {
  for (i in 1:200) call(i)
  began <- ended <- collected <- numeric(n)
  for (i in seq_len(n)) {
    began[[i]] <- Sys.time()
    call(i)
    ended[[i]] <- Sys.time()
    collected[[i]] <- gc.time()[[3L]]
  }
  took <- (ended - began) * 1e6
  calm <- diff(c(0, collected)) == 0
  at <- quantile(took, c(0.5, 0.99, 0.999, 1), names = FALSE, type = 1)
  rare <- quantile(took[calm], 0.999, names = FALSE, type = 1)
  cat(sprintf("%-40s %8.1f %8.1f %9.1f %9.1f %14.1f %9.0f\n", label, at[[1L]], at[[2L]], at[[3L]], at[[4L]], rare, n / sum(!calm)))
  at
}

context <- function(i) list(file = "wafer-0815.dat", rows = i, ok = TRUE, ms = 12.75)

with_sidecar <- function(mute, label) {
  port <- 20000L + Sys.getpid() %% 20000L + mute
  helper <- parallel::mcparallel(sidecar(port, mute))
  on.exit(tools::pskill(helper$pid))
  Sys.sleep(0.5)
  sdk <- MonitoringSDK$new("bench", sprintf("tcp://127.0.0.1:%d", port))
  at <- measure(label, function(i) sdk$log_event("info", "file received", context(i)))
  state <- sdk$get_stats()
  cat(sprintf("    %s, acked %.0f of %.0f, spilled %.0f, dropped %.0f\n", state$state, state$acked, state$called, state$spilled, state$dropped))
  sdk$close()
  at
}

cat(sprintf("%-40s %8s %8s %9s %9s %14s %9s\n", "microseconds", "p50", "p99", "p99.9", "max", "p99.9, no GC", "calls/GC"))
invisible(measure("an empty function", function(i) NULL))
target <- file(tempfile("today", fileext = ".ldjson"), "w")
host <- Sys.info()[["nodename"]]
today <- function() measure("jsonlite::toJSON + writeLines to a file", function(i) {
  record <- list(type = "event", ts = Sys.time(), service = "bench", host = host, pid = Sys.getpid(),
                 level = "info", message = "file received", context = context(i))
  writeLines(jsonlite::toJSON(record, auto_unbox = TRUE), target)
  flush(target)
}, max(500L, calls %/% 10L))

before <- today()
up <- with_sidecar(FALSE, "log_event, sidecar up")
after <- today()
close(target)
invisible(with_sidecar(TRUE, "log_event, sidecar hung"))
absent <- MonitoringSDK$new("bench", "tcp://127.0.0.1:9")
invisible(measure("log_event, sidecar absent", function(i) absent$log_event("info", "file received", context(i))))
absent$close()
unlink(Sys.getenv("WAFERMON_SPILL_DIR"), recursive = TRUE)
# A shared machine is now faster, now slower: before and after, then.
share <- 2 * up / (before + after)
cat(sprintf("log_event costs %.3f of it (p50), %.3f (p99)\n", share[[1L]], share[[2L]]))
