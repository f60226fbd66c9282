// Reads manifests as an API server would: every kind has to be known, and every field of it. Prints the kinds.
package main

import (
	"bytes"
	"fmt"
	"os"

	snapshots "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	if err := snapshots.AddToScheme(scheme.Scheme); err != nil {
		panic(err)
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	failed := false
	for _, path := range os.Args[1:] {
		text, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		for _, document := range bytes.Split(text, []byte("\n---\n")) {
			_, kind, err := decoder.Decode(document, nil, nil)
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
				failed = true
				continue
			}
			fmt.Println(kind.Kind)
		}
	}
	if failed {
		os.Exit(1)
	}
}
