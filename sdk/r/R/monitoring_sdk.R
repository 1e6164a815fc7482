# --- MonitoringSDK -----------------------------------------------------------------------------------------------------

#' One connection to the wafermon sidecar. See help("MonitoringSDK").
MonitoringSDK <- R6::R6Class("MonitoringSDK", cloneable = FALSE, public = list(

  initialize = function(service = NULL, url = NULL, trace_id = NULL, buffer = NULL, spill_dir = NULL, token = NULL) {
    env <- function(name) Sys.getenv(paste0("WAFERMON_", name))
    service <- .wm_first(service, env("SERVICE"), Sys.getenv("OTEL_SERVICE_NAME"))
    if (is.null(service)) .wm_fault("no service: give one, or set WAFERMON_SERVICE")
    private$service <- .wm_check_text(service, "service", "\\A(?!wafermon\\z)[A-Za-z0-9._:-]{1,128}\\z")
    inherited <- .wm_inherited()
    trace <- if (is.null(trace_id)) inherited$trace else .wm_check_text(trace_id, "trace_id", .wm_trace)
    private$path <- list(list2env(list(id = if (identical(trace, inherited$trace)) inherited$span, trace_here = trace)))
    private$found_env <- Sys.getenv(c("WAFERMON_TRACE_ID", "WAFERMON_SPAN_ID", "TRACEPARENT"), NA)
    private$running <- tolower(env("DISABLED")) %in% c("", "0", "false", "no")
    private$spill_dir <- .wm_first(spill_dir, env("SPILL_DIR"))
    if (!is.null(buffer) && !isTRUE(.wm_check_number(buffer, "buffer") >= 1)) .wm_fault("buffer must be at least 1")
    if (is.null(buffer)) buffer <- suppressWarnings(as.numeric(env("BUFFER")))
    url <- .wm_first(url, env("URL"), .wm_default_url)
    target <- .wm_parse_url(url)
    # Base R has no Unix sockets, no TLS, no IPv6. A token meant for another listener doesn't go to the default one.
    token <- if (!is.null(target)) .wm_first(token, env("TOKEN"))
    if (is.null(target)) .wm_stderr("base R can't connect to \"", url, "\", using ", .wm_default_url)
    private$target <- c(.wm_first(target, .wm_parse_url(.wm_default_url)),
                        list(buffer = if (isTRUE(buffer >= 1)) buffer else 1000, token = token))
    private$compress <- env("COMPRESS") == "zlib"
    private$begin()
  },

  log_event = function(level, message, context = NULL) {
    # The usual case costs one look-up, in the language of the wire.
    if (!is.character(level) || length(level) != 1L || !identical(.wm_levels[[level]], level)) level <- .wm_level(level)
    if (inherits(message, "condition")) message <- conditionMessage(message)
    if (!is.character(message) || length(message) != 1L || is.na(message)) message <- .wm_check_text(message, "message")
    plain <- is.list(context) && !is.object(context) && !is.null(names(context))
    if (!plain) context <- .wm_check_object(context, "context")
    # The text by hand, for the time it saves.
    inner <- .wm_fields(context, 1L)
    form <- if (nzchar(inner)) r"("level":"%s","message":"%s","context":{%s})" else r"("level":"%s","message":"%s"%s)"
    text <- sprintf(form, level, if (.wm_count_special(message)) .wm_escape(message) else message, inner)
    private$emit("event", c(list(level = level, message = message), if (length(context)) list(context = context)),
                 text = text)
  },

  log_metric = function(name, value, unit = NULL, tags = NULL, kind = NULL) {
    fields <- list(name = .wm_check_text(name, "name", "(?s)."), value = .wm_check_number(value, "value"))
    # NA is a NaN with a name.
    if (!is.finite(value)) fields$value <- if (is.na(value)) "NaN" else sub("Inf", "Infinity", value)
    if (!is.null(unit)) fields$unit <- .wm_check_text(unit, "unit")
    if (!is.null(kind)) fields$kind <- .wm_check_text(kind, "kind", "\\A(gauge|counter)\\z")
    private$emit("metric", c(fields, .wm_check_tags(tags)))
  },

  log_progress = function(job_id, percent, status = NULL) {
    fields <- list(job_id = .wm_check_text(job_id, "job_id", .wm_trace), percent = .wm_check_number(percent, "percent"))
    if (!isTRUE(fields$percent >= 0 && fields$percent <= 100)) .wm_fault("percent must be from 0 to 100")
    fields$status <- if (is.null(status)) "running" else .wm_check_text(status, "status")
    if (!nchar(.wm_utf8(fields$status)) %in% 1:64) .wm_fault("status must have 1 to 64 characters")
    private$emit("progress", fields)
  },

  log_resource = function(cpu = NULL, mem = NULL, disk = NULL, net = NULL) {
    fields <- Filter(length, list(cpu = cpu, mem = mem, disk = disk, net = net))
    for (name in names(fields)) fields[[name]] <- .wm_check_number(fields[[name]], name)
    private$check_fork()
    if (!length(fields)) fields <- private$measure()
    private$emit("resource", fields[vapply(fields, is.finite, NA)])
  },

  start_span = function(name, trace_id = NULL, tags = NULL) {
    if (!is.null(trace_id)) .wm_check_text(trace_id, "trace_id", .wm_trace)
    fields <- c(list(name = .wm_check_text(name, "name", "(?s).")), .wm_check_tags(tags))
    private$check_fork()
    around <- private$path[[length(private$path)]]
    fields$parent_id <- around$id
    trace <- .wm_first(trace_id, around$trace_here, .wm_id(16L))
    span <- list2env(list(id = .wm_id(), trace = trace, trace_here = trace, fields = fields, pid = private$pid,
                          began = .wm_now(), uptime = .wm_uptime()))
    private$path <- c(private$path, span)
    private$place()
    private$emit("span_start", fields, now = span$began)
    invisible(span$id)
  },

  end_span = function(span_id, status = NULL, tags = NULL) {
    .wm_check_text(span_id, "span_id")
    status <- if (is.null(status)) "ok" else .wm_check_text(status, "status", "\\A(ok|error)\\z")
    tags <- .wm_check_tags(tags)$tags
    private$check_fork()
    at <- match(span_id, vapply(private$path[-1L], function(span) span$id, "")) + 1L
    if (is.na(at)) .wm_fault("unknown span: ", span_id)
    span <- private$path[[at]]
    # The wall clock is exact to the microsecond; where it was set meanwhile, the uptime (10 ms) knows better.
    now <- .wm_now()
    duration <- max(0, now - span$began)
    uptime <- .wm_uptime() - span$uptime
    if (!is.na(uptime) && abs(duration - uptime) > 0.05) duration <- uptime
    fields <- c(span$fields, list(status = status, start = floor(span$began * 1e6), duration = round(duration * 1e6)))
    fields$tags[names(tags)] <- tags
    private$path[[at]] <- NULL
    private$place()
    # A span that the parent process began is the parent's to end.
    if (span$pid == private$pid) private$emit("span_end", fields, private$where_in(span$trace, span$id), now)
    invisible(self)
  },

  set_trace_id = function(trace_id) {
    .wm_check_text(trace_id, "trace_id", .wm_trace)
    # The span of the process that started this one is no parent in another trace.
    if (!identical(private$path[[1L]]$trace_here, trace_id)) assign("id", NULL, private$path[[1L]])
    for (span in private$path) span$trace_here <- trace_id
    private$place()
  },

  get_stats = function() {
    private$check_fork()
    if (private$running) suspendInterrupts(private$work(.wm_now()))
    state <- if (private$live$welcomed) "connected" else "disconnected"
    if (private$running && private$live$full()) state <- "overflow"
    c(state = state, mget(.wm_counts, private$stats), waiting = private$waiting(),
      reconnects = max(0, private$live$welcomes - 1))
  },

  flush = function(timeout = 5) private$work_until(timeout, function() private$waiting() == 0),

  close = function(timeout = 2) {
    # A forked child that never used it has nothing to close, and opens nothing for that.
    private$running <- private$running && private$pid == Sys.getpid()
    private$closing <- TRUE
    private$work_until(timeout, function() private$waiting() == 0 && private$live$settled(), linked = TRUE)
    if (private$running) {
      if (private$live$offered || private$live$welcomes == 0) private$tell()
      suspendInterrupts(private$spill$leave(private$live$client, private$live$lines()))
      private$live$hang_up()
    }
    private$running <- FALSE
    for (name in names(private$found_env)) .wm_export(name, private$found_env[[name]])
    private$found_env <- NULL
    invisible(self)
  }
), private = list(
  # The open spans are `path`: first what the process began in (id, trace_here), the innermost span last.
  service = NULL, target = NULL, spill_dir = NULL, found_env = NULL,
  path = NULL, where = NULL, running = TRUE, pid = NULL, stats = NULL, live = NULL, spill = NULL, unreported = 0,
  measured = c(cpu = 0, at = 0), compress = FALSE,
  # For stats lines: when the first message was given that none has told of; the seq of the newest; the hash of a trace.
  untold = NULL, told = 0, closing = FALSE, hashed = NULL,

  # R6 registers it with reg.finalizer(onexit = TRUE): it also runs at the normal end of the process.
  finalize = function() self$close(),

  # A new life: of a new object, and in a forked child.
  begin = function() {
    private$pid <- Sys.getpid()
    private$stats <- list2env(as.list(structure(numeric(length(.wm_counts)), names = .wm_counts)))
    hello <- .wm_fields(c(list(sdk = "r/2.0.0", ack = TRUE), token = private$target$token))
    hello <- paste0(private$where_in(), ",", hello)
    link <- list2env(c(private$target, list(hello = hello, stats = private$stats, compress = private$compress)))
    private$live <- .wm_stream(link)
    private$spill <- .wm_spill(link, private$spill_dir, private$service, private$pid)
    private$unreported <- private$told <- 0
    private$untold <- NULL
    private$place()
    # A short wait for the welcome, so that the calls that follow leave the process at once: a child of
    # parallel::mclapply() ends without exit handlers. No other call waits.
    if (private$running) private$work_until(0.1, function() private$live$welcomed, linked = TRUE)
  },

  check_fork = function() {
    if (private$pid == Sys.getpid()) return(invisible())
    private$live$hang_up()
    private$spill$release()
    private$measured <- c(cpu = 0, at = proc.time()[[3L]])
    private$begin()
  },

  waiting = function() if (private$running) private$live$held + private$spill$waiting() else 0,

  # Every message passes here. `where` is evaluated late, after a fork has been noticed.
  emit = function(type, fields, where = private$where, now = unclass(Sys.time()), text = .wm_fields(fields)) {
    if (private$pid != Sys.getpid()) private$check_fork()
    # client and seq come later; the longest take 60 bytes.
    comma <- if (nzchar(text)) "," else ""
    body <- sprintf("{\"type\":\"%s\",\"ts\":%.0f%s%s%s", type, floor(now * 1e6), where, comma, text)
    excess <- nchar(body, "bytes") - .wm_max_line + 60
    if (excess > 0) return(private$emit(type, fields, where, now, .wm_shorten(fields, nchar(text, "bytes") - excess)))
    suspendInterrupts({
      private$stats$called <- private$stats$called + 1
      if (is.null(private$untold)) private$untold <- now
      if (private$running) private$keep(body, now) else private$drop()
    })
    invisible(self)
  },

  drop = function() private$stats$dropped <- private$stats$dropped + 1,

  keep = function(body, now) {
    if (!private$live$full() || { private$work(now); !private$live$full() }) {
      private$live$give(body)
    } else if (!private$spill$append(body)) {
      private$drop()
      private$unreported <- private$unreported + 1
    }
    private$work(now, eager = FALSE)
  },

  # Says what this SDK has sent, so that the sidecar can judge what is missing. Nothing new is no reason.
  tell = function() {
    last <- private$live$last
    if (private$stats$called == 0 || last == private$told) return(invisible())
    streams <- private$spill$streams
    streams <- paste(sprintf("{\"client\":\"%s\",\"last\":%.0f}", names(streams), streams), collapse = ",")
    fields <- .wm_fields(list(called = private$stats$called, dropped = private$stats$dropped, unsent = 0, last = last))
    final <- if (private$closing) ",\"final\":true" else ""
    form <- "%s\"ts\":%.0f%s,%s,\"streams\":[%s]%s"
    body <- sprintf(form, .wm_stats_line, floor(.wm_now() * 1e6), private$where_in(), fields, streams, final)
    private$live$give(body, 0)
    private$told <- private$live$last
    private$untold <- NULL
  },

  # One round of what can be done without waiting. The report of drops and the spill files wait for a connection that
  # keeps up.
  work = function(now, eager = TRUE) {
    private$live$pump(now, eager)
    if (private$unreported > 0 || !private$spill$idle()) private$catch_up(now)
    due <- private$closing || !is.null(private$untold) && abs(now - private$untold) >= .wm_told
    if (due && private$live$welcomed && private$live$offered && private$unreported == 0) {
      private$tell()
      private$live$pump(now)
    }
  },

  catch_up = function(now) {
    if (!private$live$welcomed || private$live$full()) return(invisible())
    count <- private$unreported
    private$unreported <- 0
    report <- list(kind = "dropped", count = count)
    if (count > 0) self$log_event("warning", sprintf("%.0f messages dropped", count), report)
    private$spill$pump(now)
  },

  # TRUE once it is done; FALSE when the time is over, or as soon as there is no connection where that counts.
  work_until = function(timeout, done, linked = FALSE) {
    private$check_fork()
    began <- .wm_now()
    repeat {
      if (private$running) suspendInterrupts(private$work(.wm_now()))
      if (done()) return(TRUE)
      left <- timeout - abs(.wm_now() - began)
      if (left <= 0 || linked && is.null(private$live$con)) return(FALSE)
      .wm_first(if (private$live$held == 0) private$spill$stream, private$live)$wait(left)
    }
  },

  # The fields that say where a message comes from.
  where_in = function(trace = NULL, span = NULL) {
    fields <- list(service = private$service, host = Sys.info()[["nodename"]], pid = private$pid)
    paste0(",", .wm_fields(c(fields, trace_id = trace, span_id = span)))
  },

  # After each change of trace or span: for the next messages, and for child processes.
  place = function() {
    here <- private$path[[length(private$path)]]
    private$where <- private$where_in(here$trace_here, here$id)
    .wm_export("WAFERMON_TRACE_ID", here$trace_here)
    .wm_export("WAFERMON_SPAN_ID", here$id)
    .wm_export("TRACEPARENT", .wm_traceparent(here$trace_here, here$id, function() private$hash_of(here$trace_here)))
    invisible(self)
  },

  # Of the last trace that needed one.
  hash_of = function(trace) {
    if (!identical(private$hashed[["trace"]], trace)) private$hashed <- list(trace = trace, hash = .wm_sha256(trace))
    private$hashed$hash
  },

  # Of this process, as far as Linux tells; it doesn't count network bytes by process.
  measure = function() {
    total <- function(path, pattern) {
      found <- grep(pattern, .wm_lines(path), value = TRUE)
      if (length(found)) sum(as.numeric(gsub("[^0-9]", "", found))) else NA
    }
    spent <- c(cpu = sum(proc.time()[1:2]), at = proc.time()[[3L]])
    passed <- spent - private$measured
    private$measured <- spent
    list(cpu = max(0, 100 * passed[["cpu"]] / passed[["at"]]), mem = 1024 * total("/proc/self/status", "^VmRSS:"),
         disk = total("/proc/self/io", "^(read|write)_bytes:"))
  }
))

#' Evaluates `expr` inside a span, which ends with it: "error" where `expr` fails, else "ok". See help("with_span").
with_span <- function(sdk, name, expr, trace_id = NULL, tags = NULL) {
  id <- sdk$start_span(name, trace_id, tags)
  status <- "ok"
  on.exit(sdk$end_span(id, status))
  withCallingHandlers(expr, error = function(e) status <<- "error", interrupt = function(i) status <<- "error")
}
