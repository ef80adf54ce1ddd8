// A Collector of OpenTelemetry with what a test needs of it: its receiver of OTLP over gRPC and over HTTP, and an
// exporter that writes what comes to a file.
package main

import (
	"context"
	"log"
	"os"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry"
)

// What is configured for the exporter.
type config struct {
	Path string `mapstructure:"path"`
}

// Writes each request to the file, as a line of JSON, before it is answered.
type file struct {
	component.StartFunc
	component.ShutdownFunc
	consumer.Logs
}

func newFile(_ context.Context, _ exporter.Settings, configured component.Config) (exporter.Logs, error) {
	to, err := os.OpenFile(configured.(*config).Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	write := func(_ context.Context, logs plog.Logs) error {
		text, err := (&plog.JSONMarshaler{}).MarshalLogs(logs)
		if err == nil {
			_, err = to.Write(append(text, '\n'))
		}
		return err
	}
	close := func(context.Context) error { return to.Close() }
	logs, err := consumer.NewLogs(write)
	return &file{ShutdownFunc: close, Logs: logs}, err
}

func parts() (otelcol.Factories, error) {
	// It tells nothing about itself, and needs none of the programs' parts that would.
	nothing := func() component.Config { return &struct{}{} }
	parts := otelcol.Factories{Telemetry: telemetry.NewFactory(nothing)}
	var err error
	if parts.Receivers, err = otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory()); err != nil {
		return parts, err
	}
	logs := exporter.WithLogs(newFile, component.StabilityLevelDevelopment)
	files := exporter.NewFactory(component.MustNewType("file"), func() component.Config { return &config{} }, logs)
	parts.Exporters, err = otelcol.MakeFactoryMap[exporter.Factory](files)
	return parts, err
}

func main() {
	files := []confmap.ProviderFactory{fileprovider.NewFactory()}
	command := otelcol.NewCommand(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "collector", Description: "A Collector for a test", Version: "0.165.0"},
		Factories: parts,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{
			ResolverSettings: confmap.ResolverSettings{ProviderFactories: files, DefaultScheme: "file"},
		},
	})
	if err := command.Execute(); err != nil {
		log.Fatal(err)
	}
}
