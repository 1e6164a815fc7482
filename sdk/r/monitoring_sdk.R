# Joined from R/*.R by join.sh: edit those.

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

# --- Values to JSON ----------------------------------------------------------------------------------------------------

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

# By code point, for control characters, quote and backslash.
.wm_escapes <- sprintf("\\u%04x", 1:92)
.wm_escapes[c(8, 9, 10, 12, 13, 34, 92)] <- c("\\b", "\\t", "\\n", "\\f", "\\r", "\\\"", "\\\\")

# By byte: what is not printable ASCII, or is a quote or a backslash; and "<", because in a C locale paste0() makes <e4>
# of Latin-1. A tenth of what a regular expression costs.
.wm_special <- !(1:255 %in% setdiff(32:126, c(34, 60, 92)))

.wm_count_special <- function(text) sum(.wm_special[as.integer(charToRaw(text))])

.wm_escape <- function(x) {
  x <- .wm_utf8(x)
  found <- intersect(c(92L, 34L, 1:31), utf8ToInt(paste(x, collapse = "")))
  for (code in found) x <- gsub(intToUtf8(code), .wm_escapes[[code]], x, fixed = TRUE)
  x
}

# sprintf() writes the decimal point of LC_NUMERIC, which some programs set; it need not be one byte.
.wm_point <- function(text) {
  if (sprintf("%.1f", 0.5) == "0.5") text else gsub("[^-+.0-9a-z]+", ".", text, useBytes = TRUE)
}

# A double with at most six decimals: its quotient is rounded once, so what sprintf() prints reads back equal.
.wm_double <- function(x) {
  scaled <- round(x * 1e6)
  if (!is.na(scaled) && scaled / 1e6 == x && abs(scaled) < 1e15) .wm_point(sprintf("%.15g", x)) else .wm_numbers(x)
}

# Whole numbers to 2^53 stay integers for those who read them (a span's start would be 1.79549603226842e+15). Else the
# shortest of %.15g, %.16g, %.17g that reads back equal. as.numeric() rounds twice and now and then takes the neighbour
# for equal; jsonlite reads with the C library, exactly.
.wm_numbers <- function(x) {
  whole <- is.finite(x) & abs(x) <= 2^53 & x == trunc(x)
  text <- ifelse(is.finite(x), .wm_point(sprintf(ifelse(whole, "%.0f", "%.17g"), x)), "null")
  broken <- which(is.finite(x) & !whole)
  for (digits in c("%.16g", "%.15g")) {
    shorter <- .wm_point(sprintf(digits, x[broken]))
    same <- unlist(jsonlite::parse_json(paste0("[", paste(shorter, collapse = ","), "]"))) == x[broken]
    text[broken[same]] <- shorter[same]
  }
  text
}

# ISO 8601 in UTC, to the microsecond. (%OS6 would write the decimal point of the locale.)
.wm_time <- function(x) {
  x <- as.POSIXct(x) + 5e-7
  digits <- sprintf("%06.0f", floor(unclass(x) %% 1 * 1e6))
  fraction <- sub("\\.?0*$", "Z", paste0(".", digits))
  ifelse(is.na(x), NA, paste0(format(x, "%Y-%m-%dT%H:%M:%S", tz = "UTC"), fraction))
}

# A value of a class as the plain value that stands for it. What its own methods fail at is taken as it is.
.wm_unclass <- function(x) tryCatch(.wm_plain(x), error = function(e) unclass(x))

.wm_plain <- function(x) {
  if (inherits(x, "POSIXt")) return(.wm_time(x))
  if (inherits(x, "difftime")) return(as.double(x, units = "secs"))
  if (inherits(x, "condition")) return(paste0(class(x)[[1L]], ": ", conditionMessage(x)))
  if (inherits(x, "integer64") && !isTRUE(any(abs(x) > 2^53))) return(as.double(x))
  if (is.factor(x) || inherits(x, c("Date", "integer64", "numeric_version"))) return(as.character(x))
  if (is.list(x) || is.atomic(x)) unclass(x) else x
}

