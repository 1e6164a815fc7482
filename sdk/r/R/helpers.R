# wafermon's SDK for R: a package, or one file to source() as it is. It needs R >= 4.2, R6 and jsonlite.
#
# What it promises:
# - a logging call never waits for the network and never fails because of it; a programming error does, at the call;
# - a message is kept until the sidecar has acknowledged its (client, seq), and is sent again after a lost connection;
# - what the memory can't hold goes to spill files; what those can't hold is dropped, counted and reported;
# - the random seed, the options and the connections of the session stay as they are.
#
# R has no thread: every call does the network work that can be done at once. Part by part: helpers, values to JSON, the
# place in a trace, the stream (one client, its seqs, its connection), the spill (its files), MonitoringSDK (what the
# world sees), the logger package.
#
# R's sockets lie: after the peer's close the first write succeeds, the second fails, the third "succeeds" again, and a
# write that was cut short doesn't say where. So only acks count, a write follows a select that grants it, and after any
# warning the connection is given up.

.wm_max_line <- 65536
.wm_max_memory <- 4 * 1024^2   # bytes waiting, and bytes sent but unacknowledged
.wm_max_file <- 1024^2
.wm_max_spill <- 64 * 1024^2
.wm_max_depth <- 8
.wm_batch <- 64                # lines per write; with the chunk it bounds what one call can cost
.wm_chunk <- 16384             # Linux calls a socket writable when a third of its buffer is free, which holds this
.wm_small <- 2048
.wm_frame_least <- 1024        # bytes of lines that are worth a frame, and that go into one
.wm_frame_most <- 65536
.wm_frame_lines <- 512
.wm_told <- 5                  # seconds after a message until a stats line tells of it
.wm_max_streams <- 1000        # of so many spill files, the newest
.wm_silence <- 5
.wm_default_url <- "tcp://127.0.0.1:7411"
.wm_levels <- list(debug = "debug", info = "info", warning = "warning", error = "error", critical = "critical",
                   warn = "warning", err = "error", fatal = "critical")
.wm_stats_line <- "{\"type\":\"stats\","
.wm_counts <- c("called", "sent", "acked", "rejected", "dropped", "spilled", "handed_over", "resent")

# --- Helpers -----------------------------------------------------------------------------------------------------------

# R knows no monotonic clock. Below, time that has passed is abs(now - then): where the wall clock was set, either
# way, what is waited for comes early.
.wm_now <- function() unclass(Sys.time())

.wm_lines <- function(path) tryCatch(readLines(path), error = function(e) NULL, warning = function(w) NULL)

# To 10 ms; NA where there is no /proc.
.wm_uptime <- function() as.numeric(sub(" .*", "", c(.wm_lines("/proc/uptime"), NA)[[1L]]))

# Bytes of the system's random source, never of R's generator. (The warning: it is no regular file.)
.wm_random <- function(n) suppressWarnings(readBin("/dev/urandom", "raw", n))

.wm_id <- function(bytes = 8L) paste(as.character(.wm_random(bytes)), collapse = "")

.wm_uniform <- function() sum(as.integer(.wm_random(4L)) / 256^(1:4))

.wm_stderr <- function(...) cat("wafermon: ", ..., "\n", sep = "", file = stderr())

.wm_fault <- function(...) stop("wafermon: ", ..., call. = FALSE)

# The first that is given; an empty string is not.
.wm_first <- function(...) {
  for (i in seq_len(...length())) if (length(...elt(i)) && !identical(...elt(i), "")) return(...elt(i))
}

# An object that came from another process (parLapply sends what a function refers to) knows its connections by numbers
# that are somebody else's here: the pointer in them is null, which is what serializing makes of any pointer.
.wm_close <- function(con) {
  pointer <- attr(con, "conn_id")
  if (!identical(pointer, unserialize(serialize(pointer, NULL)))) tryCatch(close(con), error = function(e) NULL)
}

.wm_export <- function(name, value) {
  if (is.null(value) || is.na(value)) Sys.unsetenv(name) else do.call(Sys.setenv, structure(list(value), names = name))
}

.wm_trace <- "\\A[!-~]{1,128}\\z"

# How many of the lines are messages: a rejected one is empty, and a stats line counts nowhere.
.wm_messages <- function(lines) sum(nzchar(lines) & !startsWith(lines, .wm_stats_line))

# The name of a level: in any case, by what other libraries call it, or as one of logging's numbers.
.wm_level <- function(level) {
  text <- if (length(level) == 1L) tolower(as.character(level)) else NA
  if (grepl("^([1-4][0-9]|50)$", text)) return(names(.wm_levels)[[as.integer(text) %/% 10L]])
  name <- if (!is.na(text)) .wm_levels[[text]]
  if (is.null(name)) .wm_fault("unknown level: ", level)
  name
}

# The other addresses of a name, of which base R knows the first alone.
.wm_addresses <- function(host) {
  if (host == "localhost" || !grepl("[A-Za-z]", host)) return(NULL)
  answer <- function() system2("getent", c("ahostsv4", host), stdout = TRUE, stderr = FALSE)
  lines <- tryCatch(suppressWarnings(answer()), error = function(e) NULL)
  utils::head(unique(sub(" .*", "", lines)), 4L)
}

.wm_check_text <- function(value, what, pattern = "") {
  if (!is.character(value) || length(value) != 1L || is.na(value)) .wm_fault(what, " must be one string")
  if (!nzchar(pattern) || grepl(pattern, value, perl = TRUE, useBytes = TRUE)) return(value)
  .wm_fault("bad ", what, ": \"", value, "\"")
}

.wm_check_number <- function(value, what) {
  if (inherits(value, "difftime")) value <- .wm_plain(value)
  if (length(value) != 1L || !is.numeric(value) && !identical(value, NA)) .wm_fault(what, " must be one number")
  as.double(value)
}

.wm_check_object <- function(value, what) {
  if (!length(value) || !is.null(names(value)) && (is.atomic(value) || is.list(value))) return(as.list(value))
  .wm_fault(what, " must be a named list")
}

# As the field `tags`, if there are any. Tags are strings and numbers; what is neither is sent as its JSON text.
.wm_check_tags <- function(value) {
  tags <- lapply(lapply(.wm_check_object(value, "tags"), .wm_unclass), function(tag)
    if (length(tag) == 1L && (is.numeric(tag) || is.character(tag))) tag else .wm_value(tag, 1L))
  if (length(tags)) list(tags = tags)
}

.wm_parse_url <- function(url) {
  parts <- regmatches(url, regexec("^tcp://([A-Za-z0-9._-]+):([0-9]{1,5})/?$", url))[[1L]]
  if (length(parts) && as.integer(parts[[3L]]) %in% 1:65535) list(host = parts[[2L]], port = as.integer(parts[[3L]]))
}
