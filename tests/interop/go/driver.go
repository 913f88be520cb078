// Sends the calls of a plan through grpc-go, over the connection of a clientv3.Client, so that its dial
// options and interceptors are in use. Prints every answer: one line of JSON a step.
//
//	driver PLAN
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The longest time that an answer, or the end of a stream, may take.
const wait = 10 * time.Second

type step struct {
	Step     string            `json:"step"`
	Kind     string            `json:"kind"`
	Endpoint string            `json:"endpoint"`
	Method   string            `json:"method"`
	Metadata map[string]string `json:"metadata"`
	Gzip     bool              `json:"gzip"`
	Timeout  int64             `json:"timeout_ms"`
	Request  string            `json:"request"`
	Actions  []action          `json:"actions"`
	Typed    string            `json:"typed"`
}

type action struct {
	Send    *string `json:"send"`
	Await   int     `json:"await"`
	Call    string  `json:"call"`
	Message string  `json:"message"`
	Close   bool    `json:"close"`
	Cancel  bool    `json:"cancel"`
}

// An answer; without a code where the client ended the stream.
type answer struct {
	Step     string   `json:"step"`
	Messages []string `json:"messages"`
	Code     *uint32  `json:"code"`
	Text     string   `json:"text"`
	Lines    []string `json:"lines,omitempty"`
}

// The messages are bytes already.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte{}, data...)
	return nil
}
func (rawCodec) Name() string { return "proto" }

func raw(text string) *[]byte {
	data, err := hex.DecodeString(text)
	must(err)
	return &data
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

var clients = map[string]*clientv3.Client{}

func client(endpoint string) *clientv3.Client {
	if clients[endpoint] == nil {
		clients[endpoint] = dial(clientv3.Config{Endpoints: []string{endpoint}})
	}
	return clients[endpoint]
}

func dial(config clientv3.Config) *clientv3.Client {
	config.DialTimeout = wait
	config.Logger = zap.NewNop()
	made, err := clientv3.New(config)
	must(err)
	return made
}

func options(s step) []grpc.CallOption {
	given := []grpc.CallOption{
		grpc.ForceCodec(rawCodec{}),
		grpc.MaxCallRecvMsgSize(1 << 30),
		grpc.MaxCallSendMsgSize(1 << 30),
	}
	if s.Gzip {
		given = append(given, grpc.UseCompressor(gzip.Name))
	}
	return given
}

// One request, one answer.
func unary(ctx context.Context, s step) (messages [][]byte, err error) {
	var got []byte
	conn := client(s.Endpoint).ActiveConnection()
	if err = conn.Invoke(ctx, s.Method, raw(s.Request), &got, options(s)...); err != nil {
		return nil, err
	}
	return [][]byte{got}, nil
}

// Any number of answers; with several requests, if the step has them. The error is nil where the client
// ended the stream, and io.EOF where the server did, with OK.
func stream(ctx context.Context, s step) (messages [][]byte, err error) {
	conn := client(s.Endpoint).ActiveConnection()
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: s.Kind == "bidi"}
	opened, err := conn.NewStream(ctx, desc, s.Method, options(s)...)
	if err != nil {
		return nil, err
	}
	if s.Kind == "server" {
		// An error of a send is that of the stream, which the next receive has.
		_ = opened.SendMsg(raw(s.Request))
		_ = opened.CloseSend()
	}
	type received struct {
		data []byte
		err  error
	}
	answers := make(chan received, 1<<16)
	go func() {
		for {
			var got []byte
			err := opened.RecvMsg(&got)
			answers <- received{got, err}
			if err != nil {
				return
			}
		}
	}()
	take := func(count int) (ended bool) {
		late := time.After(wait)
		for range count {
			select {
			case got := <-answers:
				if err = got.err; err != nil {
					return true
				}
				messages = append(messages, got.data)
			case <-late:
				return true
			}
		}
		return false
	}
	for _, do := range s.Actions {
		switch {
		case do.Send != nil:
			_ = opened.SendMsg(raw(*do.Send))
		case do.Call != "":
			var got []byte
			must(conn.Invoke(ctx, do.Call, raw(do.Message), &got, options(step{})...))
		case do.Close:
			_ = opened.CloseSend()
		case do.Cancel:
			return messages, nil
		case take(do.Await):
			return messages, err
		}
	}
	take(1 << 30)
	return messages, err
}

func run(s step) answer {
	if s.Kind == "typed" {
		return answer{Step: s.Step, Lines: typed[s.Typed](s.Endpoint)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(s.Timeout)*time.Millisecond)
	defer cancel()
	for name, value := range s.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	result := answer{Step: s.Step, Messages: []string{}}
	do := stream
	if s.Kind == "unary" {
		do = unary
	}
	messages, err := do(ctx, s)
	for _, message := range messages {
		result.Messages = append(result.Messages, hex.EncodeToString(message))
	}
	if s.Kind == "unary" || err != nil {
		if err == io.EOF {
			err = nil
		}
		found := status.Convert(err)
		code := uint32(found.Code())
		result.Code, result.Text = &code, found.Message()
	}
	return result
}

func version() string {
	found := map[string]string{}
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		found[module.Path] = module.Version
	}
	return fmt.Sprintf("clientv3 %s, grpc-go %s", found["go.etcd.io/etcd/client/v3"], found["google.golang.org/grpc"])
}

func main() {
	plan, err := os.Open(os.Args[1])
	must(err)
	lines := bufio.NewReader(plan)
	print := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return
		}
		must(err)
		var s step
		must(json.Unmarshal(line, &s))
		if s.Kind == "version" {
			must(print.Encode(map[string]string{"version": version()}))
			continue
		}
		must(print.Encode(run(s)))
	}
}
