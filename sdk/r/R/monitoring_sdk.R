# wafermon's SDK for R: one file, a package or source()d as it is. It needs R >= 4.2, R6 and jsonlite.
#
# What it promises:
# - a logging call never waits for the network and never fails because of it; a programming error does, at the call;
# - a message is kept until the sidecar has acknowledged its (client, seq), and is sent again after a lost connection;
# - what the memory can't hold goes to spill files, what those can't hold is dropped, counted and reported;
# - the random seed, the options and the connections of the session stay as they are.
#
# From top to bottom: values to JSON, small helpers, Stream (one client, its seqs, its connection), Spill (the files),
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

# --- Values to JSON -------------------------------------------------------------------------------------------------
# Made by hand: jsonlite::toJSON takes 350 us for a small record and prints 0.1 + 0.2 as 0.3.

# Valid UTF-8, marked as such. An unmarked string is taken as UTF-8 in any locale: under cron the locale is C.
.wm_utf8 <- function(x) {
  latin1 <- Encoding(x) == "latin1"
  if (any(latin1)) x[latin1] <- enc2utf8(x[latin1])
  bad <- !validUTF8(x)
  # iconv lets pass what lies beyond U+10FFFF; there every byte that isn't ASCII goes.
  for (from in c("UTF-8", "ASCII")) if (any(bad)) {
    x[bad] <- iconv(x[bad], from, "UTF-8", sub = "\xef\xbf\xbd")
    bad <- !validUTF8(x)
  }
  Encoding(x) <- "UTF-8"
  x
}

.wm_controls <- intToUtf8(1:31, multiple = TRUE)
.wm_control_escapes <- sprintf("\\u%04x", 1:31)
.wm_control_escapes[c(8, 9, 10, 12, 13)] <- c("\\b", "\\t", "\\n", "\\f", "\\r")

.wm_escape <- function(x) {
  x <- .wm_utf8(x)
  special <- grepl("[\"\\\\\001-\037]", x, perl = TRUE, useBytes = TRUE)
  if (any(special)) {
    y <- gsub("\"", "\\\"", gsub("\\", "\\\\", x[special], fixed = TRUE), fixed = TRUE)
    for (i in which(vapply(.wm_controls, function(control) any(grepl(control, y, fixed = TRUE)), NA))) {
      y <- gsub(.wm_controls[[i]], .wm_control_escapes[[i]], y, fixed = TRUE)
    }
    x[special] <- y
  }
  x
}

# By byte: what is not printable ASCII, or is a quote or a backslash. A tenth of what a regular expression costs.
.wm_special <- !(0:255 %in% setdiff(32:126, c(34, 92)))

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
.wm_plain <- function(x) {
  if (inherits(x, "POSIXt")) {
    x <- as.POSIXct(x)
    micros <- round(as.numeric(x) * 1e6)
    fraction <- sub("\\.?0+$", "", sprintf(".%06.0f", micros %% 1e6))
    seconds <- as.POSIXct(micros %/% 1e6, origin = "1970-01-01", tz = "UTC")
    return(ifelse(is.na(x), NA_character_, paste0(format(seconds, "%Y-%m-%dT%H:%M:%S"), fraction, "Z")))
  }
  if (inherits(x, "integer64")) {
    big <- abs(x) > 2^53
    return(if (isTRUE(any(big))) as.character(x) else as.double(x))
  }
  if (is.factor(x) || inherits(x, c("Date", "numeric_version"))) return(as.character(x))
  if (is.list(x) || is.atomic(x)) unclass(x) else x
}

.wm_atoms <- function(x) {
  text <- switch(typeof(x),
    character = paste0("\"", .wm_escape(x), "\""),
    double = return(.wm_numbers(x)),
    integer = sprintf("%d", x),
    logical = ifelse(x, "true", "false"),
    paste0("\"", as.character(x), "\""))
  text[is.na(x)] <- "null"
  text
}

.wm_value <- function(x, depth) {
  if (is.object(x)) x <- .wm_plain(x)
  if (is.atomic(x)) {
    if (is.null(x)) return("null")
    if (length(x) == 1L) return(.wm_atoms(x))
    if (depth <= .wm_max_depth) return(paste0("[", paste(.wm_atoms(x), collapse = ","), "]"))
  } else if (is.list(x) && depth <= .wm_max_depth) {
    if (!is.null(names(x))) return(paste0("{", .wm_fields(x, depth), "}"))
    return(paste0("[", paste(vapply(x, .wm_value, "", depth + 1L), collapse = ","), "]"))
  }
  text <- if (is.list(x) || is.atomic(x)) deparse(x, nlines = 1L)[[1L]] else paste0("<", class(x)[[1L]], ">")
  paste0("\"", .wm_escape(text), "\"")
}

