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
