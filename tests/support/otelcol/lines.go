package main

import (
	"bytes"
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/pdata/plog"
)

// An encoding for the file exporter: each record's body, as it came.
type encoding struct {
	component.StartFunc
	component.ShutdownFunc
}

func lines() extension.Factory {
	return extension.NewFactory(component.MustNewType("lines"), func() component.Config { return &struct{}{} },
		func(context.Context, extension.Settings, component.Config) (extension.Extension, error) {
			return &encoding{}, nil
		}, component.StabilityLevelDevelopment)
}

// The file exporter ends what this answers with by a newline.
func (*encoding) MarshalLogs(logs plog.Logs) ([]byte, error) {
	var bodies bytes.Buffer
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				if bodies.Len() > 0 {
					bodies.WriteByte('\n')
				}
				bodies.WriteString(record.Body().AsString())
			}
		}
	}
	return bodies.Bytes(), nil
}
