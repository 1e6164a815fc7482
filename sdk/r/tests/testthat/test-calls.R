test_that("every call puts its fields on the wire", {
  connected(function(sdk, sidecar) {
    sdk$log_event("info", "hello", list(file = "x", rows = 3L))
    sdk$log_metric("temperature", NaN, "Cel", list(tool = "A", slot = 2, ok = TRUE))
    sdk$log_progress("job-1", 50)
    sdk$log_resource(cpu = 12.5, mem = NaN)
    heard <- sidecar$hear(4)
    expect_identical(heard[[1L]]$context, list(file = "x", rows = 3L))
    expect_identical(names(heard[[1L]]), c("type", "ts", "service", "host", "pid", "level", "message", "context", "client", "seq"))
    expect_identical(heard[[2L]][c("value", "unit", "tags")], list(value = "NaN", unit = "Cel", tags = list(tool = "A", slot = 2L, ok = "true")))
    expect_identical(heard[[3L]][c("percent", "status")], list(percent = 50L, status = "running"))
    expect_identical(heard[[4L]]$cpu, 12.5)
    expect_null(heard[[4L]]$mem)
    expect_identical(vapply(heard, function(message) message$seq, 0L), 1:4)
  })
})

test_that("the process measures itself", {
  connected(function(sdk, sidecar) {
    sdk$log_resource()
    heard <- sidecar$hear(1)[[1L]]
    expect_gte(heard$cpu, 0)
    skip_if_not(file.exists("/proc/self/status"))
    expect_gt(heard$mem, 1e6)
  })
})

test_that("spans nest, carry their trace and end as they should", {
  connected(function(sdk, sidecar) {
    sdk$set_trace_id("job-1")
    expect_identical(Sys.getenv("WAFERMON_TRACE_ID"), "job-1")
    value <- with_span(sdk, "outer", {
      inner <- sdk$start_span("inner", tags = list(a = 1))
      expect_identical(Sys.getenv("WAFERMON_SPAN_ID"), inner)
      sdk$log_event("debug", "inside")
      sdk$end_span(inner, tags = list(b = 2))
      42
    })
    expect_identical(value, 42)
    expect_identical(Sys.getenv("WAFERMON_SPAN_ID", NA), NA_character_)
    expect_error(with_span(sdk, "fails", stop("no header")), "no header")
    heard <- sidecar$hear(7)
    expect_true(all(vapply(heard, function(message) message$trace_id, "") == "job-1"))
    expect_identical(heard[[2L]]$parent_id, heard[[1L]]$span_id)
    expect_identical(heard[[3L]]$span_id, heard[[2L]]$span_id)
    expect_identical(heard[[4L]]$tags, list(a = 1L, b = 2L))
    expect_identical(heard[[4L]]$start, heard[[2L]]$ts)
    expect_identical(vapply(heard[c(4, 5, 7)], function(message) message$status, ""), c("ok", "ok", "error"))
  })
  expect_identical(Sys.getenv("WAFERMON_TRACE_ID", NA), NA_character_)
})

test_that("a span that was open long is as long", {
  connected(function(sdk, sidecar) {
    with_span(sdk, "sleep", Sys.sleep(0.2))
    duration <- sidecar$hear(2)[[2L]]$duration
    expect_gt(duration, 190000)
    expect_lt(duration, 500000)
  })
})

test_that("programming errors are errors, and not counted", {
  connected(function(sdk, sidecar) {
    expect_error(sdk$log_event("loud", "m"), "unknown level")
    expect_error(sdk$log_event("info", 1:2), "message")
    expect_error(sdk$log_event("info", "m", list(1, 2)), "named list")
    expect_error(sdk$log_metric("", 1), "name")
    expect_error(sdk$log_metric("n", TRUE), "number")
    expect_error(sdk$log_progress("j", 300), "percent")
    expect_error(sdk$end_span("0123456789abcdef"), "unknown span")
    expect_error(sdk$set_trace_id("a b"), "trace_id")
    expect_error(MonitoringSDK$new("a b"), "service")
    expect_error(MonitoringSDK$new("wafermon"), "service")
    expect_identical(sdk$get_stats()$called, 0)
  })
})

test_that("the session stays as it is", {
  set.seed(1)
  seed <- .Random.seed
  before <- options()
  connections <- nrow(showConnections(all = TRUE))
  connected(function(sdk, sidecar) {
    sdk$start_span("s")
    sdk$log_event("info", "m")
    sidecar$hang_up()
    sdk$get_stats()
  })
  expect_identical(.Random.seed, seed)
  expect_identical(options(), before)
  expect_identical(nrow(showConnections(all = TRUE)), connections)
  rm(list = ".Random.seed", envir = globalenv())
  connected(function(sdk, sidecar) sdk$start_span("s"))
  expect_false(exists(".Random.seed", globalenv()))
})

test_that("it works where the locale is C and warnings are errors", {
  locale <- Sys.getlocale("LC_CTYPE")
  old <- options(warn = 2)
  on.exit({
    options(old)
    Sys.setlocale("LC_CTYPE", locale)
  })
  Sys.setlocale("LC_CTYPE", "C")
  connected(function(sdk, sidecar) {
    latin1 <- "\xe4"
    Encoding(latin1) <- "latin1"
    sdk$log_event("info", "\xc3\xa4", list(k = "\u20ac"))
    sdk$log_event("info", latin1, list(k = latin1))
    heard <- sidecar$hear(2)
    expect_identical(charToRaw(heard[[2L]]$message), as.raw(c(0xc3, 0xa4)))
    expect_identical(charToRaw(heard[[2L]]$context$k), as.raw(c(0xc3, 0xa4)))
    heard <- heard[[1L]]
    expect_identical(charToRaw(heard$message), as.raw(c(0xc3, 0xa4)))
    expect_identical(charToRaw(heard$context$k), as.raw(c(0xe2, 0x82, 0xac)))
    sidecar$hang_up()
    sdk$log_event("info", "nobody hears")
    expect_identical(sdk$get_stats()$state, "disconnected")
  })
})
