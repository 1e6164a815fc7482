# R CMD check and test_local() test the package; test_dir(), on its own, the file as source() takes it.
if (!exists("MonitoringSDK")) source(test_path("../../monitoring_sdk.R"), local = TRUE)

# A sidecar within the test's own process: the test plays it, step by step, over a real socket.

new_sidecar <- function() {
  for (port in 20000L + (Sys.getpid() + 1:50) %% 30000L) {
    listener <- tryCatch(suppressWarnings(serverSocket(port)), error = function(e) NULL)
    if (!is.null(listener)) break
  }
  con <- NULL
  taken <- list()

  # Takes the next connection; gives its hello.
  accept <- function() {
    con <<- socketAccept(listener, blocking = TRUE, open = "r+b", timeout = 5)
    taken <<- c(taken, list(con))
    jsonlite::parse_json(readLines(con, 1L))
  }

  say <- function(...) {
    writeLines(sprintf(...), con)
    Sys.sleep(0.02)
  }

  # `offers`: more of the welcome, each with a comma before it.
  welcome <- function(acked = 0, offers = "") {
    hello <- accept()
    say('{"type":"welcome","sidecar":"test","acked":%.0f,"max_line":65536%s}', acked, offers)
    hello
  }

  # The next n messages.
  hear <- function(n) lapply(readLines(con, n, encoding = "UTF-8"), function(line) {
    expect_true(validUTF8(line))
    expect_lte(nchar(line, "bytes"), 65536)
    jsonlite::parse_json(line)
  })

  hang_up <- function() {
    close(con)
    Sys.sleep(0.02)
  }

  stop <- function() {
    for (con in taken) try(close(con), silent = TRUE)
    close(listener)
  }

  url <- sprintf("tcp://127.0.0.1:%d", port)
  environment()
}

# Runs a test with a sidecar and an SDK that is connected to it.
connected <- function(test, ...) {
  sidecar <- new_sidecar()
  on.exit(sidecar$stop())
  sdk <- MonitoringSDK$new("r-test", sidecar$url, spill_dir = tempfile("spill"), ...)
  on.exit(sdk$close(0), add = TRUE, after = FALSE)
  sidecar$welcome()
  expect_identical(sdk$get_stats()$state, "connected")
  test(sdk, sidecar)
}

# What `code` says on stderr.
told <- function(code) {
  path <- tempfile()
  target <- file(path, "w")
  sink(target, type = "message")
  on.exit(close(target))
  tryCatch(code, finally = sink(type = "message"))
  readLines(path)
}

expect_law <- function(stats) {
  expect_identical(stats$called, stats$acked + stats$rejected + stats$dropped + stats$waiting + stats$handed_over)
}

spill_files <- function(dir) list.files(dir, full.names = TRUE)

read_spill <- function(path) lapply(readLines(path), jsonlite::parse_json)
