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
