//go:build !go1.21

package monitoring

// What the language has itself since Go 1.21, for Debian 12's compiler; its slog begins with 1.21 too.

type ordered interface {
	~int | ~int64
}

func min[T ordered](a, b T) T {
	if a < b {
		return a
	}
	return b
}

func max[T ordered](a, b T) T {
	if a > b {
		return a
	}
	return b
}
