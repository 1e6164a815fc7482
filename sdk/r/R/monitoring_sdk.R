# wafermon's SDK for R: one file, a package or source()d as it is. It needs R >= 4.2, R6 and jsonlite.
#
# What it promises:
# - a logging call never waits for the network and never fails because of it; a programming error does, at the call;
# - a message is kept until the sidecar has acknowledged its (client, seq), and is sent again after a lost connection;
# - what the memory can't hold goes to spill files; what those can't hold is dropped, counted and reported;
# - the random seed, the options and the connections of the session stay as they are.
#
# From top to bottom: values to JSON, helpers, the stream (one client, its seqs, its connection), the spill (its files),
# MonitoringSDK (what the world sees). R has no thread: every call does the network work that can be done at once.
#
# R's sockets lie: after the peer's close the first write succeeds, the second fails, the third "succeeds" again, and a
# write that was cut short doesn't say where. So only acks count, a write follows a select that grants it, and after any
# warning the connection is given up.

.wm_max_line <- 65536
.wm_max_memory <- 4 * 1024^2   # bytes waiting, and bytes sent but unacknowledged
.wm_max_file <- 1024^2
.wm_max_spill <- 64 * 1024^2
.wm_max_depth <- 8
.wm_batch <- 64                # lines a write; with the chunk it bounds what one call can cost
.wm_chunk <- 16384             # Linux calls a socket writable when a third of its buffer is free, which holds this
.wm_silence <- 5
.wm_default_url <- "tcp://127.0.0.1:7411"
.wm_levels <- c("debug", "info", "warning", "error", "critical")
.wm_counts <- c("called", "sent", "acked", "rejected", "dropped", "spilled", "handed_over", "resent", "reconnects")

# --- Values to JSON -------------------------------------------------------------------------------------------------
# Made by hand: jsonlite::toJSON takes 300 us for a small record and prints 0.1 + 0.2 as 0.3.

# Valid UTF-8, marked as such. An unmarked string is taken as UTF-8 in any locale: under cron the locale is C.
.wm_utf8 <- function(x) {
  latin1 <- Encoding(x) == "latin1"
  if (any(latin1)) x[latin1] <- enc2utf8(x[latin1])
  # iconv lets pass what lies beyond U+10FFFF; there every byte that isn't ASCII goes.
  for (from in c("UTF-8", "ASCII")) {
    bad <- !validUTF8(x)
    if (any(bad)) x[bad] <- iconv(x[bad], from, "UTF-8", sub = "\xef\xbf\xbd")
  }
  Encoding(x) <- "UTF-8"
  x
}

.wm_controls <- intToUtf8(1:31, multiple = TRUE)
.wm_control_escapes <- sprintf("\\u%04x", 1:31)
.wm_control_escapes[c(8, 9, 10, 12, 13)] <- c("\\b", "\\t", "\\n", "\\f", "\\r")

# By byte: what is not printable ASCII, or is a quote or a backslash. A tenth of what a regular expression costs.
.wm_special <- !(0:255 %in% setdiff(32:126, c(34, 92)))

.wm_is_plain <- function(text) !any(.wm_special[as.integer(charToRaw(text)) + 1L])

.wm_escape <- function(x) {
  x <- .wm_utf8(x)
  special <- grepl("[\"\\\\\001-\037]", x, perl = TRUE, useBytes = TRUE)
  if (!any(special)) return(x)
  y <- gsub("\"", "\\\"", gsub("\\", "\\\\", x[special], fixed = TRUE), fixed = TRUE)
  for (i in which(vapply(.wm_controls, function(control) any(grepl(control, y, fixed = TRUE)), NA))) {
    y <- gsub(.wm_controls[[i]], .wm_control_escapes[[i]], y, fixed = TRUE)
  }
  x[special] <- y
  x
}

# A double with at most six decimals: its quotient is rounded once, so what sprintf() prints reads back equal.
.wm_double <- function(x) {
  scaled <- round(x * 1e6)
  if (!is.na(scaled) && scaled / 1e6 == x && abs(scaled) < 1e15) sprintf("%.15g", x) else .wm_numbers(x)
}

# The shortest of %.15g, %.16g, %.17g that reads back equal. as.numeric() rounds twice and now and then takes the
# neighbour for equal; jsonlite reads with the C library, exactly.
.wm_numbers <- function(x) {
  text <- sprintf("%.17g", x)
  finite <- is.finite(x)
  for (digits in c("%.16g", "%.15g")) {
    shorter <- sprintf(digits, x[finite])
    same <- unlist(jsonlite::parse_json(paste0("[", paste(shorter, collapse = ","), "]"))) == x[finite]
    text[finite][same] <- shorter[same]
  }
  text[!finite] <- "null"
  text
}

# A value of a class as the plain value that stands for it.
.wm_unclass <- function(x) {
  if (inherits(x, "POSIXt")) {
    micros <- round(as.numeric(as.POSIXct(x)) * 1e6)
    seconds <- as.POSIXct(micros %/% 1e6, origin = "1970-01-01", tz = "UTC")
    fraction <- sub("\\.?0+$", "", sprintf(".%06.0f", micros %% 1e6))
    return(ifelse(is.na(micros), NA_character_, paste0(format(seconds, "%Y-%m-%dT%H:%M:%S"), fraction, "Z")))
  }
  if (inherits(x, "integer64") && !isTRUE(any(abs(x) > 2^53))) return(as.double(x))
  if (is.factor(x) || inherits(x, c("Date", "integer64", "numeric_version"))) return(as.character(x))
  if (is.list(x) || is.atomic(x)) unclass(x) else x
}

