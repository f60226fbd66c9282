// Kubernetes' own client of exec, attach and port-forward, at a URL that a CRI runtime gave.
//
//	streamclient command TRANSPORT URL [stdin] [stdout] [stderr] [tty]
//	streamclient forward TRANSPORT URL PORT...
//
// TRANSPORT is spdy or websocket. `command` passes its own streams on, and exits as the program did; the size of a terminal is
// 33 by 111. `forward` prints the local port of each, in order, and goes on until its standard input ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

type size struct{ told bool }

func (s *size) Next() *remotecommand.TerminalSize {
	if s.told {
		return nil
	}
	s.told = true
	return &remotecommand.TerminalSize{Width: 111, Height: 33}
}

func command(transport string, where *url.URL, wanted []string) error {
	config := &rest.Config{}
	var executor remotecommand.Executor
	var err error
	if transport == "websocket" {
		executor, err = remotecommand.NewWebSocketExecutor(config, "GET", where.String())
	} else {
		executor, err = remotecommand.NewSPDYExecutor(config, "POST", where)
	}
	if err != nil {
		return err
	}
	options := remotecommand.StreamOptions{}
	if slices.Contains(wanted, "stdin") {
		options.Stdin = os.Stdin
	}
	if slices.Contains(wanted, "stdout") {
		options.Stdout = os.Stdout
	}
	if slices.Contains(wanted, "stderr") {
		options.Stderr = os.Stderr
	}
	if slices.Contains(wanted, "tty") {
		options.Tty, options.TerminalSizeQueue = true, &size{}
	}
	return executor.StreamWithContext(context.Background(), options)
}

func forward(transport string, where *url.URL, ports []string) error {
	config := &rest.Config{}
	var dialer httpstream.Dialer
	var err error
	if transport == "websocket" {
		dialer, err = portforward.NewSPDYOverWebsocketDialer(where, config)
	} else {
		var trip http.RoundTripper
		var upgrader spdy.Upgrader
		trip, upgrader, err = spdy.RoundTripperFor(config)
		if err == nil {
			dialer = spdy.NewDialer(upgrader, &http.Client{Transport: trip}, "POST", where)
		}
	}
	if err != nil {
		return err
	}
	for i, port := range ports {
		ports[i] = "0:" + port
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.New(dialer, ports, stop, ready, io.Discard, os.Stderr)
	if err != nil {
		return err
	}
	go func() {
		<-ready
		found, _ := forwarder.GetPorts()
		for _, port := range found {
			fmt.Println(port.Local)
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	return forwarder.ForwardPorts()
}

func main() {
	where, err := url.Parse(os.Args[3])
	if err == nil {
		if os.Args[1] == "forward" {
			err = forward(os.Args[2], where, os.Args[4:])
		} else {
			err = command(os.Args[2], where, os.Args[4:])
		}
	}
	var code exec.CodeExitError
	if errors.As(err, &code) {
		os.Exit(code.Code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(200)
	}
}