# A named list as `"key":value,…`. Empty lists and vectors are left out, NULL is null. This is the hot path: keys and
# plain strings are looked through together, and most of the time there is nothing to escape.
.wm_fields <- function(x, depth = 0L) {
  n <- length(x)
  if (!n) return("")
  keys <- names(x)
  values <- texts <- ends <- character(n)
  for (i in seq_len(n)) {
    value <- x[[i]]
    values[[i]] <- if (length(value) != 1L) {
      if (length(value) || is.null(value)) .wm_value(value, depth + 1L) else NA_character_
    } else if (!is.null(attributes(value))) {
      .wm_value(value, depth + 1L)
    } else {
      switch(typeof(value),
        character = if (is.na(value)) "null" else {
          texts[[i]] <- value
          ends[[i]] <- "\""
        },
        double = .wm_double(value),
        integer = if (is.na(value)) "null" else as.character(value),
        logical = if (is.na(value)) "null" else if (value) "true" else "false",
        .wm_value(value, depth + 1L))
    }
  }
  if (!all(nzchar(keys))) keys[!nzchar(keys)] <- which(!nzchar(keys))
  if (any(.wm_special[as.integer(charToRaw(paste0(keys, texts, collapse = ""))) + 1L])) {
    keys <- .wm_escape(keys)
    texts <- .wm_escape(texts)
  }
  fields <- paste0("\"", keys, "\":", values, texts, ends)
  if (anyNA(values)) fields <- fields[!is.na(values)]
  paste(fields, collapse = ",")
}

# The path and size of the longest string anywhere in a list, for x[[path]].
.wm_longest <- function(x) {
  best <- list(path = integer(), size = 0)
  for (i in seq_along(x)) {
    value <- x[[i]]
    if (is.character(value) && length(value) == 1L) {
      found <- list(path = i, size = nchar(value, "bytes"))
    } else if (is.list(value) || is.character(value)) {
      found <- .wm_longest(value)
      found$path <- c(i, found$path)
    } else {
      next
    }
    if (found$size > best$size) best <- found
  }
  best
}

.wm_cut <- function(text, size) {
  bytes <- charToRaw(text)
  while (size > 0 && bitwAnd(as.integer(bytes[[size + 1]]), 0xC0L) == 0x80L) size <- size - 1
  text <- rawToChar(bytes[seq_len(size)])
  Encoding(text) <- "UTF-8"
  text
}

# The fields within `limit` bytes: the longest string is cut, by half at most so that a longer one never ends as the
# shortest, again and again; then context and tags go.
.wm_shorten <- function(fields, limit) {
  fields <- rapply(fields, .wm_utf8, classes = "character", how = "replace")
  fields$truncated <- TRUE
  repeat {
    text <- .wm_fields(fields)
    excess <- nchar(text, "bytes") - limit
    if (excess <= 0) return(text)
    longest <- .wm_longest(fields)
    if (longest$size > 64) {
      string <- fields[[longest$path]]
      swell <- nchar(.wm_escape(string), "bytes") / longest$size
      fields[[longest$path]] <- .wm_cut(string, max(longest$size %/% 2, longest$size - ceiling(excess / swell)))
    } else {
      fields[c("context", "tags")] <- NULL
    }
  }
}

# --- Helpers --------------------------------------------------------------------------------------------------------

.wm_now <- function() unclass(Sys.time())

# Seconds since `then`. R knows no monotonic clock: a wall clock that was set back counts as time enough.
.wm_since <- function(then, now) if (now < then) Inf else now - then

.wm_uptime <- function() {
  tryCatch(as.numeric(sub(" .*", "", readLines("/proc/uptime", 1L))), error = function(e) NA, warning = function(w) NA)
}

.wm_pool <- new.env()
.wm_pool$bytes <- raw()
.wm_pool$pid <- 0L

