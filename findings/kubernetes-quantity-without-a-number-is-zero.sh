#!/usr/bin/env bash
# Kubernetes' quantities: a unit alone ("Gi", "m", "e3"), a sign and a unit, or a point is the quantity 0.
#
# Expected: "Gi" is refused. The documented grammar asks for at least one digit, and the error for "1 Gi" quotes an
#   expression that does so, too.
# Happens: resource.ParseQuantity, which reads limits, requests and sizes of volumes in the API server, kubectl, Argo and
#   Katib, takes them for 0. "1 Gi", "1K" and "" are refused.
# Hurts: templates in which a value is missing before its unit (`memory: {{ .Values.memory }}Gi`): a request of nothing,
#   so that the pod is scheduled anywhere, and an emptyDir or a shared memory without the limit that was meant.
# Fails if the behaviour changes. Needs Go and a Go module proxy.
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

	"k8s.io/apimachinery/pkg/api/resource"
)

func main() {
	changed := false
	for _, text := range []string{"Gi", "m", "E", "e3", "+Ki", ".", "-.5", "1 Gi", "1K", ""} {
		quantity, err := resource.ParseQuantity(text)
		fmt.Printf("%-6q %v %v\n", text, quantity.String(), err)
		refused := text == "1 Gi" || text == "1K" || text == ""
		changed = changed || (err != nil) != refused || (err == nil && text != "-.5" && !quantity.IsZero())
	}
	if changed {
		fmt.Println("the behaviour has changed")
		os.Exit(1)
	}
}
GO
go mod init example 2> log
go get k8s.io/apimachinery@v0.34.0 2>> log
go mod tidy 2>> log || { cat log; exit 1; }
go list -m k8s.io/apimachinery
go run .
