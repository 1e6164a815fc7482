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