.wm_atoms <- function(x) {
  if (is.double(x)) return(.wm_numbers(x))
  text <- switch(typeof(x),
    integer = sprintf("%d", x),
    logical = ifelse(x, "true", "false"),
    paste0("\"", .wm_escape(as.character(x)), "\""))
  text[is.na(x)] <- "null"
  text
}

.wm_value <- function(x, depth) {
  if (is.object(x)) x <- .wm_unclass(x)
  if (is.null(x)) return("null")
  if (is.atomic(x) && length(x) == 1L) return(.wm_atoms(x))
  if (depth <= .wm_max_depth) {
    if (is.atomic(x)) return(paste0("[", paste(.wm_atoms(x), collapse = ","), "]"))
    if (is.list(x) && !is.null(names(x))) return(paste0("{", .wm_fields(x, depth), "}"))
    if (is.list(x)) return(paste0("[", paste(vapply(x, .wm_value, "", depth + 1L), collapse = ","), "]"))
  }
  text <- if (is.list(x) || is.atomic(x)) deparse(x, nlines = 1L)[[1L]] else paste0("<", class(x)[[1L]], ">")
  paste0("\"", .wm_escape(text), "\"")
}

# A named list as `"key":value,…`. Empty lists and vectors are left out, NULL is null. This is the hot path: keys and
# plain strings are looked through together, and most of the time there is nothing to escape.
.wm_fields <- function(x, depth = 0L) {
  size <- lengths(x)
  if (!all(size)) x <- x[size > 0L | vapply(x, is.null, NA)]
  n <- length(x)
  if (!n) return("")
  keys <- names(x)
  values <- texts <- ends <- character(n)
  for (i in seq_len(n)) {
    value <- x[[i]]
    values[[i]] <- if (length(value) != 1L || is.object(value)) .wm_value(value, depth + 1L) else switch(typeof(value),
      character = if (is.na(value)) "null" else {
        texts[[i]] <- value
        ends[[i]] <- "\""
      },
      double = .wm_double(value),
      integer = if (is.na(value)) "null" else as.character(value),
      logical = if (is.na(value)) "null" else if (value) "true" else "false",
      .wm_value(value, depth + 1L))
  }
  if (!all(nzchar(keys))) keys[!nzchar(keys)] <- which(!nzchar(keys))
  if (!.wm_is_plain(paste0(keys, texts, collapse = ""))) {
    keys <- .wm_escape(keys)
    texts <- .wm_escape(texts)
  }
  paste0("\"", keys, "\":", values, texts, ends, collapse = ",")
}

# The fields within `limit` bytes: the longest string is cut, by half at most so that it doesn't end as the shortest,
# again and again; then context and tags go.
.wm_shorten <- function(fields, limit) {
  fields <- rapply(fields, .wm_utf8, "character", how = "replace")
  fields$truncated <- TRUE
  repeat {
    text <- .wm_fields(fields)
    excess <- nchar(text, "bytes") - limit
    if (excess <= 0) return(text)
    longest <- max(0, rapply(fields, nchar, "character", how = "unlist", type = "bytes"))
    if (longest <= 64) fields[c("context", "tags")] <- NULL
    shorter <- max(longest %/% 2, longest - excess)
    if (longest > 64) fields <- rapply(fields, .wm_cut, "character", how = "replace", bytes = longest, to = shorter)
  }
}

# Strings of so many bytes to less; iconv takes away the character that is cut in two.
.wm_cut <- function(x, bytes, to) {
  long <- nchar(x, "bytes") == bytes
  cut <- x[long]
  Encoding(cut) <- "bytes"
  x[long] <- iconv(substr(cut, 1L, to), "UTF-8", "UTF-8", sub = "")
  x
}

# --- Helpers --------------------------------------------------------------------------------------------------------

.wm_now <- function() unclass(Sys.time())

# Seconds since `then`. R knows no monotonic clock: a wall clock that was set back counts as time enough.
.wm_since <- function(then, now) if (now < then) Inf else now - then

.wm_lines <- function(path) tryCatch(readLines(path), error = function(e) NULL, warning = function(w) NULL)

# To 10 ms; NA where there is no /proc.
.wm_uptime <- function() {
  line <- .wm_lines("/proc/uptime")
  if (length(line)) as.numeric(sub(" .*", "", line)) else NA
}

.wm_pool <- new.env()
.wm_pool$pid <- 0L

# Bytes of the system's random source, never of R's generator. Read ahead, but not across a fork.
.wm_random <- function(n) {
  if (.wm_pool$pid != Sys.getpid() || length(.wm_pool$bytes) < n) {
    source <- file("/dev/urandom", "rb", raw = TRUE)
    on.exit(close(source))
    .wm_pool$bytes <- readBin(source, "raw", 512L)
    .wm_pool$pid <- Sys.getpid()
  }
  taken <- .wm_pool$bytes[seq_len(n)]
  .wm_pool$bytes <- .wm_pool$bytes[-seq_len(n)]
  taken
}

