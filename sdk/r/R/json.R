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
