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