.wm_id <- function(bytes = 8L) paste(as.character(.wm_random(bytes)), collapse = "")

.wm_uniform <- function() sum(as.integer(.wm_random(4L)) / 256^(1:4))

.wm_stderr <- function(...) cat("wafermon: ", ..., "\n", sep = "", file = stderr())

.wm_fault <- function(...) stop("wafermon: ", ..., call. = FALSE)

# The first that is given; an empty string is not.
.wm_first <- function(...) {
  for (i in seq_len(...length())) if (length(...elt(i)) && !identical(...elt(i), "")) return(...elt(i))
}

.wm_export <- function(name, value) {
  if (is.null(value) || is.na(value)) Sys.unsetenv(name) else do.call(Sys.setenv, structure(list(value), names = name))
}

.wm_is_trace <- function(text) grepl("\\A[!-~]{1,128}\\z", text, perl = TRUE, useBytes = TRUE)

.wm_check_text <- function(value, what, pattern = "") {
  if (is.factor(value)) value <- as.character(value)
  if (!is.character(value) || length(value) != 1L || is.na(value)) .wm_fault(what, " must be one string")
  if (nzchar(pattern) && !grepl(pattern, value, perl = TRUE, useBytes = TRUE)) .wm_fault("bad ", what, ": \"", value, "\"")
  value
}

.wm_check_name <- function(value) .wm_check_text(value, "name", "(?s).")

.wm_check_trace <- function(value, what = "trace_id") {
  if (!.wm_is_trace(.wm_check_text(value, what))) .wm_fault(what, " must be 1-128 printable ASCII characters without space")
  value
}

.wm_check_number <- function(value, what) {
  if (!is.numeric(value) && !identical(value, NA) || length(value) != 1L) .wm_fault(what, " must be one number")
  as.double(value)
}

.wm_check_object <- function(value, what) {
  if (!length(value)) return(NULL)
  if (is.atomic(value)) value <- as.list(value)
  if (!is.list(value) || is.null(names(value))) .wm_fault(what, " must be a named list")
  value
}

# Tags are strings and numbers; what is neither is sent as its JSON text.
.wm_check_tags <- function(value) {
  lapply(.wm_check_object(value, "tags"), function(tag) {
    if (is.object(tag)) tag <- .wm_unclass(tag)
    if (length(tag) == 1L && (is.numeric(tag) || is.character(tag))) tag else .wm_value(tag, 1L)
  })
}

.wm_parse_url <- function(url) {
  parts <- regmatches(url, regexec("^tcp://([A-Za-z0-9._-]+):([0-9]{1,5})/?$", url))[[1L]]
  if (length(parts) && as.integer(parts[[3L]]) %in% 1:65535) list(host = parts[[2L]], port = as.integer(parts[[3L]]))
}

# Trace and span of the process that started this one. The environment is no programming error: what is malformed there
# is not taken.
.wm_inherited <- function() {
  parent <- Sys.getenv("TRACEPARENT")
  parent <- regmatches(parent, regexec("^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-", parent))[[1L]]
  trace <- Sys.getenv("WAFERMON_TRACE_ID")
  span <- Sys.getenv("WAFERMON_SPAN_ID")
  if (!grepl("^[0-9a-f]{16}$", span)) span <- NULL
  if (.wm_is_trace(trace)) return(list(trace = trace, span = span))
  if (length(parent)) list(trace = parent[[2L]], span = .wm_first(span, parent[[3L]]))
}

# --- The stream -------------------------------------------------------------------------------------------------------

# Lines by seq. Dead ones are let go when they are the half.
.wm_queue <- function(base) {
  force(base)
  lines <- character()
  list(
    push = function(line) lines[[length(lines) + 1L]] <<- line,
    slice = function(from, to) lines[(from - base):(to - base)],
    blank = function(seq) lines[[seq - base]] <<- "",
    drop = function(upto) {
      if (2 * (upto - base) > length(lines)) {
        lines <<- lines[-seq_len(upto - base)]
        base <<- upto
      }
    })
}

