//go:build unix && go1.21

package monitoring_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"

	"wafermon/monitoring"
)

// sidecar is one that only acknowledges, for the examples: programs leave the address to WAFERMON_URL.
var sidecar = func() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				lines := bufio.NewScanner(conn)
				for seq := 0; lines.Scan(); seq++ {
					if seq == 0 {
						fmt.Fprintln(conn, `{"v":2,"type":"welcome","sidecar":"example","acked":0}`)
					} else {
						fmt.Fprintf(conn, `{"type":"ack","seq":%d}`+"\n", seq)
					}
				}
			}()
		}
	}()
	return "tcp://" + listener.Addr().String()
}()

func Example() {
	sdk, err := monitoring.Open("file-receiver", monitoring.WithURL(sidecar))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sdk.Close(context.Background())

	sdk.LogEvent("info", "file received", monitoring.Fields{"file": "lot.dat", "rows": 1250})
	sdk.LogMetric("file.size", 12.5, monitoring.Unit("MBy"), monitoring.Tags{"tool": "A"})
	sdk.LogProgress("job-4711", 100, "done")

	if err := sdk.Flush(context.Background()); err != nil {
		fmt.Println(err)
	}
	fmt.Println(sdk.Stats().Acked, "messages are with the sidecar")
	// Output: 3 messages are with the sidecar
}

func ExampleSDK_Start() {
	sdk, _ := monitoring.Open("loader", monitoring.WithURL(sidecar))
	defer sdk.Close(context.Background())

	load := func(ctx context.Context) (err error) {
		ctx, span := sdk.Start(ctx, "load", monitoring.TraceID("job-4711"), monitoring.Tags{"file": "lot.dat"})
		defer span.End(&err) // with status error, since that is what load returns
		sdk.In(ctx).LogEvent("info", "loading")
		return errors.New("no room")
	}
	fmt.Println(load(context.Background()))
	sdk.Flush(context.Background())
	fmt.Println(sdk.Stats().Acked, "messages: start, event, end")
	// Output:
	// no room
	// 3 messages: start, event, end
}

func ExampleSDK_LogEvent() {
	sdk, _ := monitoring.Open("loader", monitoring.WithURL(sidecar))
	defer sdk.Close(context.Background())

	err := sdk.LogEvent("loud", "message")
	fmt.Println(err)
	fmt.Println(errors.Is(err, monitoring.ErrInvalid))
	// Output:
	// monitoring: unknown level "loud": invalid argument
	// true
}

func ExampleSDK_Handler() {
	sdk, _ := monitoring.Open("loader", monitoring.WithURL(sidecar))
	defer sdk.Close(context.Background())

	logger := slog.New(sdk.Handler(&slog.HandlerOptions{Level: slog.LevelInfo}))
	logger.Info("file read", "rows", 1250, slog.Group("lot", "id", 4711))
	logger.Debug("not told")
	sdk.Flush(context.Background())
	fmt.Println(sdk.Stats().Called)
	// Output: 1
}

func ExampleLogger_ChildEnv() {
	sdk, _ := monitoring.Open("loader", monitoring.WithURL(sidecar))
	defer sdk.Close(context.Background())

	ctx, span := sdk.Start(context.Background(), "convert", monitoring.TraceID("job-4711"))
	defer span.End(nil)
	child := exec.CommandContext(ctx, "sh", "-c", "echo $WAFERMON_TRACE_ID")
	child.Env = sdk.In(ctx).ChildEnv()
	child.Stdout = os.Stdout
	child.Run()
	// Output: job-4711
}