.wm_atoms <- function(x) {
  if (is.double(x)) return(.wm_numbers(x))
  text <- as.character(x)
  text <- if (is.integer(x) || is.logical(x)) tolower(text) else paste0("\"", .wm_escape(text), "\"")
  text[is.na(x)] <- "null"
  text
}

.wm_value <- function(x, depth) {
  if (is.object(x)) x <- .wm_unclass(x)
  if (is.null(x)) return("null")
  if (!length(x)) return(NA_character_)
  if (is.atomic(x) && length(x) == 1L) return(.wm_atoms(x))
  if (depth <= .wm_max_depth) {
    if (is.atomic(x)) return(paste0("[", paste(.wm_atoms(x), collapse = ","), "]"))
    if (is.list(x) && !is.null(names(x))) return(paste0("{", .wm_fields(x, depth), "}"))
    if (is.list(x)) return(paste0("[", paste(.wm_items(x, depth + 1L), collapse = ","), "]"))
  }
  text <- if (is.list(x) || is.atomic(x)) deparse(x, nlines = 1L)[[1L]] else paste0("<", class(x)[[1L]], ">")
  paste0("\"", .wm_escape(text), "\"")
}

# Within an array an empty one keeps its place.
.wm_items <- function(x, depth) ifelse(lengths(x) | vapply(x, is.null, NA), vapply(x, .wm_value, "", depth), "[]")

# A named list as `"key":value,…`. Empty lists and vectors are left out, NULL is null. This is the hot path: the text
# is made as if there were nothing to escape, and most of the time its only special bytes are the quotes set here.
.wm_fields <- function(x, depth = 0L) {
  keys <- names(x)
  n <- length(keys)
  if (!n) return("")
  values <- quotes <- character(n)
  expected <- 2L * n
  for (i in seq_len(n)) {
    value <- x[[i]]
    values[[i]] <- if (length(value) != 1L || is.object(value) || is.list(value)) {
      expected <- expected + .wm_count_special(inner <- .wm_value(value, depth + 1L))
      inner
    } else switch(typeof(value),
      character = if (is.na(value)) "null" else {
        expected <- expected + 2L
        quotes[[i]] <- "\""
        value
      },
      double = .wm_double(value),
      integer = if (is.na(value)) "null" else as.character(value),
      logical = if (is.na(value)) "null" else if (value) "true" else "false",
      .wm_value(value, depth + 1L))
  }
  if (anyNA(values)) return(.wm_fields(x[!is.na(values)], depth))
  if (!all(nzchar(keys))) keys[!nzchar(keys)] <- which(!nzchar(keys))
  text <- paste0("\"", keys, "\":", quotes, values, quotes, collapse = ",")
  if (.wm_count_special(text) == expected) return(text)
  values[nzchar(quotes)] <- .wm_escape(values[nzchar(quotes)])
  paste0("\"", .wm_escape(keys), "\":", quotes, values, quotes, collapse = ",")
}

# The fields within `limit` bytes: the longest string is cut, by a quarter at most so that it doesn't end as the
# shortest, again and again; then context and tags go.
.wm_shorten <- function(fields, limit) {
  fields <- rapply(fields, .wm_utf8, "character", how = "replace")
  fields$truncated <- TRUE
  repeat {
    text <- .wm_fields(fields)
    excess <- nchar(text, "bytes") - limit
    if (excess <= 0) return(text)
    longest <- max(0, rapply(fields, nchar, "character", how = "unlist", type = "bytes"))
    if (longest <= 64) fields[c("context", "tags")] <- NULL
    shorter <- min(limit, max((longest * 3) %/% 4, longest - excess))
    # iconv takes away the character that is cut in two.
    cut <- function(x) iconv(substr(`Encoding<-`(x, "bytes"), 1L, shorter), "UTF-8", "UTF-8", sub = "")
    cut_longest <- function(x) ifelse(nchar(x, "bytes") == longest, cut(x), x)
    if (longest > 64) fields <- rapply(fields, cut_longest, "character", how = "replace")
  }
}

# --- The place in a trace ----------------------------------------------------------------------------------------------

.wm_w3c <- "^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-"