# An environment whose functions are its methods: R6 would double the cost of a call, and `self$x[i] <- y` copies x.
# link: host, port, hello (what comes after the client), buffer, stats, said (what went to stderr).
# refill: gives more lines, none at the end; for a spill file.
.wm_stream <- function(link, client = .wm_id(), first = 1, refill = NULL) {
  con <- both <- NULL
  welcomed <- FALSE
  stats <- link$stats

  # first (oldest unacknowledged) <= unsent (next for the socket) <= last + 1; high ever went to a socket. A rejected
  # line stays in its place as "".
  unsent <- first
  last <- high <- first - 1
  queue <- .wm_queue(last)
  suffix <- paste0(",\"client\":\"", client, "\",\"seq\":")
  held <- waiting_bytes <- window_bytes <- 0

  rest <- raw()
  inbox <- ""
  heard <- 0
  lost_at <- -Inf
  pause <- failures <- 0
  met <- FALSE

  full <- function() last - high >= link$buffer || waiting_bytes >= .wm_max_memory

  # Gives the body of a message its seq and keeps it.
  give <- function(body) push(paste0(body, suffix, sprintf("%.0f}\n", last + 1)))

  push <- function(line) {
    queue$push(line)
    last <<- last + 1
    held <<- held + 1
    waiting_bytes <<- waiting_bytes + nchar(line, "bytes")
  }

  # What no acknowledgement has come for.
  lines <- function() {
    if (last < first) return(character())
    lines <- queue$slice(first, last)
    lines[nzchar(lines)]
  }

  # Does what can be done without waiting: connects, reads, writes. A logging call is not eager: acks may gather a while.
  pump <- function(now, eager = TRUE) {
    if (is.null(con)) return(if (.wm_since(lost_at, now) >= pause) connect(now))
    tryCatch({
      ready <- socketSelect(both, c(FALSE, TRUE), 0)
      if (ready[[1L]] && (eager || !welcomed || high - first > 256 || .wm_since(heard, now) > 0.02)) read(now)
      if (welcomed && ready[[2L]]) write(now)
      if (!is.null(con) && awaits() && .wm_since(heard, now) > .wm_silence) hang_up(now)
    }, condition = function(c) hang_up(now))
  }

  # Waits for the socket, at most so long.
  wait <- function(seconds) {
    if (is.null(con)) return(Sys.sleep(min(seconds, 0.01)))
    more <- welcomed && (length(rest) > 0 || unsent <= last)
    tryCatch(socketSelect(both, c(FALSE, more), min(seconds, 0.05)), error = function(e) NULL)
  }

  # Full jitter: somewhere between 0 and a bound that doubles from 0.1 s to 30 s.
  hang_up <- function(now) {
    abandon()
    pause <<- .wm_uniform() * min(30, 0.1 * 2^failures)
    failures <<- min(failures + 1, 20)
    lost_at <<- now
  }

  # Base R can close a socket, not shut it down; in a forked child that is just what is wanted.
  abandon <- function() {
    if (!is.null(con)) tryCatch(close(con), error = function(e) NULL)
    con <<- both <<- NULL
    welcomed <<- FALSE
    rest <<- raw()
    inbox <<- ""
  }

  # Base R waits in connect(): a closed port refuses at once, a host that swallows packets costs the second.
  connect <- function(now) {
    tryCatch({
      con <<- suppressWarnings(socketConnection(link$host, link$port, blocking = FALSE, open = "r+b", timeout = 1))
      both <<- list(con, con)
      socketTimeout(con, 0)
      writeBin(charToRaw(paste0("{\"v\":2,\"type\":\"hello\",\"client\":\"", client, "\"", link$hello, "}\n")), con)
      heard <<- now
    }, condition = function(c) hang_up(now))
  }

  awaits <- function() !welcomed || first < unsent

  read <- function(now) {
    bytes <- readBin(con, "raw", 4096L)
    if (!length(bytes)) return(hang_up(now))
    heard <<- now
    text <- paste0(inbox, rawToChar(bytes))
    replies <- strsplit(text, "\n", fixed = TRUE)[[1L]]
    inbox <<- ""
    if (!endsWith(text, "\n")) {
      inbox <<- replies[[length(replies)]]
      replies <- replies[-length(replies)]
      if (nchar(inbox, "bytes") > .wm_max_line) return(hang_up(now))
    }
    # Of plain acks the highest counts, after what came with them: an error goes before the ack that covers it.
    seqs <- rep(NA_real_, length(replies))
    acks <- startsWith(replies, "{\"type\":\"ack\",\"seq\":")
    seqs[acks] <- suppressWarnings(as.numeric(substring(replies[acks], 21L, nchar(replies[acks], "bytes") - 1L)))
    for (reply in replies[is.na(seqs)]) heed(reply, now)
    if (!all(is.na(seqs))) settle(max(seqs, na.rm = TRUE))
  }

  heed <- function(line, now) {
    reply <- tryCatch(jsonlite::parse_json(line), error = function(e) NULL)
    if (!is.list(reply) || !is.character(reply$type)) return(invisible())
    seq <- if (is.numeric(reply$seq)) reply$seq else 0
    switch(reply$type,
      welcome = greet(reply),
      ack = settle(seq),
      error = if (welcomed) reject(seq) else refused(reply, now))
  }

  greet <- function(welcome) {
    if (welcomed) return(invisible())
    if (met && is.null(refill)) stats$reconnects <<- stats$reconnects + 1
    welcomed <<- met <<- TRUE
    failures <<- 0
    if (is.numeric(welcome$acked)) settle(welcome$acked)
    unsent <<- first
  }

  refused <- function(reply, now) {
    if (is.null(link$said$refused)) .wm_stderr("the sidecar refuses: ", reply$code, " ", reply$detail)
    link$said$refused <- TRUE
    hang_up(now)
  }

  settle <- function(seq) {
    seq <- min(seq, high)
    if (seq < first) return(invisible())
    size <- nchar(queue$slice(first, seq), "bytes")
    count <- sum(size > 0)
    window_bytes <<- window_bytes - sum(size)
    queue$drop(seq)
    first <<- seq + 1
    unsent <<- max(unsent, first)
    held <<- held - count
    stats$acked <<- stats$acked + count
  }

  reject <- function(seq) {
    if (seq < first || seq > high || !nzchar(queue$slice(seq, seq))) return(invisible())
    window_bytes <<- window_bytes - nchar(queue$slice(seq, seq), "bytes")
    queue$blank(seq)
    held <<- held - 1
    stats$rejected <<- stats$rejected + 1
    # What is at the front is settled now; no ack may follow.
    while (first <= high && !nzchar(queue$slice(first, first))) settle(first)
  }

  write <- function(now) {
    repeat {
      if (!length(rest)) rest <<- take(now)
      if (!length(rest)) return(invisible())
      chunk <- rest[seq_len(min(length(rest), .wm_chunk))]
      writeBin(chunk, con)
      rest <<- rest[-seq_along(chunk)]
      if (!length(rest) || !socketSelect(list(con), TRUE, 0)) return(invisible())
    }
  }

  # The bytes of the next lines: a batch, or one line that is longer than the chunk.
  take <- function(now) {
    if (unsent > last && !is.null(refill)) for (line in refill()) push(line)
    to <- min(last, unsent + .wm_batch - 1)
    if (window_bytes >= .wm_max_memory) to <- min(to, high)
    if (to < unsent) return(raw())
    batch <- queue$slice(unsent, to)
    size <- nchar(batch, "bytes")
    if (length(batch) > 1L) {
      fit <- seq_len(max(1L, sum(cumsum(size) <= .wm_chunk)))
      batch <- batch[fit]
      size <- size[fit]
    }
    if (!awaits()) heard <<- now
    again <- seq_len(max(0, min(length(batch), high - unsent + 1)))
    if (length(again)) {
      stats$resent <<- stats$resent + sum(size[again] > 0)
      size <- size[-again]
    }
    stats$sent <<- stats$sent + length(size)
    window_bytes <<- window_bytes + sum(size)
    waiting_bytes <<- waiting_bytes - sum(size)
    unsent <<- unsent + length(batch)
    high <<- max(high, unsent - 1)
    charToRaw(paste(batch, collapse = ""))
  }

  environment()
}

