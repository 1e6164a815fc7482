# The conformance driver: one JSON request per line on stdin, one JSON answer per line on stdout (sdk/conformance/README.md).

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[[1L]]))
source(file.path(here, "monitoring_sdk.R"))

unsupported <- function() stop(structure(class = c("unsupported", "error", "condition"), list(message = "unsupported", call = NULL)))

as_utf8 <- function(bytes) {
  text <- rawToChar(bytes)
  Encoding(text) <- "UTF-8"
  text
}

utf8_bytes <- function(code) {
  if (code == 0) unsupported()
  if (code < 0x80) return(code)
  if (code < 0x800) return(c(0xC0 + code %/% 64, 0x80 + code %% 64))
  if (code < 0x10000) return(c(0xE0 + code %/% 4096, 0x80 + code %/% 64 %% 64, 0x80 + code %% 64))
  c(0xF0 + code %/% 262144, 0x80 + code %/% 4096 %% 64, 0x80 + code %/% 64 %% 64, 0x80 + code %% 64)
}

number <- function(text) {
  if (text %in% c("NaN", "Infinity", "-Infinity")) return(as.numeric(text))
  # R reads decimals with two roundings; jsonlite reads them exactly.
  jsonlite::parse_json(paste0("[", text, "]"))[[1L]]
}

integer_of <- function(text) {
  value <- as.numeric(text)
  if (abs(value) > 2^53 || sprintf("%.0f", value) != text) unsupported()
  if (abs(value) <= .Machine$integer.max) as.integer(value) else value
}

notation <- function(name, value) switch(name,
  `$bytes` = rawToChar(jsonlite::base64_dec(value)),
  `$codes` = as_utf8(as.raw(unlist(lapply(value, utf8_bytes)))),
  `$float` = number(value),
  `$int` = integer_of(value),
  `$repeat` = strrep(value[[1L]], value[[2L]]),
  `$nest` = Reduce(function(inner, i) list(k = inner), seq_len(value), "end"),
  unsupported())

# JSON as R writes it: an array of one type is a vector, a mixed one an unnamed list, an object a named list.
native <- function(x) {
  if (!is.list(x)) return(if (is.character(x)) enc2utf8(x) else x)
  if (length(x) == 1L && startsWith(c(names(x), "")[[1L]], "$")) return(notation(names(x), x[[1L]]))
  # lapply keeps NULLs, and the names.
  x <- lapply(x, native)
  types <- unique(vapply(x, typeof, ""))
  if (is.null(names(x)) && length(x) && length(types) == 1L && all(lengths(x) == 1L) && types != "list") return(unlist(x))
  x
}

sdk <- NULL
opened <- list()

current <- function() if (is.null(sdk)) stop("nothing is open") else sdk

percentiles <- function(took) {
  took <- sort(took) * 1e6
  at <- function(share) took[[max(1, ceiling(share * length(took)))]]
  list(p50 = at(0.5), p99 = at(0.99), p999 = at(0.999), max = took[[length(took)]])
}

burst <- function(n, first = 0, size = NULL) {
  message <- if (is.null(size)) "burst" else strrep("x", size)
  took <- numeric(n)
  began <- Sys.time()
  for (k in seq_len(n)) {
    before <- Sys.time()
    current()$log_event("info", message, list(i = first + k - 1, file = "a.dat", ok = TRUE, x = 1.5))
    took[[k]] <- Sys.time() - before
  }
  c(list(elapsed = as.numeric(Sys.time() - began, units = "secs")), percentiles(took))
}

# quit() in the child runs the exit handlers; what parallel offers would skip them.
fork <- function(calls) {
  child <- parallel:::mcfork()
  if (inherits(child, "masterProcess")) {
    answers <- vapply(calls, answer, "")
    parallel:::sendMaster(paste0("[", paste(answers, collapse = ","), "]"))
    quit("no", 0)
  }
  answers <- unserialize(parallel:::readChild(child))
  while (is.raw(parallel:::readChild(child))) NULL
  structure(paste0("{\"answers\":", answers, ",\"status\":0}"), class = "json")
}

spawn <- function(argv, stdin) {
  output <- suppressWarnings(system2(argv[[1L]], shQuote(unlist(argv[-1L])), stdout = TRUE, input = strsplit(stdin, "\n")[[1L]]))
  status <- attr(output, "status")
  list(stdout = paste0(output, "\n", collapse = ""), status = if (is.null(status)) 0L else status)
}

perform <- function(call, args) switch(call,
  open = { sdk <<- do.call(MonitoringSDK$new, args); opened[[length(opened) + 1L]] <<- sdk; NULL },
  log_event = , log_metric = , log_progress = , log_resource = , set_trace_id = , close = { do.call(current()[[call]], args); NULL },
  start_span = do.call(current()$start_span, args),
  end_span = { do.call(current()$end_span, args); NULL },
  get_stats = current()$get_stats(),
  flush = do.call(current()$flush, args),
  burst = do.call(burst, args),
  fork = fork(args$calls),
  spawn = spawn(args$argv, args$stdin),
  setenv = { for (name in names(args)) if (is.null(args[[name]])) Sys.unsetenv(name) else do.call(Sys.setenv, args[name]); NULL },
  sleep = { Sys.sleep(args$seconds); NULL },
  pid = Sys.getpid(),
  exit = quit("no", 0),
  kill_self = tools::pskill(Sys.getpid(), tools::SIGKILL),
  unsupported())

answer <- function(request) {
  tryCatch({
    args <- if (request$call %in% c("fork", "spawn")) request$args else lapply(request$args, native)
    result <- perform(request$call, args)
    result <- if (inherits(result, "json")) result else jsonlite::toJSON(result, auto_unbox = TRUE, null = "null", digits = NA)
    paste0("{\"ok\":true,\"result\":", result, "}")
  }, error = function(e) {
    paste0("{\"ok\":false,\"error\":", jsonlite::toJSON(conditionMessage(e), auto_unbox = TRUE), "}")
  })
}

input <- file("stdin", "r")
while (length(line <- readLines(input, 1L))) {
  writeLines(answer(jsonlite::parse_json(line)), useBytes = TRUE)
  flush(stdout())
}
