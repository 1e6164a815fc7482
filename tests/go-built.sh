# Servers of the tests that are built once, of pinned versions, through the Go module proxy. Source it:
#
#   go_of VERSION WORK        the path of a Go that is not older than VERSION is in $go; what it needs to fetch goes through WORK
#
# A script that sources it has a `say` of its own.
go_of() {
  command -v go >/dev/null || { say "needs Go: apt-get install golang-go"; exit 1; }
  go=go
  if [ "$(printf '%s\n' "$1" "$(go env GOVERSION | sed 's/^go//')" | sort -V | head -n 1)" != "$1" ]; then
    # The proxy has Go itself too, as a module, which leaves out what may be executed.
    say "Go $1 is fetched: $(go env GOVERSION) is too old"
    local toolchain
    toolchain=golang.org/toolchain@v0.0.1-go$1.$(go env GOOS)-$(go env GOARCH)
    (mkdir "$2/fetch" && cd "$2/fetch" && go mod init fetch 2>/dev/null && GOTOOLCHAIN=local GOFLAGS=-modcacherw go mod download "$toolchain")
    go=$(go env GOMODCACHE)/$toolchain/bin/go
    chmod +x "$go" "${go%/bin/go}"/pkg/tool/*/*
  fi
}
