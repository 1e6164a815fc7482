// Draws which dies of a lot are outside of their limits, an SVG file per wafer: wafer-map LOT
//
// Reads a line per die from standard input (wafer, x, y, "inside" or "outside") and writes to the folder LOT_MAPS. Trace and
// span are in its environment.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"wafermon/monitoring"
)

const size = 20 // pixels of a die

type die struct {
	x, y    int
	outside bool
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "wafer-map:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: wafer-map LOT")
	}
	sdk, err := monitoring.Open("wafer-map")
	if err != nil {
		return err
	}
	defer sdk.Close(context.Background())
	defer func() { fmt.Fprintf(os.Stderr, "wafer-map: %d messages\n", sdk.Stats().Called) }()

	ctx, span := sdk.Start(context.Background(), "maps", monitoring.Tags{"lot": os.Args[1]})
	defer span.End(&err)
	wafers, err := read(os.Stdin)
	if err != nil {
		_ = sdk.In(ctx).LogEvent("error", "a die can't be read", monitoring.Fields{"reason": err})
		return err
	}
	folder := os.Getenv("LOT_MAPS")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return drawAll(ctx, sdk, filepath.Join(folder, os.Args[1]), wafers)
}

func read(in io.Reader) (map[string][]die, error) {
	wafers := map[string][]die{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var wafer, where string
		var one die
		if _, err := fmt.Sscanf(lines.Text(), "%s %d %d %s", &wafer, &one.x, &one.y, &where); err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		one.outside = where == "outside"
		wafers[wafer] = append(wafers[wafer], one)
	}
	return wafers, lines.Err()
}

// drawAll has a goroutine per wafer. Each has its span in a context of its own.
func drawAll(ctx context.Context, sdk *monitoring.SDK, path string, wafers map[string][]die) error {
	var all sync.WaitGroup
	failures := make(chan error, len(wafers))
	for wafer, dies := range wafers {
		all.Add(1)
		go func(wafer string, dies []die) {
			defer all.Done()
			failures <- draw(ctx, sdk, fmt.Sprintf("%s-%s.svg", path, wafer), wafer, dies)
		}(wafer, dies)
	}
	all.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			return err
		}
	}
	return nil
}

func draw(ctx context.Context, sdk *monitoring.SDK, path, wafer string, dies []die) (err error) {
	ctx, span := sdk.Start(ctx, "draw", monitoring.Tags{"wafer": wafer})
	defer span.End(&err)
	sort.Slice(dies, func(i, j int) bool { return dies[i].y*1000+dies[i].x < dies[j].y*1000+dies[j].x })
	var svg strings.Builder
	svg.WriteString("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-100 -100 200 200\">\n")
	for _, one := range dies {
		colour := "seagreen"
		if one.outside {
			colour = "crimson"
		}
		format := "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>\n"
		fmt.Fprintf(&svg, format, one.x*size-size/2, one.y*size-size/2, size-1, size-1, colour)
	}
	svg.WriteString("</svg>\n")
	if err := os.WriteFile(path, []byte(svg.String()), 0o644); err != nil {
		return err
	}
	return sdk.In(ctx).LogEvent("info", "map drawn", monitoring.Fields{"file": path, "dies": len(dies)})
}
