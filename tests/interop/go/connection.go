package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Streams that one connection carries at a time.
const manyStreams = 4200

// Streams that are opened and abandoned while another one lives.
const abandonedStreams = 1000

func init() {
	typed["many streams"] = many
	typed["abandoned streams"] = abandoned
	typed["large metadata"] = largeMetadata
	typed["authority"] = authority
}

// Opens a stream with a watch of one key, and waits until the watch is created.
func openWatch(ctx context.Context, conn *grpc.ClientConn, key string) (pb.Watch_WatchClient, error) {
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return nil, err
	}
	create := &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key)}}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: create}); err != nil {
		return nil, err
	}
	_, err = stream.Recv()
	return stream, err
}

func outcome(name string, err error) string {
	if err != nil {
		return line("%s: %v", name, err)
	}
	return name + ": OK"
}

// A put, a read and a keep-alive of a new lease. Each has the bound to itself.
func ordinary(endpoint, key string) (lines []string) {
	c := client(endpoint)
	do := func(name string, call func(context.Context) error) {
		ctx, cancel := bounded()
		defer cancel()
		lines = append(lines, outcome(name, call(ctx)))
	}
	do("put", func(ctx context.Context) error {
		_, err := c.Put(ctx, key, "1")
		return err
	})
	do("get", func(ctx context.Context) error {
		_, err := c.Get(ctx, key)
		return err
	})
	do("keep-alive", func(ctx context.Context) error {
		granted, err := c.Grant(ctx, 60)
		if err == nil {
			_, err = c.KeepAliveOnce(ctx, granted.ID)
		}
		return err
	})
	return lines
}

func many(endpoint string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*wait)
	defer cancel()
	conn := client(endpoint).ActiveConnection()
	streams := make([]pb.Watch_WatchClient, manyStreams)
	all(func(i int) (err error) {
		streams[i], err = openWatch(ctx, conn, "m/a")
		return err
	})
	lines := ordinary(endpoint, "m/a")
	events := all(func(i int) error {
		if streams[i] == nil {
			return fmt.Errorf("there is no stream")
		}
		_, err := streams[i].Recv()
		return err
	})
	return append(lines, line("watches that see the put: %d", events))
}

// Does it once for every stream, all at a time; returns how many succeed.
func all(do func(i int) error) (succeeded int) {
	var lock sync.Mutex
	var group sync.WaitGroup
	for i := range manyStreams {
		group.Add(1)
		go func() {
			defer group.Done()
			if do(i) == nil {
				lock.Lock()
				defer lock.Unlock()
				succeeded++
			}
		}()
	}
	group.Wait()
	return succeeded
}

func abandoned(endpoint string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*wait)
	defer cancel()
	conn := client(endpoint).ActiveConnection()
	lives, err := openWatch(ctx, conn, "m/b")
	must(err)
	for range abandonedStreams {
		brief, abandon := context.WithCancel(ctx)
		stream, err := pb.NewWatchClient(conn).Watch(brief)
		if err == nil {
			create := &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("m/b")}}
			_ = stream.Send(&pb.WatchRequest{RequestUnion: create})
		}
		abandon()
	}
	lines := ordinary(endpoint, "m/b")
	_, err = lives.Recv()
	return append(lines, outcome("the watch that lives", err))
}

// As large as a proxy's headers with a few certificates in them.
func largeMetadata(endpoint string) []string {
	ctx, cancel := bounded()
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-large", strings.Repeat("x", 200_000))
	_, err := client(endpoint).Get(ctx, "a")
	return []string{outcome("200 kB of metadata", err)}
}

// The endpoints that clientv3 is given decide the :authority that it sends.
func authority(endpoint string) (lines []string) {
	// Names that no resolver knows lead to the server as well.
	toServer := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", endpoint)
	})
	check := func(name string, options []grpc.DialOption, endpoints ...string) {
		ctx, cancel := context.WithTimeout(context.Background(), wait/2)
		defer cancel()
		c := dial(clientv3.Config{Endpoints: endpoints, DialOptions: options})
		defer c.Close()
		_, err := c.Get(ctx, "a")
		lines = append(lines, outcome(name, err))
	}
	check("one endpoint", nil, endpoint)
	check("one with a scheme", nil, "http://"+endpoint)
	check("several", nil, endpoint, "http://"+endpoint, endpoint)
	named := []grpc.DialOption{toServer}
	check("a name with underscores", named, "etcd_0.some_net:2379")
	check("several names with underscores", named, "etcd_0:2379", "http://etcd_1:2379", "etcd_2:2379")
	check("an IPv6 address", named, "[::1]:2379")
	for _, value := range []string{"etcd_0:2379", "#initially=[etcd_0:2379;etcd_1:2379]", "a b", "%41", "é"} {
		check(line("the authority %q", value), []grpc.DialOption{toServer, grpc.WithAuthority(value)}, endpoint)
	}
	return lines
}