# Trace and span of the process that started this one. The environment is no programming error: what is malformed there
# is not taken.
.wm_inherited <- function() {
  parent <- Sys.getenv("TRACEPARENT")
  parent <- regmatches(parent, regexec(.wm_w3c, parent, perl = TRUE))[[1L]]
  trace <- Sys.getenv("WAFERMON_TRACE_ID")
  span <- Sys.getenv("WAFERMON_SPAN_ID")
  if (!grepl("^(?!0{16})[0-9a-f]{16}$", span, perl = TRUE)) span <- NULL
  if (grepl(.wm_trace, trace, perl = TRUE, useBytes = TRUE)) return(list(trace = trace, span = span))
  if (length(parent)) list(trace = parent[[2L]], span = .wm_first(span, parent[[3L]]))
}

# SHA-256 as 64 hex, of words that are 32 logicals: R has no unsigned integers. It takes 4 ms.
.wm_sha256 <- function(text) {
  powers <- 2^(31:0)
  bits <- function(number) number %/% powers %% 2 == 1
  number <- function(word) sum(powers[word])
  # The first 32 bits of the fractions of roots of the first primes.
  primes <- Filter(function(n) n < 4 || all(n %% 2:floor(sqrt(n)) > 0), 2:311)
  constants <- floor(primes^(1 / 3) %% 1 * 2^32)
  state <- floor(sqrt(primes[1:8]) %% 1 * 2^32)
  turn <- function(word, by) word[(0:31 - by) %% 32 + 1]
  shift <- function(word, by) c(logical(by), word[seq_len(32 - by)])

  bytes <- as.integer(charToRaw(text))
  size <- length(bytes)
  bytes <- c(bytes, 128, numeric((55 - size) %% 64), size * 8 %/% 256^(7:0) %% 256)
  words <- colSums(matrix(bytes, 4) * 256^(3:0))
  for (block in split(words, (seq_along(words) - 1) %/% 16)) {
    schedule <- lapply(block, bits)
    for (i in 17:64) {
      a <- schedule[[i - 15]]
      b <- schedule[[i - 2]]
      mixed <- number(xor(xor(turn(a, 7), turn(a, 18)), shift(a, 3))) +
        number(xor(xor(turn(b, 17), turn(b, 19)), shift(b, 10)))
      schedule[[i]] <- bits((number(schedule[[i - 16]]) + number(schedule[[i - 7]]) + mixed) %% 2^32)
    }
    now <- lapply(state, bits)
    for (i in 1:64) {
      a <- now[[1L]]
      e <- now[[5L]]
      chosen <- (e & now[[6L]]) | (!e & now[[7L]])
      most <- (a & now[[2L]]) | (a & now[[3L]]) | (now[[2L]] & now[[3L]])
      added <- number(now[[8L]]) + number(xor(xor(turn(e, 6), turn(e, 11)), turn(e, 25))) + number(chosen) +
        constants[[i]] + number(schedule[[i]])
      first <- added + number(xor(xor(turn(a, 2), turn(a, 13)), turn(a, 22))) + number(most)
      fifth <- added + number(now[[4L]])
      now <- c(list(bits(first %% 2^32)), now[1:3], list(bits(fifth %% 2^32)), now[5:7])
    }
    state <- (state + vapply(now, number, 0)) %% 2^32
  }
  paste(sprintf("%04x%04x", state %/% 65536, state %% 65536), collapse = "")
}

# What W3C calls the place that trace and span are. A job id is no trace id there, and no span is invalid: a hash stands
# for it, the same in every language.
.wm_traceparent <- function(trace, span, hash) {
  if (is.null(trace)) return(NULL)
  valid <- grepl("^(?!0{32})[0-9a-f]{32}$", trace, perl = TRUE)
  if (!valid) trace <- substr(hash(), 1L, 32L)
  if (is.null(span)) span <- substr(hash(), 33L, 48L)
  sprintf("00-%s-%s-01", trace, span)
}

# --- The stream --------------------------------------------------------------------------------------------------------

