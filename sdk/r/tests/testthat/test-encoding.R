fields <- function(...) .wm_fields(list(...))
shorten <- .wm_shorten

test_that("R values become JSON values", {
  expect_identical(fields(a = "x", b = 1L, c = TRUE, d = 2.5), '"a":"x","b":1,"c":true,"d":2.5')
  expect_identical(fields(a = NA, b = NA_character_, c = NaN, d = -Inf, e = NULL), '"a":null,"b":null,"c":null,"d":null,"e":null')
  expect_identical(fields(a = 1:3, b = c("x", NA), c = c(1.5, Inf), d = c(TRUE, FALSE)),
                   '"a":[1,2,3],"b":["x",null],"c":[1.5,null],"d":[true,false]')
  expect_identical(fields(a = list(), b = character(), c = 1), '"c":1')
  expect_identical(fields(a = list(x = 1, y = list(z = "q")), b = list(1, "x", NULL, list())),
                   '"a":{"x":1,"y":{"z":"q"}},"b":[1,"x",null,[]]')
  expect_identical(fields(a = factor("label"), b = as.Date("2026-11-24"), c = 1 == 1),
                   '"a":"label","b":"2026-11-24","c":true')
  expect_identical(fields(a = as.POSIXct(0.5, origin = "1970-01-01"), b = as.POSIXct(10, origin = "1970-01-01")),
                   '"a":"1970-01-01T00:00:00.5Z","b":"1970-01-01T00:00:10Z"')
  expect_identical(fields(a = sum, b = baseenv()), '"a":"<function>","b":"<environment>"')
})

test_that("conditions, durations and what fails by itself are plain values", {
  expect_identical(fields(a = as.difftime(2, units = "mins"), b = as.difftime(c(1, 1.5), units = "hours")),
                   '"a":120,"b":[3600,5400]')
  expect_identical(fields(a = simpleError("no header"), b = simpleCondition("m")),
                   '"a":"simpleError: no header","b":"simpleCondition: m"')
  caught <- tryCatch(stop("no \"header\""), error = identity)
  expect_identical(fields(error = caught), '"error":"simpleError: no \\"header\\""')
  expect_identical(fields(a = as.POSIXct(c(NA, 1.25), origin = "1970-01-01")), '"a":[null,"1970-01-01T00:00:01.25Z"]')
  raises <- structure(list(x = 1), class = c("POSIXlt", "POSIXt"))
  expect_identical(fields(a = raises), '"a":{"x":1}')
})

# Runs code with a decimal comma where R prints and, if `locale`, where the C library does too.
with_comma <- function(code, locale = FALSE) {
  old <- options(OutDec = ",")
  before <- Sys.getlocale("LC_NUMERIC")
  on.exit({
    options(old)
    suppressWarnings(Sys.setlocale("LC_NUMERIC", before))
  })
  if (locale) {
    # A locale of the test's own: few machines have one.
    folder <- tempfile("locales")
    dir.create(folder)
    try(system2("localedef", c("-c", "-i", "de_DE", "-f", "UTF-8", file.path(folder, "de_DE.UTF-8")),
                stdout = FALSE, stderr = FALSE), silent = TRUE)
    path <- Sys.getenv("LOCPATH", NA)
    on.exit(.wm_export("LOCPATH", path), add = TRUE)
    Sys.setenv(LOCPATH = folder)
    suppressWarnings(Sys.setlocale("LC_NUMERIC", "de_DE.UTF-8"))
    testthat::skip_if_not(sprintf("%.1f", 0.5) == "0,5", "no locale with a decimal comma can be made here")
  }
  force(code)
}

