test_that("what is not acknowledged is sent again, and only that", {
  connected(function(sdk, sidecar) {
    for (i in 1:5) sdk$log_event("info", paste("message", i))
    first <- sidecar$hear(5)
    sidecar$say('{"type":"ack","seq":2}')
    expect_identical(sdk$get_stats()$acked, 2)
    sidecar$hang_up()
    sdk$get_stats()
    Sys.sleep(0.15)
    sdk$get_stats()
    sidecar$welcome(acked = 3)
    stats <- sdk$get_stats()
    expect_identical(sidecar$hear(2), first[4:5])
    sidecar$say('{"type":"ack","seq":5}')
    stats <- sdk$get_stats()
    expect_identical(stats[c("acked", "sent", "resent", "reconnects", "waiting")],
                     list(acked = 5, sent = 5, resent = 2, reconnects = 1, waiting = 0))
    expect_law(stats)
  })
})

test_that("a rejected message is settled", {
  connected(function(sdk, sidecar) {
    for (i in 1:3) sdk$log_event("info", paste("message", i))
    sidecar$hear(3)
    sidecar$say('{"type":"error","seq":2,"code":"bad_message","detail":"no"}\n{"type":"ack","seq":3}')
    stats <- sdk$get_stats()
    expect_identical(stats[c("acked", "rejected", "waiting")], list(acked = 2, rejected = 1, waiting = 0))
    expect_true(sdk$flush(0))
  })
})

test_that("a full buffer spills, and the files are sent when there is a connection", {
  dir <- tempfile("spill")
  sidecar <- new_sidecar()
  on.exit(sidecar$stop())
  sdk <- MonitoringSDK$new("r-test", sidecar$url, buffer = 3, spill_dir = dir)
  on.exit(sdk$close(0), add = TRUE, after = FALSE)
  for (i in 1:8) sdk$log_event("info", paste("message", i))
  stats <- sdk$get_stats()
  expect_identical(stats[c("state", "waiting", "spilled")], list(state = "overflow", waiting = 8, spilled = 5))
  expect_match(spill_files(dir), sprintf("/r-test\\.%d\\.[0-9a-f]{16}\\.ldjson$", Sys.getpid()))
  spilled <- read_spill(spill_files(dir))
  expect_identical(vapply(spilled, function(message) message$seq, 0L), 1:5)

  hello <- sidecar$welcome()
  sdk$get_stats()
  expect_identical(vapply(sidecar$hear(3), function(message) message$client, ""), rep(hello$client, 3))
  sidecar$say('{"type":"ack","seq":3}')
  sdk$get_stats()
  expect_match(spill_files(dir), "\\.taken$")

  # The next connection is the file's.
  hello <- sidecar$welcome()
  expect_identical(hello$client, spilled[[1L]]$client)
  sdk$get_stats()
  expect_identical(sidecar$hear(5), spilled)
  sidecar$say('{"type":"ack","seq":5}')
  stats <- sdk$get_stats()
  expect_identical(stats[c("acked", "waiting")], list(acked = 8, waiting = 0))
  expect_length(spill_files(dir), 0L)
  expect_law(stats)
})

test_that("close leaves window and waiting messages in a file of the SDK's own client", {
  dir <- tempfile("spill")
  sdk <- MonitoringSDK$new("r-test", "tcp://127.0.0.1:1", spill_dir = dir)
  for (i in 1:3) sdk$log_event("info", paste("message", i))
  took <- system.time(sdk$close())[["elapsed"]]
  expect_lt(took, 0.5)
  left <- read_spill(spill_files(dir))
  expect_identical(vapply(left[1:3], function(message) message$message, ""), paste("message", 1:3))
  expect_identical(left[[4L]][c("type", "called", "unsent", "last", "final", "seq")],
                   list(type = "stats", called = 3L, unsent = 0L, last = 3L, final = TRUE, seq = 4L))
  expect_length(left, 4L)
  stats <- sdk$get_stats()
  expect_identical(stats[c("handed_over", "waiting")], list(handed_over = 3, waiting = 0))
  sdk$log_event("info", "too late")
  expect_identical(sdk$get_stats()$dropped, 1)
  expect_law(sdk$get_stats())
})

test_that("a spill file that is taken up while it is written goes on as a new one of the same stream", {
  dir <- tempfile("spill")
  sdk <- MonitoringSDK$new("r-test", "tcp://127.0.0.1:1", buffer = 1, spill_dir = dir)
  on.exit(sdk$close(0))
  for (i in 1:4) sdk$log_event("info", paste("message", i))
  path <- spill_files(dir)
  elsewhere <- tempfile("taken")
  file.rename(path, elsewhere)
  for (i in 5:6) sdk$log_event("info", paste("message", i))
  expect_identical(spill_files(dir), path)
  taken <- read_spill(elsewhere)
  left <- read_spill(path)
  seqs <- function(messages) vapply(messages, function(message) message$seq, 0L)
  expect_identical(list(seqs(taken), seqs(left)), list(1:3, 4:5))
  expect_identical(left[[1L]]$client, taken[[1L]]$client)
  stats <- sdk$get_stats()
  expect_identical(stats[c("handed_over", "waiting", "spilled", "dropped")],
                   list(handed_over = 3, waiting = 3, spilled = 5, dropped = 0))
  expect_law(stats)
})