# An environment whose functions are its methods: R6 would double the cost of a call, and `self$x[i] <- y` copies x.
# link, an environment that all streams share: host, port, hello (what comes after the client), buffer, stats, compress.
# `first` is the seq that the stream begins with.
.wm_stream <- function(link, client = .wm_id(), first = 1) {
  con <- both <- NULL
  welcomed <- refused <- framed <- offered <- FALSE
  stats <- link$stats
  suffix <- paste0(",\"client\":\"", client, "\",\"seq\":")

  # first (oldest unacknowledged) <= unsent (next for the socket) <= last + 1; high ever went to a socket. `queue` holds
  # the lines from first to last, a rejected one as "".
  unsent <- first
  last <- high <- first - 1
  queue <- character()
  newest_count <- 1
  held <- waiting_bytes <- window_bytes <- newest_bytes <- 0
  newest <- inbox <- ""
  rest <- raw()
  heard <- lost_at <- pause <- failures <- welcomes <- 0

  slice <- function(from, to) queue[(from:to) - first + 1]

  full <- function() last - high >= link$buffer || waiting_bytes >= .wm_max_memory

  # Gives the body of a message its seq and keeps it. A stats line counts as none.
  give <- function(body, count = 1) push(sprintf("%s%s%.0f}\n", body, suffix, last + 1), count)

  push <- function(line, count = 1) {
    newest <<- queue[[length(queue) + 1L]] <<- line
    newest_bytes <<- nchar(line, "bytes")
    waiting_bytes <<- waiting_bytes + newest_bytes
    last <<- last + 1
    newest_count <<- count
    held <<- held + count
  }

  # Whether everything has been acknowledged or refused, stats lines too.
  settled <- function() first > last

  # What no acknowledgement has come for.
  lines <- function() Filter(nzchar, queue)

  # Does what can be done without waiting: connects, reads, writes. A logging call isn't eager: acks may gather.
  pump <- function(now, eager = TRUE) {
    tryCatch(if (is.null(con)) { if (abs(now - lost_at) >= pause) connect(now) } else {
      ready <- socketSelect(both, c(FALSE, TRUE), 0)
      if (ready[[1L]] && (eager || !welcomed || high - first > 256 || abs(now - heard) > 0.02)) read(now)
      if (welcomed && ready[[2L]]) write(now)
      if (abs(now - heard) > .wm_silence && !is.null(con) && awaits()) hang_up(now)
    }, condition = function(c) hang_up(now))
  }

  # Waits for the socket, at most so long.
  wait <- function(seconds) {
    more <- welcomed && (length(rest) > 0 || unsent <= last)
    if (is.null(con)) Sys.sleep(min(seconds, 0.01)) else socketSelect(both, c(FALSE, more), min(seconds, 0.05))
  }

  # Full jitter: somewhere between 0 and a bound that doubles from 0.1 s to 30 s. Base R can close a socket, not shut it
  # down; in a forked child that is just what is wanted.
  hang_up <- function(now = .wm_now()) {
    .wm_close(con)
    con <<- both <<- NULL
    welcomed <<- FALSE
    rest <<- raw()
    inbox <<- ""
    pause <<- .wm_uniform() * min(30, 0.1 * 2^failures)
    failures <<- min(failures + 1, 20)
    lost_at <<- now
  }

  # A name is looked up at each attempt.
  dial <- function() {
    try_one <- function(host) {
      suppressWarnings(socketConnection(host, link$port, blocking = FALSE, open = "r+b", timeout = 1))
    }
    tryCatch(try_one(link$host), error = function(e) {
      for (address in .wm_addresses(link$host)) {
        found <- tryCatch(try_one(address), error = function(e) NULL)
        if (!is.null(found)) return(found)
      }
      stop(e)
    })
  }

  # Base R waits in connect(): a closed port refuses at once, a host that swallows packets costs the second.
  connect <- function(now) {
    con <<- dial()
    both <<- list(con, con)
    socketTimeout(con, 0)
    asked <- if (link$compress) ",\"compress\":[\"zlib\"]" else ""
    hello <- paste0("{\"v\":2,\"type\":\"hello\",\"client\":\"", client, "\"", link$hello, asked, "}\n")
    writeBin(charToRaw(hello), con)
    heard <<- now
  }

  awaits <- function() !welcomed || first < unsent

  read <- function(now) {
    bytes <- readBin(con, "raw", 4096L)
    if (!length(bytes)) return(hang_up(now))
    heard <<- now
    # With one "\n" more the last piece is what has not ended yet, or nothing.
    replies <- strsplit(paste0(inbox, rawToChar(bytes), "\n"), "\n", fixed = TRUE)[[1L]]
    inbox <<- replies[[length(replies)]]
    if (nchar(inbox, "bytes") > .wm_max_line) return(hang_up(now))
    replies <- replies[-length(replies)]
    # Acks are cumulative: the last of several in a row will do.
    acks <- startsWith(replies, "{\"type\":\"ack\"")
    for (reply in replies[!(acks & c(acks[-1L], FALSE))]) heed(reply)
  }

  heed <- function(line) {
    reply <- tryCatch(jsonlite::parse_json(line), error = function(e) NULL)
    seq <- if (is.numeric(reply$seq)) reply$seq else 0
    switch(paste(c(reply$type, if (!welcomed) "before the welcome"), collapse = " "),
      ack = settle(seq),
      error = if (identical(reply$code, "bad_frame")) unframe(reply$detail) else reject(seq),
      `error before the welcome` = {
        if (!refused) .wm_stderr("the sidecar refuses: ", reply$code, " ", reply$detail)
        refused <<- TRUE
      },
      `welcome before the welcome` = {
        welcomed <<- TRUE
        welcomes <<- welcomes + 1
        failures <<- 0
        framed <<- link$compress && identical(reply$compress, "zlib")
        offered <<- "stats" %in% unlist(reply$features)
        if (is.numeric(reply$acked)) settle(reply$acked)
        unsent <<- first
      })
  }

  settle <- function(seq) {
    seq <- min(seq, high)
    if (seq < first) return(invisible())
    size <- nchar(slice(first, seq), "bytes")
    count <- .wm_messages(slice(first, seq))
    window_bytes <<- window_bytes - sum(size)
    queue <<- queue[-seq_along(size)]
    first <<- seq + 1
    unsent <<- max(unsent, first)
    held <<- held - count
    stats$acked <- stats$acked + count
  }

  reject <- function(seq) {
    if (seq < first || seq > high || !nzchar(slice(seq, seq))) return(invisible())
    count <- .wm_messages(slice(seq, seq))
    window_bytes <<- window_bytes - nchar(slice(seq, seq), "bytes")
    queue[[seq - first + 1]] <<- ""
    held <<- held - count
    stats$rejected <- stats$rejected + count
    # What is at the front is settled now; no ack may follow.
    while (first <= high && !nzchar(slice(first, first))) settle(first)
  }

  # The sidecar closes the connection; the same lines go plainly over the next, and over those of the other streams.
  unframe <- function(detail) {
    if (link$compress) .wm_stderr("the sidecar refuses compressed frames, so lines go as they are: bad_frame ", detail)
    link$compress <- framed <<- FALSE
  }

  write <- function(now) {
    small <- if (framed) .wm_frame_least - 1 else .wm_small
    if (high + 1 == last && unsent == last && newest_bytes <= small && !length(rest)) {
      # The usual case, in a third of the time. writeLines() doesn't report errors, but a socket that is writable takes
      # so few bytes whole, and what it loses otherwise is not acknowledged.
      if (first == unsent) heard <<- now
      sent(1, newest_bytes, newest_count)
      return(writeLines(newest, con, sep = "", useBytes = TRUE))
    }
    repeat {
      if (!length(rest)) rest <<- take()
      if (!length(rest)) return(invisible())
      if (!awaits()) heard <<- now
      chunk <- rest[seq_len(min(length(rest), .wm_chunk))]
      writeBin(chunk, con)
      rest <<- rest[-seq_along(chunk)]
      if (!length(rest) || !socketSelect(list(con), TRUE, 0)) return(invisible())
    }
  }

  # So many lines have gone to the socket for the first time, of which so many are messages.
  sent <- function(count, bytes, messages) {
    stats$sent <- stats$sent + messages
    window_bytes <<- window_bytes + bytes
    waiting_bytes <<- waiting_bytes - bytes
    high <<- high + count
    unsent <<- high + 1
  }

  # The bytes of the next lines: a batch, or one line that is longer than the chunk. What is framed may be longer.
  take <- function() {
    to <- min(last, unsent + (if (framed) .wm_frame_lines else .wm_batch) - 1)
    if (window_bytes >= .wm_max_memory) to <- min(to, high)
    if (to < unsent) return(raw())
    size <- nchar(slice(unsent, to), "bytes")
    limit <- if (framed) .wm_frame_most else .wm_chunk
    size <- size[seq_len(max(1, sum(cumsum(size) <= limit)))]
    batch <- slice(unsent, unsent + length(size) - 1)
    again <- unsent + seq_along(size) - 1 <= high
    stats$resent <- stats$resent + .wm_messages(batch[again])
    unsent <<- unsent + sum(again)
    if (!all(again)) sent(sum(!again), sum(size[!again]), .wm_messages(batch[!again]))
    bytes <- charToRaw(paste(batch, collapse = ""))
    if (framed && length(bytes) >= .wm_frame_least) frame(bytes, sum(size > 0)) else bytes
  }

  # What memCompress() calls gzip is a zlib stream.
  frame <- function(bytes, lines) {
    block <- memCompress(bytes, "gzip")
    header <- "{\"type\":\"frame\",\"codec\":\"zlib\",\"bytes\":%d,\"raw\":%d,\"lines\":%d}\n"
    c(charToRaw(sprintf(header, length(block), length(bytes), lines)), block)
  }

  environment()
}