# Bytes of the system's random source, never of R's generator. Read ahead, but not across a fork.
.wm_random <- function(n) {
  if (length(.wm_pool$bytes) < n || .wm_pool$pid != Sys.getpid()) {
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

.wm_env <- function(name) {
  value <- Sys.getenv(name)
  if (nzchar(value)) value
}

# The first that is given; an empty string is not.
.wm_first <- function(...) {
  for (i in seq_len(...length())) {
    value <- ...elt(i)
    if (length(value) && !identical(value, "")) return(value)
  }
  NULL
}

.wm_check_text <- function(value, what, pattern = NULL) {
  if (is.factor(value)) value <- as.character(value)
  if (!is.character(value) || length(value) != 1L || is.na(value)) .wm_fault(what, " must be one string")
  if (!is.null(pattern) && !grepl(pattern, value, perl = TRUE, useBytes = TRUE)) .wm_fault("bad ", what, ": ", value)
  value
}

.wm_check_name <- function(value, what) {
  value <- .wm_check_text(value, what)
  if (!nzchar(value)) .wm_fault(what, " must not be empty")
  value
}

.wm_check_trace <- function(value, what = "trace_id") .wm_check_text(value, what, "\\A[!-~]{1,128}\\z")

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

# Tags are strings and numbers; what is neither is sent as its text.
.wm_check_tags <- function(value) {
  lapply(.wm_check_object(value, "tags"), function(tag) {
    if (is.object(tag)) tag <- .wm_plain(tag)
    if (length(tag) == 1L && (is.numeric(tag) || is.character(tag) || is.na(tag))) return(tag)
    if (is.logical(tag) && length(tag) == 1L) return(tolower(tag))
    substring(.wm_value(tag, 0L), 1L)
  })
}

.wm_parse_url <- function(url) {
  parts <- regmatches(url, regexec("^tcp://([A-Za-z0-9._-]+):([0-9]{1,5})/?$", url))[[1L]]
  if (length(parts) && as.integer(parts[[3L]]) %in% 1:65535) list(host = parts[[2L]], port = as.integer(parts[[3L]]))
}

# --- Stream: one client, its seqs, its connection ---------------------------------------------------------------------

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
# link: host, port, hello (the line, %s for the client), stats, once (what was said on stderr).
# refill: gives more lines, none at the end; for a spill file.
.wm_stream <- function(link, client = .wm_id(), first = 1, refill = NULL) {
  con <- NULL
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

  # Gives the body of a message its seq and keeps it.
  give <- function(body) push(paste0(body, suffix, sprintf("%.0f", last + 1), "}\n"))

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
    if (is.null(con)) {
      if (.wm_since(lost_at, now) >= pause) connect(now)
      return(invisible())
    }
    tryCatch({
      ready <- socketSelect(list(con, con), c(FALSE, TRUE), 0)
      if (ready[[1L]] && (eager || !welcomed || high - first > 256 || .wm_since(heard, now) > 0.02)) read(now)
      if (is.null(con)) return(invisible())
      if (awaits() && .wm_since(heard, now) > .wm_silence) hang_up(now) else if (welcomed && ready[[2L]]) write(now)
    }, condition = function(c) hang_up(now))
  }

  # Waits for the socket, at most so long.
  wait <- function(seconds) {
    if (is.null(con)) return(Sys.sleep(min(seconds, 0.01)))
    more <- welcomed && (length(rest) > 0 || unsent <= last)
    tryCatch(socketSelect(list(con, con), c(FALSE, more), min(seconds, 0.05)), error = function(e) NULL)
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
    con <<- NULL
    welcomed <<- FALSE
    rest <<- raw()
    inbox <<- ""
  }

  # Base R waits in connect(): a closed port refuses at once, a host that swallows packets costs the second.
  connect <- function(now) {
    tryCatch({
      con <<- suppressWarnings(socketConnection(link$host, link$port, blocking = FALSE, open = "r+b", timeout = 1))
      socketTimeout(con, 0)
      writeBin(charToRaw(sprintf(link$hello, client)), con)
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
    if (is.null(link$once$refused)) .wm_stderr("the sidecar refuses: ", reply$code, " ", reply$detail)
    link$once$refused <- TRUE
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
    if (seq < first || seq > high) return(invisible())
    size <- nchar(queue$slice(seq, seq), "bytes")
    if (!size) return(invisible())
    queue$blank(seq)
    window_bytes <<- window_bytes - size
    held <<- held - 1
    stats$rejected <<- stats$rejected + 1
    # What is at the front is settled now; no ack may follow.
    while (first <= high && !nzchar(queue$slice(first, first))) settle(first)
  }

  write <- function(now) {
    repeat {
      if (!length(rest)) rest <<- take(now)
      size <- length(rest)
      if (!size) return(invisible())
      if (size <= .wm_chunk) {
        writeBin(rest, con)
        rest <<- raw()
        return(invisible())
      }
      writeBin(rest[seq_len(.wm_chunk)], con)
      rest <<- rest[-seq_len(.wm_chunk)]
      if (!socketSelect(list(con), TRUE, 0)) return(invisible())
    }
  }

  # The bytes of the next lines: a batch, or one line that is longer than the chunk.
  take <- function(now) {
    if (unsent > last && !is.null(refill)) for (line in refill()) push(line)
    from <- unsent
    to <- min(last, from + .wm_batch - 1)
    if (window_bytes >= .wm_max_memory) to <- min(to, high)
    if (to < from) return(raw())
    batch <- queue$slice(from, to)
    size <- nchar(batch, "bytes")
    if (to > from) {
      fit <- seq_len(max(1L, sum(cumsum(size) <= .wm_chunk)))
      batch <- batch[fit]
      size <- size[fit]
      to <- from + length(fit) - 1
    }
    if (!awaits()) heard <<- now
    fresh <- from:to > high
    bytes <- sum(size[fresh])
    stats$sent <<- stats$sent + sum(fresh)
    if (from <= high) stats$resent <<- stats$resent + sum(!fresh & size > 0)
    window_bytes <<- window_bytes + bytes
    waiting_bytes <<- waiting_bytes - bytes
    high <<- max(high, to)
    unsent <<- to + 1
    charToRaw(paste(batch, collapse = ""))
  }

  environment()
}

# --- Spill: the files ---------------------------------------------------------------------------------------------------

# Oldest first. The last one is written while `open`, the first one is sent by `stream` once the SDK is connected.
# R has no flock: a file is opened, written and closed for each message, which its owner's pid protects.
.WmSpill <- R6::R6Class("WmSpill", class = FALSE, cloneable = FALSE, public = list(
  stream = NULL,

  initialize = function(link, dir, service, pid) {
    private$link <- link
    private$dir <- dir
    private$prefix <- paste0(service, ".", pid, ".")
  },

  # In files that are still ours.
  waiting = function() {
    left <- vapply(private$files, function(file) file$count, 0)
    if (is.null(self$stream)) sum(left) else sum(left[-1L]) + private$unread + self$stream$held
  },

  # FALSE when there is no room or no way to write.
  append = function(body) {
    if (!private$open) {
      client <- .wm_id()
      private$files <- c(private$files, list(list(path = private$path(client), client = client, first = 1, count = 0, bytes = 0)))
      private$open <- TRUE
    }
    n <- length(private$files)
    file <- private$files[[n]]
    line <- sprintf("%s,\"client\":\"%s\",\"seq\":%.0f}\n", body, file$client, file$first + file$count)
    size <- nchar(line, "bytes")
    if (file$bytes > 0 && file$bytes + size > .wm_max_file) {
      private$open <- FALSE
      return(self$append(body))
    }
    if (!private$room(size)) return(FALSE)
    found <- private$put(file$path, line)
    if (found == size && file$count > 0) {
      # Somebody took it up between two writes; this line began a new file, with the seqs going on.
      private$link$stats$handed_over <- private$link$stats$handed_over + file$count
      file[c("first", "count", "bytes")] <- list(file$first + file$count, 0, 0)
    } else if (found != file$bytes + size) {
      # Cut short by a full disk: readers take whole lines, and nothing more may follow the torn one.
      private$open <- FALSE
      if (file$count == 0) {
        unlink(file$path)
        private$files[[n]] <- NULL
      }
      return(FALSE)
    }
    file$count <- file$count + 1
    file$bytes <- file$bytes + size
    private$files[[n]] <- file
    private$link$stats$spilled <- private$link$stats$spilled + 1
    TRUE
  },

  # Sends what is there, the oldest file first; called while the SDK is connected.
  pump = function(now) {
    if (is.null(self$stream)) {
      if (!length(private$files)) return(invisible())
      if (length(private$files) == 1L) private$open <- FALSE
      private$claim()
      if (is.null(self$stream)) return(invisible())
    }
    self$stream$pump(now)
    if (self$stream$held == 0 && private$unread == 0) {
      private$release()
      unlink(private$taken)
      private$files[[1L]] <- NULL
    }
  },

  # Leaves the files to the sidecar, among them one of the lines that a stream still holds.
  leave = function(stream) {
    stats <- private$link$stats
    if (!is.null(self$stream)) {
      left <- private$unread + self$stream$held
      private$release()
      file.rename(private$taken, private$files[[1L]]$path)
      private$files[[1L]]$count <- left
    }
    stats$handed_over <- stats$handed_over + self$waiting()
    private$files <- list()
    lines <- stream$lines()
    if (!length(lines)) return(invisible())
    text <- paste(lines, collapse = "")
    size <- nchar(text, "bytes")
    if (private$room(size) && private$put(private$path(stream$client), text) == size) {
      stats$spilled <- stats$spilled + length(lines)
      stats$handed_over <- stats$handed_over + length(lines)
    } else {
      stats$dropped <- stats$dropped + length(lines)
    }
  },

  # What a forked child does with its parent's files: nothing.
  forget = function() if (!is.null(self$stream)) private$release()
), private = list(
  link = NULL, dir = NULL, prefix = NULL, files = list(), open = FALSE, taken = NULL, reader = NULL, unread = 0, made = FALSE,

  room = function(size) size + sum(vapply(private$files, function(file) file$bytes, 0)) <= .wm_max_spill,

  path = function(client) file.path(private$find_dir(), paste0(private$prefix, client, ".ldjson")),

  # Appends and says how long the file is then; -1 when it can't be written.
  put = function(path, text) {
    tryCatch({
      target <- file(path, "ab")
      tryCatch(writeBin(charToRaw(text), target), finally = close(target))
      file.size(path)
    }, error = function(e) -1, warning = function(w) -1)
  },

  # Below /tmp a directory of ours alone will do: nobody may have laid one there before.
  find_dir = function() {
    if (private$made) return(private$dir)
    if (is.null(private$dir) && file.access("/var/spool/wafermon", 2L) == 0L) private$dir <- "/var/spool/wafermon"
    if (is.null(private$dir)) {
      uid <- file.info(tempdir())$uid
      dir <- paste0("/tmp/wafermon-", uid)
      dir.create(dir, showWarnings = FALSE, mode = "0700")
      ours <- identical(file.info(dir)$uid, uid) && identical(Sys.readlink(dir), "")
      private$dir <- if (ours) dir else "/dev/null"
    } else {
      dir.create(private$dir, showWarnings = FALSE, recursive = TRUE, mode = "0700")
    }
    private$made <- TRUE
    private$dir
  },

  claim = function() {
    file <- private$files[[1L]]
    private$taken <- paste0(file$path, ".taken")
    if (!suppressWarnings(file.rename(file$path, private$taken))) {
      private$link$stats$handed_over <- private$link$stats$handed_over + file$count
      private$files[[1L]] <- NULL
      return(invisible())
    }
    private$unread <- file$count
    private$reader <- file(private$taken, "rb")
    self$stream <- .wm_stream(private$link, file$client, file$first, refill = function() {
      lines <- readLines(private$reader, min(private$unread, .wm_batch), warn = FALSE)
      private$unread <- private$unread - length(lines)
      if (length(lines)) paste0(lines, "\n")
    })
  },

  release = function() {
    self$stream$abandon()
    self$stream <- NULL
    close(private$reader)
  }
))

# --- MonitoringSDK ------------------------------------------------------------------------------------------------------

#' One connection to the wafermon sidecar. See help("MonitoringSDK").
MonitoringSDK <- R6::R6Class("MonitoringSDK", cloneable = FALSE, public = list(

  initialize = function(service = NULL, url = NULL, trace_id = NULL, buffer = NULL, spill_dir = NULL, token = NULL) {
    service <- .wm_first(service, .wm_env("WAFERMON_SERVICE"), .wm_env("OTEL_SERVICE_NAME"))
    if (is.null(service)) .wm_fault("no service: give one, or set WAFERMON_SERVICE")
    private$service <- .wm_check_text(service, "service", "\\A(?!wafermon\\z)[A-Za-z0-9._:-]{1,128}\\z")
    if (!is.null(buffer) && !(.wm_check_number(buffer, "buffer") >= 1)) .wm_fault("buffer must be at least 1")
    private$buffer <- .wm_first(buffer, private$buffer_from_env(), 1000)
    private$disabled <- !tolower(Sys.getenv("WAFERMON_DISABLED")) %in% c("", "0", "false", "no")
    private$spill_dir <- .wm_first(spill_dir, .wm_env("WAFERMON_SPILL_DIR"))
    private$join_trace(trace_id)
    private$set_target(.wm_first(url, .wm_env("WAFERMON_URL"), .wm_default_url), .wm_first(token, .wm_env("WAFERMON_TOKEN")))
    private$begin()
  },

  log_event = function(level, message, context = NULL) {
    if (!is.character(level) || length(level) != 1L || !level %in% .wm_levels) .wm_fault("unknown level: ", level)
    fields <- list(level = level, message = .wm_check_text(message, "message"))
    fields$context <- .wm_check_object(context, "context")
    private$emit("event", fields)
  },

  log_metric = function(name, value, unit = NULL, tags = NULL, kind = NULL) {
    fields <- list(name = .wm_check_name(name, "name"), value = .wm_check_number(value, "value"))
    # NA is a NaN with a name.
    if (!is.finite(fields$value)) fields$value <- if (is.na(fields$value)) "NaN" else if (fields$value > 0) "Infinity" else "-Infinity"
    if (!is.null(unit)) fields$unit <- .wm_check_text(unit, "unit")
    if (length(tags)) fields$tags <- .wm_check_tags(tags)
    if (!is.null(kind)) fields$kind <- .wm_check_text(kind, "kind", "\\A(gauge|counter)\\z")
    private$emit("metric", fields)
  },

  log_progress = function(job_id, percent, status = NULL) {
    job_id <- .wm_check_trace(job_id, "job_id")
    percent <- .wm_check_number(percent, "percent")
    if (!isTRUE(percent >= 0 && percent <= 100)) .wm_fault("percent must be from 0 to 100")
    status <- if (is.null(status)) "running" else .wm_check_text(status, "status")
    if (!nchar(.wm_utf8(status)) %in% 1:64) .wm_fault("status must have 1 to 64 characters")
    private$emit("progress", list(job_id = job_id, percent = percent, status = status))
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
    span <- new.env()
    span$name <- .wm_check_name(name, "name")
    if (!is.null(trace_id)) .wm_check_trace(trace_id)
    span$tags <- .wm_check_tags(tags)
    private$check_fork()
    span$pid <- private$pid
    span$id <- .wm_id()
    span$parent <- private$current_span()
    span$outer_trace <- private$trace
    span$trace <- .wm_first(trace_id, private$trace, .wm_id(16L))
    span$began <- .wm_now()
    span$uptime <- .wm_uptime()
    private$spans <- c(private$spans, span)
    private$trace <- span$trace
    private$place()
    private$emit("span_start", private$span_fields(span), now = span$began)
    invisible(span$id)
  },

  end_span = function(span_id, status = NULL, tags = NULL) {
    span_id <- .wm_check_text(span_id, "span_id")
    status <- if (is.null(status)) "ok" else .wm_check_text(status, "status", "\\A(ok|error)\\z")
    tags <- .wm_check_tags(tags)
    private$check_fork()
    at <- match(span_id, vapply(private$spans, function(span) span$id, ""))
    if (is.na(at)) .wm_fault("unknown span: ", span_id)
    span <- private$spans[[at]]
    now <- .wm_now()
    fields <- list(status = status, start = round(span$began * 1e6), duration = private$duration(span, now))
    span$tags[names(tags)] <- tags
    where <- private$where_at(span$trace, span$id)
    if (at == length(private$spans)) private$trace <- span$outer_trace else private$spans[[at + 1L]]$outer_trace <- span$outer_trace
    private$spans[[at]] <- NULL
    private$place()
    if (span$pid == private$pid) private$emit("span_end", c(private$span_fields(span), fields), where, now)
    invisible(self)
  },

  set_trace_id = function(trace_id) {
    # The span of the process that started this one is no parent in another trace.
    if (!identical(private$trace, .wm_check_trace(trace_id))) private$inherited_span <- NULL
    private$trace <- trace_id
    for (span in private$spans) span$outer_trace <- trace_id
    private$place()
    invisible(self)
  },

  get_stats = function() {
    private$check_fork()
    if (private$running()) suspendInterrupts(private$work(.wm_now()))
    counts <- mget(c("called", "sent", "acked", "rejected", "dropped", "spilled", "handed_over", "resent", "reconnects"),
                   envir = private$link$stats)
    waiting <- private$waiting()
    state <- if (!private$running()) "disconnected" else if (private$full()) "overflow" else if (private$live$welcomed) "connected" else "disconnected"
    c(list(state = state), counts[1:6], list(waiting = waiting), counts[7:9])
  },

  flush = function(timeout = 5) {
    private$check_fork()
    if (!private$running()) return(TRUE)
    private$settle_within(timeout, function() TRUE)
  },

  close = function(timeout = 2) {
    private$check_fork()
    if (!private$running()) {
      private$closed <- TRUE
      return(invisible(self))
    }
    private$settle_within(timeout, function() !is.null(private$live$con))
    suspendInterrupts({
      private$spill$leave(private$live)
      private$live$abandon()
      private$closed <- TRUE
    })
    private$restore_env()
    invisible(self)
  }
), private = list(
  service = NULL, host = NULL, pid = NULL, buffer = NULL, disabled = FALSE, closed = FALSE, spill_dir = NULL, target = NULL, token = NULL,
  trace = NULL, inherited_span = NULL, found_env = NULL, spans = list(), where = "",
  link = NULL, live = NULL, spill = NULL, unreported = 0, measured = NULL,

  # R6 registers it with reg.finalizer(onexit = TRUE): it also runs at the normal end of the process.
  finalize = function() self$close(),

  buffer_from_env = function() {
    number <- suppressWarnings(as.numeric(Sys.getenv("WAFERMON_BUFFER")))
    if (!is.na(number) && number >= 1) number
  },

  join_trace = function(trace_id) {
    private$found_env <- Sys.getenv(c("WAFERMON_TRACE_ID", "WAFERMON_SPAN_ID"), NA)
    parent <- regmatches(Sys.getenv("TRACEPARENT"), regexec("^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-", Sys.getenv("TRACEPARENT")))[[1L]]
    trace <- .wm_env("WAFERMON_TRACE_ID")
    span <- .wm_env("WAFERMON_SPAN_ID")
    # The environment is no programming error: what is malformed there is not taken.
    if (!is.null(trace) && !grepl("\\A[!-~]{1,128}\\z", trace, perl = TRUE, useBytes = TRUE)) trace <- NULL
    if (!is.null(span) && !grepl("^[0-9a-f]{16}$", span)) span <- NULL
    if (is.null(trace) && length(parent)) {
      trace <- parent[[2L]]
      span <- .wm_first(span, parent[[3L]])
    }
    if (!is.null(trace_id)) .wm_check_trace(trace_id)
    private$trace <- .wm_first(trace_id, trace)
    # The span of another trace is no parent here.
    private$inherited_span <- if (identical(private$trace, trace)) span
  },

  # Base R has neither Unix sockets nor TLS nor IPv6. A token meant for another listener doesn't go to the default one.
  set_target = function(url, token) {
    private$target <- .wm_parse_url(url)
    private$token <- token
    if (is.null(private$target)) {
      .wm_stderr("base R can't connect to \"", url, "\", using ", .wm_default_url)
      private$target <- .wm_parse_url(.wm_default_url)
      private$token <- NULL
    }
  },

  # A new life: in a new object, and in a forked child.
  begin = function() {
    private$pid <- Sys.getpid()
    private$host <- Sys.info()[["nodename"]]
    hello <- paste0("{\"v\":2,\"type\":\"hello\",\"client\":\"%s\",", gsub("%", "%%", private$origin(), fixed = TRUE),
                    ",\"sdk\":\"r/2.0.0\",\"ack\":true",
                    if (!is.null(private$token)) gsub("%", "%%", paste0(",", .wm_fields(list(token = private$token))), fixed = TRUE), "}\n")
    stats <- new.env()
    for (name in c("called", "sent", "acked", "rejected", "dropped", "spilled", "handed_over", "resent", "reconnects")) {
      assign(name, 0, envir = stats)
    }
    private$link <- c(private$target, list(hello = hello, stats = stats, once = new.env()))
    private$live <- .wm_stream(private$link)
    private$spill <- .WmSpill$new(private$link, private$spill_dir, private$service, private$pid)
    private$unreported <- 0
    private$measured <- c(cpu = 0, at = if (is.null(private$measured)) 0 else proc.time()[[3L]])
    private$place()
    if (private$running()) private$greet()
  },

  # A stream begins with a short wait for the welcome, so that the calls that follow leave the process at once: a child of
  # parallel::mclapply() ends without exit handlers. No other call waits.
  greet = function() {
    began <- .wm_now()
    repeat {
      private$live$pump(.wm_now())
      left <- 0.1 - .wm_since(began, .wm_now())
      if (private$live$welcomed || is.null(private$live$con) || left <= 0) return(invisible())
      private$live$wait(left)
    }
  },

  check_fork = function() {
    if (private$pid == Sys.getpid()) return(invisible())
    private$live$abandon()
    private$spill$forget()
    private$begin()
  },

  running = function() !private$closed && !private$disabled,

  full = function() private$live$last - private$live$high >= private$buffer || private$live$waiting_bytes >= .wm_max_memory,

  waiting = function() if (private$running()) private$live$held + private$spill$waiting() else 0,

  # Every message passes here. `where` is evaluated late, after a fork has been noticed.
  emit = function(type, fields, where = private$where, now = .wm_now()) {
    private$check_fork()
    body <- private$encode(type, fields, where, now)
    private$link$stats$called <- private$link$stats$called + 1
    if (!private$running()) {
      private$link$stats$dropped <- private$link$stats$dropped + 1
      return(invisible(self))
    }
    suspendInterrupts({
      if (private$full()) private$work(now)
      if (!private$full()) {
        private$live$give(body)
      } else if (!private$spill$append(body)) {
        private$link$stats$dropped <- private$link$stats$dropped + 1
        private$unreported <- private$unreported + 1
      }
      private$work(now, eager = FALSE)
    })
    invisible(self)
  },

  # client and seq come later; the longest take 60 bytes.
  encode = function(type, fields, where, now) {
    head <- paste0("{\"type\":\"", type, "\",\"ts\":", sprintf("%.0f", now * 1e6), where)
    text <- .wm_fields(fields)
    if (!nzchar(text)) return(head)
    body <- paste0(head, ",", text)
    if (nchar(body, "bytes") <= .wm_max_line - 60) return(body)
    paste0(head, ",", .wm_shorten(fields, .wm_max_line - 61 - nchar(head, "bytes")))
  },

  # One round of what can be done without waiting.
  work = function(now, eager = TRUE) {
    private$live$pump(now, eager)
    if (!private$live$welcomed || private$full()) return(invisible())
    if (private$unreported > 0) {
      count <- private$unreported
      private$unreported <- 0
      private$link$stats$called <- private$link$stats$called + 1
      private$live$give(private$encode("event", list(level = "warning", message = sprintf("%.0f messages dropped", count),
                                                     context = list(kind = "dropped", count = count)), private$where, now))
    }
    private$spill$pump(now)
  },

  # Works until nothing is waiting: TRUE; or the time is over, or it is not worth the while: FALSE.
  settle_within = function(timeout, worth) {
    began <- .wm_now()
    repeat {
      suspendInterrupts(private$work(.wm_now()))
      if (private$waiting() == 0) return(TRUE)
      left <- timeout - .wm_since(began, .wm_now())
      if (left <= 0 || !worth()) return(FALSE)
      stream <- private$spill$stream
      (if (private$live$held > 0 || is.null(stream)) private$live else stream)$wait(left)
    }
  },

  # Spans, and where in the trace a message belongs

  current_span = function() {
    n <- length(private$spans)
    if (n) private$spans[[n]]$id else private$inherited_span
  },

  origin = function() .wm_fields(list(service = private$service, host = private$host, pid = private$pid)),

  where_at = function(trace, span) {
    fields <- list(service = private$service, host = private$host, pid = private$pid)
    paste0(",", .wm_fields(c(fields, trace_id = trace, span_id = span)))
  },

  # After each change of trace or span: for the next messages, and for child processes.
  place = function() {
    span <- private$current_span()
    private$where <- private$where_at(private$trace, span)
    private$export("WAFERMON_TRACE_ID", private$trace)
    private$export("WAFERMON_SPAN_ID", span)
  },

  export = function(name, value) {
    if (is.null(value)) Sys.unsetenv(name) else do.call(Sys.setenv, structure(list(value), names = name))
  },

  # The environment as it was found, so that the next SDK of this process begins in its own trace.
  restore_env = function() {
    for (name in names(private$found_env)) {
      value <- private$found_env[[name]]
      private$export(name, if (!is.na(value)) value)
    }
  },

  span_fields = function(span) {
    fields <- list(name = span$name)
    fields$parent_id <- span$parent
    fields$tags <- if (length(span$tags)) span$tags
    fields
  },

  # The wall clock is exact to the microsecond; where it was set meanwhile, the uptime (10 ms) knows better.
  duration = function(span, now) {
    passed <- now - span$began
    up <- .wm_uptime() - span$uptime
    if (!is.na(up) && abs(passed - up) > 0.05) passed <- up
    round(max(passed, 0) * 1e6)
  },

  # Of this process, as far as Linux tells; it doesn't count network bytes by process.
  measure = function() {
    time <- proc.time()
    cpu <- time[[1L]] + time[[2L]]
    elapsed <- time[[3L]] - private$measured[["at"]]
    fields <- list(cpu = if (elapsed > 0) 100 * max(0, cpu - private$measured[["cpu"]]) / elapsed else 0)
    private$measured <- c(cpu = cpu, at = time[[3L]])
    fields$mem <- 1024 * sum(private$proc("/proc/self/status", "^VmRSS:"))
    fields$disk <- sum(private$proc("/proc/self/io", "^(read|write)_bytes:"))
    fields[vapply(fields, function(value) value > 0, NA) | names(fields) == "cpu"]
  },

  proc = function(path, pattern) {
    lines <- tryCatch(readLines(path), error = function(e) character(), warning = function(w) character())
    as.numeric(gsub("[^0-9]", "", grep(pattern, lines, value = TRUE)))
  }
))

#' Evaluates `expr` inside a span, which ends with it: "error" where `expr` fails, else "ok". See help("with_span").
with_span <- function(sdk, name, expr, trace_id = NULL, tags = NULL) {
  id <- sdk$start_span(name, trace_id, tags)
  status <- "ok"
  on.exit(sdk$end_span(id, status))
  withCallingHandlers(expr, error = function(e) status <<- "error", interrupt = function(i) status <<- "error")
}