# --- The spill ----------------------------------------------------------------------------------------------------------

# Files, oldest first. The last one is written while `open`; the first one is sent by `stream` once the SDK is connected.
# R has no flock: a file is opened, written and closed for each message, which its owner's pid protects.
.wm_spill <- function(link, dir, service, pid) {
  files <- list()
  open <- FALSE
  stream <- reader <- taken <- NULL
  unread <- 0
  stats <- link$stats

  idle <- function() !length(files)

  # In files that are still ours.
  waiting <- function() {
    left <- vapply(files, function(file) file$count, 0)
    if (is.null(stream)) sum(left) else sum(left[-1L]) + unread + stream$held
  }

  room <- function(size) size + sum(vapply(files, function(file) file$bytes, 0)) <= .wm_max_spill

  path <- function(client) file.path(find_dir(), paste0(service, ".", pid, ".", client, ".ldjson"))

  # Below /tmp a directory of ours alone will do: nobody may have laid one there before.
  find_dir <- function() {
    if (is.null(dir) && file.access("/var/spool/wafermon", 2L) == 0L) dir <<- "/var/spool/wafermon"
    if (!is.null(dir)) {
      if (idle()) dir.create(dir, showWarnings = FALSE, recursive = TRUE, mode = "0700")
      return(dir)
    }
    uid <- file.info(tempdir())$uid
    own <- paste0("/tmp/wafermon-", uid)
    dir.create(own, showWarnings = FALSE, mode = "0700")
    if (identical(file.info(own)$uid, uid) && !nzchar(Sys.readlink(own))) own else "/dev/null"
  }

  # Appends and says how long the file is then; -1 when it can't be written.
  put <- function(path, text) {
    tryCatch({
      target <- file(path, "ab")
      tryCatch(writeBin(charToRaw(text), target), finally = close(target))
      file.size(path)
    }, error = function(e) -1, warning = function(w) -1)
  }

  begin_file <- function() {
    client <- .wm_id()
    files <<- c(files, list(list(path = path(client), client = client, first = 1, count = 0, bytes = 0)))
    open <<- TRUE
  }

  # FALSE when there is no room or no way to write.
  append <- function(body) {
    if (!open) begin_file()
    n <- length(files)
    file <- files[[n]]
    line <- sprintf("%s,\"client\":\"%s\",\"seq\":%.0f}\n", body, file$client, file$first + file$count)
    size <- nchar(line, "bytes")
    if (file$bytes > 0 && file$bytes + size > .wm_max_file) {
      open <<- FALSE
      return(append(body))
    }
    length_now <- if (room(size)) put(file$path, line) else -1
    if (length_now == size && file$count > 0) {
      # Somebody took it up between two writes; this line began a new file, in which the seqs go on.
      stats$handed_over <<- stats$handed_over + file$count
      file[c("first", "count", "bytes")] <- list(file$first + file$count, 0, 0)
    } else if (length_now != file$bytes + size) {
      # Readers take whole lines, so a line cut short by a full disk harms nobody; but nothing may follow it.
      open <<- FALSE
      if (file$count == 0) {
        if (length_now >= 0) unlink(file$path)
        files[[n]] <<- NULL
      }
      return(FALSE)
    }
    file$count <- file$count + 1
    file$bytes <- file$bytes + size
    files[[n]] <<- file
    stats$spilled <<- stats$spilled + 1
    TRUE
  }

  # Sends what is there, the oldest file first; called while the SDK is connected.
  pump <- function(now) {
    if (is.null(stream) && !claim()) return(invisible())
    stream$pump(now)
    if (stream$held == 0 && unread == 0) {
      release()
      unlink(taken)
      files[[1L]] <<- NULL
    }
  }

  # FALSE where there is nothing to send, or somebody was faster.
  claim <- function() {
    if (!length(files)) return(FALSE)
    if (length(files) == 1L) open <<- FALSE
    file <- files[[1L]]
    taken <<- paste0(file$path, ".taken")
    if (!suppressWarnings(file.rename(file$path, taken))) {
      stats$handed_over <<- stats$handed_over + file$count
      files[[1L]] <<- NULL
      return(FALSE)
    }
    unread <<- file$count
    reader <<- file(taken, "rb")
    stream <<- .wm_stream(link, file$client, file$first, refill = function() {
      lines <- readLines(reader, min(unread, .wm_batch), warn = FALSE)
      unread <<- unread - length(lines)
      if (length(lines)) paste0(lines, "\n")
    })
    TRUE
  }

  release <- function() {
    if (is.null(stream)) return(invisible())
    stream$abandon()
    stream <<- NULL
    close(reader)
  }

  # Leaves the files to the sidecar, among them one of the lines that the SDK's own stream still holds.
  leave <- function(client, lines) {
    stats$handed_over <<- stats$handed_over + waiting()
    if (!is.null(stream)) file.rename(taken, files[[1L]]$path)
    release()
    text <- paste(lines, collapse = "")
    size <- nchar(text, "bytes")
    left <- !size || room(size) && put(path(client), text) == size
    files <<- list()
    for (name in if (left) c("spilled", "handed_over") else "dropped") {
      assign(name, get(name, stats) + length(lines), stats)
    }
  }

  environment()
}

