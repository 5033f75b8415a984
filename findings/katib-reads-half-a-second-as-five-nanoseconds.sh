#!/usr/bin/env bash
# Katib: in a metrics file of JSON lines, the digits behind the point of a timestamp are taken for nanoseconds.
#
# Expected: `"timestamp": 1700000000.5` lies half a second behind 1700000000, as time.time() writes it.
# Happens: 1700000000.5 is 5 ns behind it and 1700000000.25 is 25 ns, so that .5 comes before .25; a time of seven digits
#   lies before one of six that is earlier. `latest` then picks an earlier report of the same second as the last one.
# Hurts: trials that report several times a second through a file, with the strategy `latest`: early stopping and the
#   search see a value that was overtaken.
# Fails if the behaviour changes. Needs Go and a Go module proxy; compiles for some minutes.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir "$work/example"
cd "$work/example"
export GOFLAGS="-mod=mod -trimpath" GOPATH="$work/go"
cat > main.go <<'GO'
package main

import (
	"fmt"
	"os"

	"github.com/kubeflow/katib/pkg/apis/controller/common/v1beta1"
	collector "github.com/kubeflow/katib/pkg/metricscollector/v1beta1/file-metricscollector"
)

func main() {
	lines := `{"accuracy": "0.1", "timestamp": 1700000000.25}
{"accuracy": "0.2", "timestamp": 1700000000.5}
{"accuracy": "0.3", "timestamp": 1700000000.750001}
`
	if err := os.WriteFile("metrics.log", []byte(lines), 0o600); err != nil {
		panic(err)
	}
	log, err := collector.CollectObservationLog("metrics.log", []string{"accuracy"}, nil, v1beta1.JsonFormat)
	if err != nil {
		panic(err)
	}
	got := ""
	for _, report := range log.MetricLogs {
		fmt.Println(report.Metric.Value, report.TimeStamp)
		got += report.TimeStamp + " "
	}
	expected := "2023-11-14T22:13:20.000000025Z 2023-11-14T22:13:20.000000005Z 2023-11-14T22:13:20.000750001Z "
	if got != expected {
		fmt.Println("the behaviour has changed")
		os.Exit(1)
	}
}
GO
go mod init example 2> log
go get github.com/kubeflow/katib@v0.19.0 2>> log
go mod tidy 2>> log || { cat log; exit 1; }
go list -m github.com/kubeflow/katib
go run .
