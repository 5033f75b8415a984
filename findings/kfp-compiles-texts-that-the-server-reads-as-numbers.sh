#!/usr/bin/env bash
# KFP SDK: a text such as "1e-3" is compiled without quotes, and the API server reads a number.
#
# Expected: `rate: str = "1e-3"` is the text 1e-3 wherever the compiled pipeline is read.
# Happens: PyYAML, which writes the package, takes 1e-3, 1e5, 0o17 and 08 for texts and leaves the quotes out;
#   gopkg.in/yaml.v3, with which KFP's API server reads a package (NewV2SpecTemplate in v2_template.go), takes them for
#   0.001, 100000, 15 and 8. The type of the parameter stays STRING. kfp.local reads with PyYAML and shows nothing.
# Hurts: learning rates, tolerances and numbers of parts that are handed over as texts: on the cluster a step gets
#   another text than it was tested with ("0.001", "15"), or a number.
# Fails if the behaviour changes. Needs python3 with venv, Go, a package index and a Go module proxy.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kfp==2.17.0
mkdir "$work/reader"
cat > "$work/pipeline.py" <<'PY'
import sys

import kfp
from kfp import compiler, dsl

print("kfp", kfp.__version__)


@dsl.component(base_image="unused")
def show(text: str):
    print(text)


@dsl.pipeline
def texts(rate: str = "1e-3", size: str = "1e5", mode: str = "0o17", part: str = "08", plain: str = "0.5"):
    show(text=rate)


compiler.Compiler().compile(texts, sys.argv[1])
PY
"$work/venv/bin/python" -W ignore "$work/pipeline.py" "$work/pipeline.yaml"
grep -A5 -E '^      (mode|part|plain|rate|size):' "$work/pipeline.yaml" | grep -E 'defaultValue|^      [a-z]'
cat > "$work/reader/main.go" <<'GO'
package main

import (
	"fmt"
	"os"

	"gopkg.in/yaml.v3"
)

func main() {
	content, _ := os.ReadFile(os.Args[1])
	var value struct {
		Root struct {
			InputDefinitions struct {
				Parameters map[string]map[string]any
			} `yaml:"inputDefinitions"`
		}
	}
	if err := yaml.Unmarshal(content, &value); err != nil {
		panic(err)
	}
	for _, name := range []string{"rate", "size", "mode", "part", "plain"} {
		read := value.Root.InputDefinitions.Parameters[name]["defaultValue"]
		fmt.Printf("%s %T %v\n", name, read, read)
	}
}
GO
cd "$work/reader"
export GOFLAGS=-mod=mod GOPATH="$work/go"
go mod init reader 2> "$work/log"
go get gopkg.in/yaml.v3@v3.0.1 2>> "$work/log"
go run . "$work/pipeline.yaml" | tee "$work/read"
cat > "$work/expected" <<'TXT'
rate float64 0.001
size float64 100000
mode int 15
part float64 8
plain string 0.5
TXT
cmp "$work/read" "$work/expected" || { echo "the behaviour has changed"; exit 1; }