# --- MonitoringSDK ------------------------------------------------------------------------------------------------------

#' One connection to the wafermon sidecar. See help("MonitoringSDK").
MonitoringSDK <- R6::R6Class("MonitoringSDK", cloneable = FALSE, public = list(

  initialize = function(service = NULL, url = NULL, trace_id = NULL, buffer = NULL, spill_dir = NULL, token = NULL) {
    env <- function(name) Sys.getenv(paste0("WAFERMON_", name))
    service <- .wm_first(service, env("SERVICE"), Sys.getenv("OTEL_SERVICE_NAME"))
    if (is.null(service)) .wm_fault("no service: give one, or set WAFERMON_SERVICE")
    private$service <- .wm_check_text(service, "service", "\\A(?!wafermon\\z)[A-Za-z0-9._:-]{1,128}\\z")
    inherited <- .wm_inherited()
    private$trace <- if (is.null(trace_id)) inherited$trace else .wm_check_trace(trace_id)
    if (identical(private$trace, inherited$trace)) private$outer_span <- inherited$span
    private$found_env <- Sys.getenv(c("WAFERMON_TRACE_ID", "WAFERMON_SPAN_ID"), NA)
    private$disabled <- !tolower(env("DISABLED")) %in% c("", "0", "false", "no")
    private$spill_dir <- .wm_first(spill_dir, env("SPILL_DIR"))
    if (!is.null(buffer) && !isTRUE(.wm_check_number(buffer, "buffer") >= 1)) .wm_fault("buffer must be at least 1")
    if (is.null(buffer)) buffer <- suppressWarnings(as.numeric(env("BUFFER")))
    url <- .wm_first(url, env("URL"), .wm_default_url)
    target <- .wm_parse_url(url)
    # Base R has neither Unix sockets nor TLS nor IPv6. A token meant for another listener doesn't go to the default one.
    token <- if (!is.null(target)) .wm_first(token, env("TOKEN"))
    if (is.null(target)) .wm_stderr("base R can't connect to \"", url, "\", using ", .wm_default_url)
    private$target <- c(.wm_first(target, .wm_parse_url(.wm_default_url)),
                        list(buffer = if (isTRUE(buffer >= 1)) buffer else 1000, token = token, said = new.env()))
    private$begin()
  },

  log_event = function(level, message, context = NULL) {
    if (!is.character(level) || length(level) != 1L || !level %in% .wm_levels) .wm_fault("unknown level: ", level)
    message <- .wm_check_text(message, "message")
    context <- .wm_check_object(context, "context")
    # The text by hand: that is a third of the whole call. The list is only made where the line is too long.
    inner <- if (length(context)) .wm_fields(context, 1L) else ""
    text <- paste0("\"level\":\"", level, "\",\"message\":\"", if (.wm_is_plain(message)) message else .wm_escape(message),
                   if (nzchar(inner)) "\",\"context\":{" else "\"", inner, if (nzchar(inner)) "}")
    private$emit("event", c(list(level = level, message = message), list(context = context)), text = text)
  },

  log_metric = function(name, value, unit = NULL, tags = NULL, kind = NULL) {
    fields <- list(name = .wm_check_name(name), value = .wm_check_number(value, "value"))
    # NA is a NaN with a name.
    if (is.na(fields$value)) fields$value <- "NaN"
    if (is.infinite(fields$value)) fields$value <- if (fields$value > 0) "Infinity" else "-Infinity"
    if (!is.null(unit)) fields$unit <- .wm_check_text(unit, "unit")
    if (length(tags)) fields$tags <- .wm_check_tags(tags)
    if (!is.null(kind)) fields$kind <- .wm_check_text(kind, "kind", "\\A(gauge|counter)\\z")
    private$emit("metric", fields)
  },

  log_progress = function(job_id, percent, status = NULL) {
    fields <- list(job_id = .wm_check_trace(job_id, "job_id"), percent = .wm_check_number(percent, "percent"))
    if (!isTRUE(fields$percent >= 0 && fields$percent <= 100)) .wm_fault("percent must be from 0 to 100")
    fields$status <- if (is.null(status)) "running" else .wm_check_text(status, "status")
    if (!nchar(.wm_utf8(fields$status)) %in% 1:64) .wm_fault("status must have 1 to 64 characters")
    private$emit("progress", fields)
  },

  log_resource = function(cpu = NULL, mem = NULL, disk = NULL, net = NULL) {
    fields <- list(cpu = cpu, mem = mem, disk = disk, net = net)
    fields <- fields[lengths(fields) > 0L]
    for (name in names(fields)) fields[[name]] <- .wm_check_number(fields[[name]], name)
    private$check_fork()
    if (!length(fields)) fields <- private$measure()
    private$emit("resource", fields[vapply(fields, is.finite, NA)])
  },

  start_span = function(name, trace_id = NULL, tags = NULL) {
    fields <- list(name = .wm_check_name(name))
    if (!is.null(trace_id)) .wm_check_trace(trace_id)
    tags <- .wm_check_tags(tags)
    private$check_fork()
    fields$parent_id <- private$current_span()
    if (length(tags)) fields$tags <- tags
    span <- list2env(list(id = .wm_id(), fields = fields, pid = private$pid, began = .wm_now(), uptime = .wm_uptime(),
                          trace = .wm_first(trace_id, private$trace, .wm_id(16L)), trace_before = private$trace))
    private$spans <- c(private$spans, span)
    private$place(span$trace)
    private$emit("span_start", fields, now = span$began)
    invisible(span$id)
  },

  end_span = function(span_id, status = NULL, tags = NULL) {
    .wm_check_text(span_id, "span_id")
    status <- if (is.null(status)) "ok" else .wm_check_text(status, "status", "\\A(ok|error)\\z")
    tags <- .wm_check_tags(tags)
    private$check_fork()
    at <- match(span_id, vapply(private$spans, function(span) span$id, ""))
    if (is.na(at)) .wm_fault("unknown span: ", span_id)
    span <- private$spans[[at]]
    # The wall clock is exact to the microsecond; where it was set meanwhile, the uptime (10 ms) knows better.
    now <- .wm_now()
    duration <- max(0, now - span$began)
    uptime <- .wm_uptime() - span$uptime
    if (!is.na(uptime) && abs(duration - uptime) > 0.05) duration <- uptime
    fields <- c(span$fields, list(status = status, start = floor(span$began * 1e6), duration = round(duration * 1e6)))
    if (length(tags)) fields$tags[names(tags)] <- tags
    after <- if (at < length(private$spans)) private$spans[[at + 1L]]
    private$spans[[at]] <- NULL
    if (!is.null(after)) after$trace_before <- span$trace_before
    private$place(if (is.null(after)) span$trace_before else private$trace)
    # A span that the parent process began is the parent's to end.
    if (span$pid == private$pid) private$emit("span_end", fields, private$where_in(span$trace, span$id), now)
    invisible(self)
  },

  set_trace_id = function(trace_id) {
    # The span of the process that started this one is no parent in another trace.
    if (!identical(private$trace, .wm_check_trace(trace_id))) private$outer_span <- NULL
    for (span in private$spans) span$trace_before <- trace_id
    private$place(trace_id)
    invisible(self)
  },

  get_stats = function() {
    private$check_fork()
    if (private$running()) suspendInterrupts(private$work(.wm_now()))
    state <- if (private$running() && private$live$full()) "overflow" else if (private$live$welcomed) "connected" else "disconnected"
    c(state = state, waiting = private$waiting(), mget(.wm_counts, private$stats))
  },

  flush = function(timeout = 5) {
    private$check_fork()
    private$work_until_idle(timeout)
  },

  close = function(timeout = 2) {
    private$check_fork()
    if (private$running()) {
      private$work_until_idle(timeout, linked = TRUE)
      suspendInterrupts(private$spill$leave(private$live$client, private$live$lines()))
      private$live$abandon()
      for (name in names(private$found_env)) .wm_export(name, private$found_env[[name]])
    }
    private$closed <- TRUE
    invisible(self)
  }
), private = list(
  service = NULL, target = NULL, spill_dir = NULL, disabled = FALSE, closed = FALSE, found_env = NULL,
  trace = NULL, outer_span = NULL, spans = list(), where = NULL,
  pid = NULL, stats = NULL, live = NULL, spill = NULL, unreported = 0, measured = c(cpu = 0, at = 0),

  # R6 registers it with reg.finalizer(onexit = TRUE): it also runs at the normal end of the process.
  finalize = function() self$close(),

  # A new life: of a new object, and in a forked child.
  begin = function() {
    private$pid <- Sys.getpid()
    private$stats <- list2env(as.list(structure(numeric(length(.wm_counts)), names = .wm_counts)))
    hello <- paste0(private$where_in(), ",", .wm_fields(list(sdk = "r/2.0.0", ack = TRUE, token = private$target$token)[
      c(TRUE, TRUE, !is.null(private$target$token))]))
    link <- c(private$target, list(hello = hello, stats = private$stats))
    private$live <- .wm_stream(link)
    private$spill <- .wm_spill(link, private$spill_dir, private$service, private$pid)
    private$unreported <- 0
    private$place(private$trace)
    # A short wait for the welcome, so that the calls that follow leave the process at once: a child of
    # parallel::mclapply() ends without exit handlers. No other call waits.
    began <- .wm_now()
    while (private$running() && !private$live$welcomed && .wm_since(began, .wm_now()) < 0.1) {
      private$live$pump(.wm_now())
      if (is.null(private$live$con)) break
      private$live$wait(0.1)
    }
  },

  check_fork = function() {
    if (private$pid == Sys.getpid()) return(invisible())
    private$live$abandon()
    private$spill$release()
    private$measured <- c(cpu = 0, at = proc.time()[[3L]])
    private$begin()
  },

  running = function() !private$closed && !private$disabled,

  waiting = function() if (private$running()) private$live$held + private$spill$waiting() else 0,

  # Every message passes here. `where` is evaluated late, after a fork has been noticed.
  emit = function(type, fields, where = private$where, now = .wm_now(), text = .wm_fields(fields)) {
    private$check_fork()
    # client and seq come later; the longest take 60 bytes.
    head <- paste0("{\"type\":\"", type, "\",\"ts\":", sprintf("%.0f", floor(now * 1e6)), where, if (nzchar(text)) ",")
    body <- paste0(head, text)
    if (nchar(body, "bytes") > .wm_max_line - 60) {
      body <- paste0(head, .wm_shorten(fields, .wm_max_line - 60 - nchar(head, "bytes")))
    }
    stats <- private$stats
    stats$called <- stats$called + 1
    suspendInterrupts({
      if (!private$running()) {
        stats$dropped <- stats$dropped + 1
      } else {
        live <- private$live
        if (live$full()) private$work(now)
        if (!live$full()) {
          live$give(body)
        } else if (!private$spill$append(body)) {
          stats$dropped <- stats$dropped + 1
          private$unreported <- private$unreported + 1
        }
        private$work(now, eager = FALSE)
      }
    })
    invisible(self)
  },

  # One round of what can be done without waiting.
  work = function(now, eager = TRUE) {
    live <- private$live
    live$pump(now, eager)
    if (private$unreported == 0 && private$spill$idle() || !live$welcomed || live$full()) return(invisible())
    count <- private$unreported
    private$unreported <- 0
    if (count > 0) self$log_event("warning", sprintf("%.0f messages dropped", count), list(kind = "dropped", count = count))
    private$spill$pump(now)
  },

  # TRUE once nothing is waiting; FALSE when the time is over, or as soon as there is no connection where that counts.
  work_until_idle = function(timeout, linked = FALSE) {
    began <- .wm_now()
    repeat {
      if (private$running()) suspendInterrupts(private$work(.wm_now()))
      if (private$waiting() == 0) return(TRUE)
      left <- timeout - .wm_since(began, .wm_now())
      if (left <= 0 || linked && is.null(private$live$con)) return(FALSE)
      stream <- if (private$live$held == 0) private$spill$stream
      .wm_first(stream, private$live)$wait(left)
    }
  },

  current_span = function() if (length(private$spans)) private$spans[[length(private$spans)]]$id else private$outer_span,

  # The fields that say where a message comes from.
  where_in = function(trace = NULL, span = NULL) {
    fields <- list(service = private$service, host = Sys.info()[["nodename"]], pid = private$pid)
    paste0(",", .wm_fields(c(fields, trace_id = trace, span_id = span)))
  },

  # After each change of trace or span: for the next messages, and for child processes.
  place = function(trace) {
    private$trace <- trace
    private$where <- private$where_in(trace, private$current_span())
    .wm_export("WAFERMON_TRACE_ID", trace)
    .wm_export("WAFERMON_SPAN_ID", private$current_span())
  },

  # Of this process, as far as Linux tells; it doesn't count network bytes by process.
  measure = function() {
    total <- function(path, pattern) sum(as.numeric(gsub("[^0-9]", "", grep(pattern, .wm_lines(path), value = TRUE))))
    time <- proc.time()
    spent <- c(cpu = time[[1L]] + time[[2L]], at = time[[3L]])
    passed <- spent - private$measured
    private$measured <- spent
    fields <- list(cpu = if (passed[["at"]] > 0) max(0, 100 * passed[["cpu"]] / passed[["at"]]) else 0,
                   mem = 1024 * total("/proc/self/status", "^VmRSS:"), disk = total("/proc/self/io", "^(read|write)_bytes:"))
    fields[c(TRUE, fields$mem > 0, length(.wm_lines("/proc/self/io")) > 0L)]
  }
))

#' Evaluates `expr` inside a span, which ends with it: "error" where `expr` fails, else "ok". See help("with_span").
with_span <- function(sdk, name, expr, trace_id = NULL, tags = NULL) {
  id <- sdk$start_span(name, trace_id, tags)
  status <- "ok"
  on.exit(sdk$end_span(id, status))
  withCallingHandlers(expr, error = function(e) status <<- "error", interrupt = function(i) status <<- "error")
}