test_that("a decimal comma never reaches the wire", {
  for (locale in c(FALSE, TRUE)) with_comma(locale = locale, {
    text <- fields(a = 0.5, b = c(0.25, 1e-7, 1e100, 12), c = 1 / 3, d = as.POSIXct(0.5, origin = "1970-01-01"),
                   e = -1.5e-300, f = 3, g = as.difftime(1.5, units = "secs"), h = NaN)
    expect_match(text, '^"a":0\\.5,"b":\\[0\\.25,')
    expect_match(text, '"d":"1970-01-01T00:00:00\\.5Z"')
    expect_match(text, '"f":3,"g":1\\.5,"h":null$')
    options(OutDec = ".")
    suppressWarnings(Sys.setlocale("LC_NUMERIC", "C"))
    read <- jsonlite::parse_json(paste0("{", text, "}"))
    expect_identical(read[c("a", "c", "e")], list(a = 0.5, c = 1 / 3, e = -1.5e-300))
    expect_identical(unlist(read$b), c(0.25, 1e-7, 1e100, 12))
  })
})

test_that("what is nested too deep is text", {
  deep <- Reduce(function(inner, i) list(k = inner), 1:20, "end")
  parsed <- jsonlite::parse_json(paste0("{", fields(deep = deep), "}"))
  for (i in 1:8) parsed <- parsed[[1L]]
  expect_type(parsed, "list")
  expect_type(parsed[[1L]], "character")
})

test_that("strings are escaped, and made valid UTF-8", {
  all_controls <- intToUtf8(1:127)
  expect_identical(jsonlite::parse_json(paste0("{", fields(a = all_controls), "}"))$a, all_controls)
  expect_identical(fields(a = "\"\\/\n\t\001"), '"a":"\\"\\\\/\\n\\t\\u0001"')
  expect_identical(fields(`k"` = "\u00e4\u20ac\U1F600\u2028"), "\"k\\\"\":\"\u00e4\u20ac\U1F600\u2028\"")
  latin1 <- "\xe4"
  Encoding(latin1) <- "latin1"
  expect_identical(fields(a = latin1), "\"a\":\"\u00e4\"")
  for (bad in c("a\x80b", "\xed\xa0\x80", "\xc0\xaf", "\xf5\x80\x80\x80", "\xff\xfe")) {
    expect_true(validUTF8(fields(a = bad)))
    expect_match(fields(a = bad), "\ufffd")
  }
})

test_that("doubles are written as short as they read back", {
  expect_identical(fields(a = 0.1, b = 0.1 + 0.2, c = 1 / 3, d = 1e5, e = 100000L, f = 2^53),
                   '"a":0.1,"b":0.30000000000000004,"c":0.3333333333333333,"d":100000,"e":100000,"f":9007199254740992')
  expect_identical(fields(start = 1795496032268420, a = 1e15, b = -2^53, c = c(1e16, 2e15)),
                   '"start":1795496032268420,"a":1000000000000000,"b":-9007199254740992,"c":[1e+16,2000000000000000]')
  bits <- as.raw(c(sapply(1:4000, function(i) (c(7, 31, 101, 11, 17, 23, 5, 3) * i * i) %% 256)))
  values <- readBin(bits, "double", 4000L)
  values <- c(values[is.finite(values)], 5e-324, .Machine$double.xmax, .Machine$double.xmin, -0.1)
  text <- strsplit(fields(a = values), "[][,:]")[[1L]][-(1:2)]
  expect_identical(unlist(jsonlite::parse_json(paste0("[", paste(text, collapse = ","), "]"))), values)
  expect_true(all(nchar(text) <= nchar(sprintf("%.17g", values))))
})

test_that("a line that is too long loses its longest string first", {
  text <- shorten(list(message = strrep("\u00e4", 50000), context = list(small = "stays")), 65000)
  expect_lte(nchar(text, "bytes"), 65000)
  parsed <- jsonlite::parse_json(paste0("{", text, "}"))
  expect_match(parsed$message, "^\u00e4+$")
  expect_gt(nchar(parsed$message, "bytes"), 60000)
  expect_identical(parsed$context$small, "stays")
  expect_true(parsed$truncated)

  many <- stats::setNames(as.list(rep(1.5, 20000)), paste0("key", 1:20000))
  parsed <- jsonlite::parse_json(paste0("{", shorten(list(message = "m", context = many), 65000), "}"))
  expect_identical(parsed, list(message = "m", truncated = TRUE))
})
