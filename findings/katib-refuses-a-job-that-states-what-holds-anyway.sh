#!/usr/bin/env bash
# Katib: a trial template of a Job is refused where it states what holds anyway, as false, "" or null, or a quantity in
# another way than Kubernetes would write it.
#
# Expected: a Job that `kubectl apply` takes is taken as the trialSpec of an Experiment.
# Happens: the webhook converts the Job to its Go type and back and refuses what does not come back. Of optional fields
#   neither false, 0, an empty text, an empty list nor null comes back, and 1024Mi comes back as 1Gi. Pointers do:
#   `automountServiceAccountToken: false` is taken, `hostNetwork: false` is not.
# Hurts: templates made from `kubectl create job --dry-run=client -o yaml`, which writes `creationTimestamp: null`, from
#   Helm charts with `value: ""` and `readOnly: false`, and volumes of 1024Mi: "unable to convert", with no word of why.
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
	"strings"

	config "github.com/kubeflow/katib/pkg/apis/config/v1beta1"
	common "github.com/kubeflow/katib/pkg/apis/controller/common/v1beta1"
	experiments "github.com/kubeflow/katib/pkg/apis/controller/experiments/v1beta1"
	"github.com/kubeflow/katib/pkg/controller.v1beta1/experiment/manifest"
	"github.com/kubeflow/katib/pkg/webhook/v1beta1/experiment/validator"
	"sigs.k8s.io/yaml"
)

// A generator whose Katib knows every algorithm and collector.
type generator struct{ manifest.Generator }

func (generator) GetSuggestionConfigData(string) (c config.SuggestionConfig, err error) { return }
func (generator) GetMetricsCollectorConfigData(common.CollectorKind) (c config.MetricsCollectorConfig, err error) {
	return
}

const template = `
metadata: {name: example}
spec:
  objective: {type: maximize, objectiveMetricName: accuracy}
  algorithm: {algorithmName: random}
  parameters: [{name: lr, parameterType: double, feasibleSpace: {min: "0.1", max: "0.2"}}]
  trialTemplate:
    primaryContainerName: trial
    trialParameters: [{name: lr, reference: lr}]
    trialSpec:
      apiVersion: batch/v1
      kind: Job
      metadata: {METADATA}
      spec:
        template:
          spec:
            POD
            volumes: [{name: scratch, emptyDir: {SCRATCH}}]
            containers:
              - {name: trial, image: example, command: ["--lr=${trialParameters.lr}"], CONTAINER}
`

func main() {
	cases := []struct {
		place, text string
		taken       bool
	}{
		{"POD", "restartPolicy: Never", true},
		{"POD", "automountServiceAccountToken: false", true},
		{"POD", "hostNetwork: false", false},
		{"POD", `serviceAccountName: ""`, false},
		{"POD", "nodeSelector: {}", false},
		{"METADATA", "creationTimestamp: null", false},
		{"CONTAINER", `env: [{name: DEBUG, value: "1"}]`, true},
		{"CONTAINER", `env: [{name: DEBUG, value: ""}]`, false},
		{"CONTAINER", "args: []", false},
		{"CONTAINER", "volumeMounts: [{name: scratch, mountPath: /s, readOnly: false}]", false},
		{"SCRATCH", "sizeLimit: 1Gi", true},
		{"SCRATCH", "sizeLimit: 1024Mi", false},
	}
	changed := false
	for _, each := range cases {
		text := strings.Replace(template, each.place, each.text, 1)
		for _, place := range []string{"METADATA", "SCRATCH", "CONTAINER"} {
			text = strings.Replace(text, place, "", 1)
		}
		text = strings.Replace(text, "POD\n", "restartPolicy: Never\n", 1)
		var experiment experiments.Experiment
		if err := yaml.Unmarshal([]byte(text), &experiment); err != nil {
			panic(err)
		}
		experiment.SetDefault()
		errors := validator.New(generator{manifest.New(nil)}).ValidateExperiment(&experiment, nil)
		fmt.Printf("%-75s taken: %v\n", each.text, len(errors) == 0)
		changed = changed || (len(errors) == 0) != each.taken
		for _, err := range errors {
			changed = changed || !strings.Contains(err.Error(), "unable to convert")
		}
	}
	if changed {
		fmt.Println("the behaviour has changed")
		os.Exit(1)
	}
}
GO
go mod init example 2> log
go get github.com/kubeflow/katib@v0.19.0 2>> log
go mod tidy 2>> log || { cat log; exit 1; }
go list -m github.com/kubeflow/katib k8s.io/api
go run .
