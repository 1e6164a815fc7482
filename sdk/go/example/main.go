// Reads files and tells the sidecar about it:
//
//	go run ./example FILE...
//
// The address comes from WAFERMON_URL (tcp://127.0.0.1:7411 where that is not set). It works without a sidecar too.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"wafermon/monitoring"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

func run(names []string) error {
	sdk, err := monitoring.Open("example", monitoring.WithTraceID("job-4711"))
	if err != nil {
		return err
	}
	defer sdk.Close(context.Background())

	for number, name := range names {
		if err := read(context.Background(), sdk, name); err != nil {
			fmt.Fprintln(os.Stderr, "example:", err)
		}
		_ = sdk.LogProgress("job-4711", 100*float64(number+1)/float64(len(names)))
	}
	_ = sdk.LogResource()
	_ = sdk.LogProgress("job-4711", 100, "done")

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	delivered := "all acknowledged"
	if err := sdk.Flush(ctx); err != nil {
		delivered = "left for the sidecar"
	}
	fmt.Printf("%d messages, %s\n", sdk.Stats().Called, delivered)
	return nil
}

// read logs what is in a file, inside a span that ends with an error where it can't be read.
func read(ctx context.Context, sdk *monitoring.SDK, name string) (err error) {
	ctx, span := sdk.Start(ctx, "read", monitoring.Tags{"file": name})
	defer span.End(&err)
	data, err := os.ReadFile(name)
	if err != nil {
		_ = sdk.In(ctx).LogEvent("error", "unreadable", monitoring.Fields{"file": name, "reason": err})
		return err
	}
	_ = sdk.In(ctx).LogEvent("info", "read", monitoring.Fields{"file": name, "lines": bytes.Count(data, []byte{'\n'})})
	return sdk.In(ctx).LogMetric("bytes_read", float64(len(data)), monitoring.Unit("By"), monitoring.Tags{"file": name})
}