# --- The spill ---------------------------------------------------------------------------------------------------------

# Files, oldest first. The last one is written while `open`, the first one is sent by `stream` when connected.
# R has no flock: a file is opened, written and closed for each message, and its age alone tells others that it has an
# owner. So after each write the file is looked at: if it has been taken up, a new one of the same stream takes the line
# again, with the same seq, and the sidecar keeps one of them.
.wm_spill <- function(link, dir, service, pid) {
  files <- list()
  streams <- numeric()   # last seq by client, of the files that were sent too
  open <- FALSE
  stream <- reader <- taken <- unread <- NULL
  stats <- link$stats

  idle <- function() !length(files)

  total <- function(what, of = seq_along(files)) sum(vapply(files[of], function(file) file[[what]], 0))

  # In files that are still ours.
  waiting <- function() if (is.null(stream)) total("count") else total("count", -1L) + unread + stream$held

  room <- function(size) size + total("bytes") <= .wm_max_spill

  path <- function(client) file.path(find_dir(), paste0(service, ".", pid, ".", client, ".ldjson"))

  # Below /tmp a directory of ours alone will do: nobody may have laid one there before.
  find_dir <- function() {
    if (is.null(dir) && file.access("/var/spool/wafermon", 2L) == 0L) dir <<- "/var/spool/wafermon"
    uid <- file.info(tempdir())$uid
    found <- .wm_first(dir, paste0("/tmp/wafermon-", uid))
    if (idle()) dir.create(found, showWarnings = FALSE, recursive = TRUE, mode = "0700")
    if (is.null(dir) && (!identical(file.info(found)$uid, uid) || nzchar(Sys.readlink(found)))) "/dev/null" else found
  }

  # Appends; the size of the file then, below 0 where that went wrong. The mode of a new one is set whatever the umask: in
  # the packaged folder its group is the sidecar's, which reads and removes it.
  put <- function(path, text, tries = 2L) {
    size <- tryCatch({
      bytes <- charToRaw(text)
      target <- file(path, "ab")
      tryCatch(writeBin(bytes, target), finally = close(target))
      found <- file.size(path)
      if (identical(found, as.double(length(bytes)))) Sys.chmod(path, "0660", use_umask = FALSE)
      found
    }, condition = function(c) -1)
    if (!is.na(size)) size else if (tries > 1L) put(path, text, tries - 1L) else -1
  }

  new_file <- function(client) list(path = path(client), client = client, last = 0, count = 0, bytes = 0)

  # FALSE when there is no room or no way to write.
  append <- function(body) {
    open <<- open && files[[length(files)]]$bytes + nchar(body, "bytes") + 60 <= .wm_max_file
    file <- if (open) files[[length(files)]] else new_file(.wm_id())
    line <- sprintf("%s,\"client\":\"%s\",\"seq\":%.0f}\n", body, file$client, file$last + 1)
    size <- nchar(line, "bytes")
    found <- if (room(size)) put(file$path, line) else -1
    if (open && found == size) {
      # The line is alone: what was before it has been taken up.
      lose(length(files))
      file$count <- file$bytes <- 0
    }
    written <- found == file$bytes + size
    if (written) {
      file$last <- file$last + 1
      file$count <- file$count + 1
      file$bytes <- found
      files[[length(files) + !open]] <<- file
      streams[[file$client]] <<- file$last
      if (!open) streams <<- utils::tail(streams, .wm_max_streams)
      stats$spilled <- stats$spilled + 1
    } else if (!open) unlink(file$path)
    # Readers take whole lines, so a line cut short by a full disk harms nobody; but nothing may follow it.
    open <<- written
  }

  # A file that is the sidecar's now.
  lose <- function(n) {
    stats$handed_over <- stats$handed_over + files[[n]]$count
    files[[n]] <<- NULL
    if (n > length(files)) open <<- FALSE
  }

  # Sends what is there, the oldest file first; called while the SDK is connected.
  pump <- function(now) {
    if (length(files) == 1L) open <<- FALSE
    if (is.null(stream) && length(files)) claim()
    if (is.null(stream)) return(invisible())
    if (stream$unsent > stream$last) for (line in readLines(reader, min(unread, .wm_batch), warn = FALSE)) {
      stream$push(paste0(line, "\n"))
      unread <<- unread - 1
    }
    stream$pump(now)
    if (stream$held > 0 || unread > 0) return(invisible())
    release()
    unlink(taken)
    files[[1L]] <<- NULL
  }

  claim <- function() {
    file <- files[[1L]]
    taken <<- paste0(file$path, ".taken")
    # One of the same stream, which the sidecar is just reading.
    if (file.exists(taken) && file.exists(file$path)) return(invisible())
    if (!suppressWarnings(file.rename(file$path, taken))) return(lose(1L))
    unread <<- file$count
    reader <<- base::file(taken, "rb")
    stream <<- .wm_stream(link, file$client, file$last - file$count + 1)
  }

  release <- function() {
    if (!is.null(stream)) stream$hang_up()
    .wm_close(reader)
    stream <<- reader <<- NULL
  }

  # Leaves the files to the sidecar, among them one of the lines that the SDK's own stream still holds.
  leave <- function(client, lines) {
    stats$handed_over <- stats$handed_over + waiting()
    if (!is.null(stream)) file.rename(taken, files[[1L]]$path)
    release()
    text <- paste(lines, collapse = "")
    size <- nchar(text, "bytes")
    left <- !size || room(size) && put(path(client), text) == size
    files <<- list()
    for (name in if (left) c("spilled", "handed_over") else "dropped") stats[[name]] <- stats[[name]] + .wm_messages(lines)
  }

  environment()
}

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