test_that("what such a file holds is sent with its seqs", {
  dir <- tempfile("spill")
  sidecar <- new_sidecar()
  on.exit(sidecar$stop())
  sdk <- MonitoringSDK$new("r-test", sidecar$url, buffer = 1, spill_dir = dir)
  on.exit(sdk$close(0), add = TRUE, after = FALSE)
  for (i in 1:3) sdk$log_event("info", paste("message", i))
  unlink(spill_files(dir))
  for (i in 4:5) sdk$log_event("info", paste("message", i))
  sidecar$welcome()
  sdk$get_stats()
  sidecar$hear(1)
  sidecar$say('{"type":"ack","seq":1}')
  sdk$get_stats()
  sidecar$welcome(acked = 2)
  sdk$get_stats()
  expect_identical(vapply(sidecar$hear(2), function(message) message$seq, 0L), 3:4)
  sidecar$say('{"type":"error","seq":3,"code":"bad_message","detail":"no"}\n{"type":"ack","seq":4}')
  stats <- sdk$get_stats()
  expect_identical(stats[c("acked", "rejected", "handed_over", "waiting")],
                   list(acked = 2, rejected = 1, handed_over = 2, waiting = 0))
})

test_that("spill files are open to the group, whatever the umask", {
  old <- Sys.umask("077")
  on.exit(Sys.umask(old))
  dir <- tempfile("spill")
  sdk <- MonitoringSDK$new("r-test", "tcp://127.0.0.1:1", buffer = 1, spill_dir = dir)
  for (i in 1:2) sdk$log_event("info", "m")
  sdk$close()
  files <- spill_files(dir)
  expect_length(files, 2L)
  expect_identical(format(file.mode(files)), c("660", "660"))
})

test_that("what can't be spilled is dropped, counted and reported", {
  sidecar <- new_sidecar()
  on.exit(sidecar$stop())
  sdk <- MonitoringSDK$new("r-test", sidecar$url, buffer = 2, spill_dir = "/dev/null/nowhere")
  on.exit(sdk$close(0), add = TRUE, after = FALSE)
  for (i in 1:5) sdk$log_event("info", paste("message", i))
  expect_identical(sdk$get_stats()$dropped, 3)
  sidecar$welcome()
  sdk$get_stats()
  sdk$get_stats()
  report <- sidecar$hear(3)[[3L]]
  expect_identical(report[c("level", "message", "context")],
                   list(level = "warning", message = "3 messages dropped", context = list(kind = "dropped", count = 3L)))
  expect_law(sdk$get_stats())
})

test_that("a refusal is told once", {
  sidecar <- new_sidecar()
  on.exit(sidecar$stop())
  said <- told({
    sdk <- MonitoringSDK$new("r-test", sidecar$url, spill_dir = tempfile("spill"))
    for (i in 1:2) {
      sidecar$accept()
      sidecar$say('{"type":"error","code":"unauthorized","detail":"no token"}')
      sidecar$hang_up()
      for (j in 1:10) {
        sdk$get_stats()
        Sys.sleep(0.05)
      }
    }
    sdk$close(0)
  })
  expect_identical(said, "wafermon: the sidecar refuses: unauthorized no token")
})

test_that("a forked child begins anew", {
  connected(function(sdk, sidecar) {
    sdk$set_trace_id("job-1")
    sdk$log_event("info", "parent")
    parents <- sidecar$hear(1)[[1L]]
    child <- parallel::mcparallel({
      sdk$log_event("info", "child")
      sdk$flush(5)
      sdk$get_stats()
    })
    hello <- sidecar$welcome()
    expect_identical(hello$pid, child$pid)
    expect_false(identical(hello$client, parents$client))
    message <- sidecar$hear(1)[[1L]]
    expect_identical(message[c("message", "trace_id", "pid", "seq")],
                     list(message = "child", trace_id = "job-1", pid = child$pid, seq = 1L))
    sidecar$say('{"type":"ack","seq":1}')
    stats <- parallel::mccollect(child)[[1L]]
    expect_identical(stats[c("called", "acked")], list(called = 1, acked = 1))
    expect_identical(sdk$get_stats()$called, 1)
  })
})

test_that("a forked child that only closes connects to nobody", {
  connected(function(sdk, sidecar) {
    child <- parallel::mcparallel({
      sdk$close()
      sdk$log_event("info", "too late")
      sdk$get_stats()
    })
    stats <- parallel::mccollect(child)[[1L]]
    expect_identical(stats[c("state", "called", "dropped")], list(state = "disconnected", called = 1, dropped = 1))
    expect_false(socketSelect(list(sidecar$listener), FALSE, 0))
    sdk$log_event("info", "parent")
    expect_identical(sidecar$hear(1)[[1L]]$message, "parent")
  })
})

test_that("an object from another process leaves the connections of this one alone", {
  close_if_ours <- .wm_close
  con <- file(tempfile(), "w")
  close_if_ours(unserialize(serialize(con, NULL)))
  expect_true(isOpen(con))
  close_if_ours(con)
  expect_error(isOpen(con), "invalid connection")
})

test_that("a script that ends leaves nothing behind in its memory", {
  skip_if_not(length(find.package("monitoringsdk", .libPaths(), quiet = TRUE)) > 0, "the package is not installed")
  dir <- tempfile("spill")
  code <- sprintf('sdk <- monitoringsdk::MonitoringSDK$new("r-test", "tcp://127.0.0.1:1", spill_dir = "%s")
                   sdk$log_event("info", "last words")
                   stop("no handler for this")', dir)
  suppressWarnings(system2(file.path(R.home("bin"), "Rscript"), c("-e", shQuote(code)), stderr = FALSE,
                           env = paste0("R_LIBS=", paste(.libPaths(), collapse = ":"))))
  expect_identical(read_spill(spill_files(dir))[[1L]]$message, "last words")
})

test_that("an address that base R can't reach warns, and the default serves", {
  said <- told(MonitoringSDK$new("r-test", "unix:///run/wafermon.sock", spill_dir = tempfile("spill"))$close(0))
  expect_identical(said, "wafermon: base R can't connect to \"unix:///run/wafermon.sock\", using tcp://127.0.0.1:7411")
})
