# The first of three: what the measurements of some lots say, wafer by wafer.  Rscript analyse.R LOTS WORK
#
# Writes WORK/train.csv, a line a die of all lots but the last, without outliers, and WORK/new.csv, the last lot's.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[[1L]]))
source(file.path(here, "..", "..", "sdk", "r", "monitoring_sdk.R"))

OUTLIER <- 4.5  # robust standard deviations

# How far a value is from the median, in robust standard deviations.
robust_z <- function(values) (values - median(values)) / mad(values)

# One lot: its dies, with what the model is to learn from. A lot's own medians make the products comparable.
analyse_lot <- function(sdk, path) {
  lot <- sub("[.]csv$", "", basename(path))
  dies <- read.csv(path, comment.char = "#")
  dies <- data.frame(
    lot = lot, wafer = dies$wafer, edge = sqrt(dies$x^2 + dies$y^2) / max(abs(dies$x)),
    z_vth = robust_z(dies$vth_v), z_idsat = robust_z(dies$idsat_ua), z_leak = robust_z(log(dies$ileak_na)),
    fails = as.integer(dies$bin != 1L))
  dies$outlier <- abs(dies$z_leak) > OUTLIER
  for (wafer in unique(dies$wafer)) {
    of_wafer <- dies[dies$wafer == wafer, ]
    tags <- list(lot = lot, wafer = wafer)
    sdk$log_metric("yield", 100 * mean(of_wafer$fails == 0), "%", tags)
    sdk$log_metric("outliers", sum(of_wafer$outlier), "{die}", tags)
  }
  sdk$log_event("info", "lot analysed", list(lot = lot, dies = nrow(dies), outliers = sum(dies$outlier)))
  dies
}

arguments <- commandArgs(TRUE)
paths <- sort(list.files(arguments[[1L]], "[.]csv$", full.names = TRUE))
work <- arguments[[2L]]

sdk <- MonitoringSDK$new("wafer-analysis")  # the job, and the span that we belong to, are in the environment
job <- Sys.getenv("WAFERMON_TRACE_ID")

with_span(sdk, "analyse", {
  lots <- list()
  for (path in paths) {
    lots[[path]] <- with_span(sdk, "lot", analyse_lot(sdk, path), tags = list(file = basename(path)))
    sdk$log_progress(job, 40 * length(lots) / length(paths), "analysing")
  }
  dies <- do.call(rbind, lots)
  new <- dies$lot == dies$lot[[nrow(dies)]]
  for (set in list(list("train.csv", dies[!new & !dies$outlier, ]), list("new.csv", dies[new, ]))) {
    write.csv(set[[2L]][c("edge", "z_vth", "z_idsat", "z_leak", "fails")], file.path(work, set[[1L]]),
              row.names = FALSE, quote = FALSE)
    sdk$log_event("info", "data written", list(file = set[[1L]], dies = nrow(set[[2L]])))
  }
})
sdk$log_resource()
message(sprintf("wafer-analysis: %.0f messages", sdk$get_stats()$called))
