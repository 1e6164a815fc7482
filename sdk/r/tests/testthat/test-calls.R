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

test_that("levels have other names", {
  connected(function(sdk, sidecar) {
    for (level in list("WARN", "err", "Fatal", 25, "10", factor("info"))) sdk$log_event(level, "m")
    levels <- vapply(sidecar$hear(6), function(message) message$level, "")
    expect_identical(levels, c("warning", "error", "critical", "info", "debug", "info"))
    for (level in list(NA, NULL, 9, 51, 1e300, c("info", "info"), "", "warnings", list())) {
      expect_error(sdk$log_event(level, "m"), "unknown level")
    }
  })
})

test_that("a condition is a message, and a duration a value in seconds", {
  connected(function(sdk, sidecar) {
    tryCatch(stop("no header"), error = function(e) sdk$log_event("error", e))
    sdk$log_metric("load", as.difftime(1.5, units = "mins"), "s")
    heard <- sidecar$hear(2)
    expect_identical(heard[[1L]]$message, "no header")
    expect_identical(heard[[2L]]$value, 90L)
  })
})

test_that("a child that speaks W3C falls into the trace", {
  connected(function(sdk, sidecar) {
    expect_identical(Sys.getenv("TRACEPARENT", NA), NA_character_)
    sdk$set_trace_id("job-7")
    expect_identical(Sys.getenv("TRACEPARENT"), "00-c37bd1a8462d7ad637654ed3043935aa-95e808767e0adee1-01")
    span <- sdk$start_span("s", trace_id = "4bf92f3577b34da6a3ce929d0e0e4736")
    expect_identical(Sys.getenv("TRACEPARENT"), paste0("00-4bf92f3577b34da6a3ce929d0e0e4736-", span, "-01"))
    sdk$end_span(span)
    expect_identical(Sys.getenv("TRACEPARENT"), "00-c37bd1a8462d7ad637654ed3043935aa-95e808767e0adee1-01")
  })
  expect_identical(Sys.getenv("TRACEPARENT", NA), NA_character_)
})

test_that("the hash is SHA-256", {
  expect_identical(.wm_sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
  expect_identical(.wm_sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  expect_identical(.wm_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                   "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
})

# What logger does with a layout and an appender (log_layout(), log_appender()): the level is a number with a name.
logger_says <- function(sdk, number, name, text) {
  level <- structure(number, level = name, class = c("loglevel", "integer"))
  lines <- monitoring_layout()(level, text, namespace = "global", .logcall = NULL, .topcall = NULL, .topenv = NULL)
  monitoring_appender(sdk)(lines)
}

test_that("lines of the logger package are events", {
  connected(function(sdk, sidecar) {
    logger_says(sdk, 300L, "WARN", c("one", "two"))
    logger_says(sdk, 350L, "SUCCESS", "three")
    logger_says(sdk, 600L, "TRACE", "four")
    logger_says(sdk, 100L, "FATAL", "five")
    monitoring_appender(sdk)("of another layout")
    heard <- sidecar$hear(6)
    expect_identical(vapply(heard, function(message) message$message, ""),
                     c("one", "two", "three", "four", "five", "of another layout"))
    expect_identical(vapply(heard, function(message) message$level, ""),
                     c("warning", "warning", "info", "debug", "critical", "info"))
    expect_identical(heard[[1L]]$context, list(logger = "global"))
    expect_null(heard[[6L]]$context)
  })
})

test_that("the logger package itself takes layout and appender", {
  skip_if_not_installed("logger")
  connected(function(sdk, sidecar) {
    # Not by `::`: then R CMD check would want it installed.
    logger <- asNamespace("logger")
    logger$log_layout(monitoring_layout(), namespace = "r-test")
    logger$log_appender(monitoring_appender(sdk), namespace = "r-test")
    logger$log_warn("disk is nearly full", namespace = "r-test")
    heard <- sidecar$hear(1)[[1L]]
    expect_identical(heard[c("level", "message")], list(level = "warning", message = "disk is nearly full"))
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
