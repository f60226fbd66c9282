// The Go side of test_ttrpc.py: a client or a server of ttrpc, at a socket, with the Task service and a stream that echoes.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type service struct {
	task.TTRPCTaskService
}

func (service) State(ctx context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	deadline, limited := ctx.Deadline()
	metadata, _ := ttrpc.GetMetadata(ctx)
	words, _ := metadata.Get("words")
	return &task.StateResponse{ID: r.ID, ExecID: r.ExecID, Pid: 42, Stdin: fmt.Sprint(words),
		Terminal: limited && time.Until(deadline) < time.Minute}, nil
}

func (service) Kill(ctx context.Context, r *task.KillRequest) (*emptypb.Empty, error) {
	return nil, status.Errorf(codes.NotFound, "no container %s", r.ID)
}

func serve(address string) {
	server, err := ttrpc.NewServer()
	check(err)
	task.RegisterTTRPCTaskService(server, service{})
	server.RegisterService("test.Streams", &ttrpc.ServiceDesc{Streams: map[string]ttrpc.Stream{"Echo": {
		StreamingClient: true, StreamingServer: true,
		Handler: func(ctx context.Context, stream ttrpc.StreamServer) (interface{}, error) {
			for {
				var request task.StateRequest
				if err := stream.RecvMsg(&request); err == io.EOF {
					return nil, nil
				} else if err != nil {
					return nil, err
				}
				if err := stream.SendMsg(&request); err != nil {
					return nil, err
				}
			}
		},
	}}})
	listener, err := net.Listen("unix", address)
	check(err)
	fmt.Println("ready")
	check(server.Serve(context.Background(), listener))
}

func call(address string) {
	conn, err := net.Dial("unix", address)
	check(err)
	client := ttrpc.NewClient(conn)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{"words": {"a", "b"}})
	tasks := task.NewTTRPCTaskClient(client)
	state, err := tasks.State(ctx, &task.StateRequest{ID: "c", ExecID: "e"})
	check(err)
	fmt.Println("state", state.ID, state.ExecID, state.Pid, state.Stdin, state.Terminal)
	_, err = tasks.Kill(ctx, &task.KillRequest{ID: "c"})
	fmt.Println("kill", status.Code(err), status.Convert(err).Message())
	stream, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}, "test.Streams", "Echo", nil)
	check(err)
	for _, id := range []string{"one", ""} {
		check(stream.SendMsg(&task.StateRequest{ID: id}))
		var answer task.StateRequest
		check(stream.RecvMsg(&answer))
		fmt.Printf("echo %q\n", answer.ID)
	}
	check(stream.CloseSend())
	var answer task.StateRequest
	fmt.Println("end", stream.RecvMsg(&answer))
	large := make([]byte, 3<<20)
	for i := range large {
		large[i] = 'x'
	}
	state, err = tasks.State(ctx, &task.StateRequest{ID: string(large)})
	check(err)
	fmt.Println("large", len(state.ID))
}

func main() {
	if os.Args[1] == "serve" {
		serve(os.Args[2])
	} else {
		call(os.Args[2])
	}
}