# --- The logger package -----------------------------------------------------------------------------------------------

# A layout and an appender for the package logger (CRAN), made so that neither it nor anything else is needed here:
# logger calls `layout(level, msg, namespace, …)` and hands what it gives to `appender(lines)`. A line alone doesn't tell
# its level, so the layout leaves it on the line.

#' Layout for the logger package that keeps level and namespace. See help("monitoring_appender").
monitoring_layout <- function() {
  structure(function(level, msg, namespace = NA_character_, ...) {
    name <- attr(level, "level")
    structure(as.character(msg), level = if (is.null(name)) level else name, namespace = namespace)
  }, generator = "monitoring_layout()")
}

#' Appender for the logger package: each line is an event of `sdk`. See help("monitoring_appender").
monitoring_appender <- function(sdk) {
  # logger's own names; the others are known to log_event().
  known <- c(SUCCESS = "info", TRACE = "debug")
  structure(function(lines) {
    level <- attr(lines, "level")
    if (is.null(level)) level <- "info"
    if (level %in% names(known)) level <- known[[level]]
    namespace <- attr(lines, "namespace")
    context <- if (length(namespace) && !is.na(namespace)) list(logger = namespace)
    for (line in lines) sdk$log_event(level, line, context)
  }, generator = "monitoring_appender()")
}
