package main

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The parts that use clientv3 as an application does. Each returns the lines that the table expects.
var typed = map[string]func(endpoint string) []string{
	"kv":     kv,
	"errors": refusals,
	"watch":  watch,
	"lease":  lease,
	"retry":  retry,
}

func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), wait)
}

func line(format string, values ...any) string { return fmt.Sprintf(format, values...) }

func kv(endpoint string) (lines []string) {
	ctx, cancel := bounded()
	defer cancel()
	c := client(endpoint)
	put, err := c.Put(ctx, "t/a", "1", clientv3.WithPrevKV())
	must(err)
	lines = append(lines, line("put: revision %d, previous %v", put.Header.Revision, put.PrevKv != nil))
	_, err = c.Put(ctx, "t/b", "2")
	must(err)
	get, err := c.Get(ctx, "t/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	must(err)
	for _, one := range get.Kvs {
		lines = append(lines, line("get: %s = %s, version %d", one.Key, one.Value, one.Version))
	}
	txn, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("t/a"), "=", "1"), clientv3.Compare(clientv3.Version("t/c"), "=", 0)).
		Then(clientv3.OpPut("t/c", "3"), clientv3.OpGet("t/c")).
		Else(clientv3.OpGet("t/a")).
		Commit()
	must(err)
	lines = append(lines, line("txn: %v, %d answers", txn.Succeeded, len(txn.Responses)))
	lines = append(lines, line("txn: %s", txn.Responses[1].GetResponseRange().Kvs[0].Value))
	deleted, err := c.Delete(ctx, "t/", clientv3.WithPrefix())
	must(err)
	return append(lines, line("delete: %d", deleted.Deleted))
}

// The errors that an application compares with.
func refusals(endpoint string) (lines []string) {
	ctx, cancel := bounded()
	defer cancel()
	c := client(endpoint)
	for _, value := range []string{"1", "2", "3"} {
		_, err := c.Put(ctx, "e/a", value)
		must(err)
	}
	now, err := c.Get(ctx, "e/a")
	must(err)
	_, err = c.Compact(ctx, now.Header.Revision)
	must(err)
	is := func(name string, err, expected error) {
		lines = append(lines, line("%s: %v, %v", name, errors.Is(err, expected), err))
	}
	_, err = c.Get(ctx, "e/a", clientv3.WithRev(now.Header.Revision-1))
	is("get: ErrCompacted", err, rpctypes.ErrCompacted)
	_, err = c.Get(ctx, "e/a", clientv3.WithRev(now.Header.Revision+1000))
	is("get: ErrFutureRev", err, rpctypes.ErrFutureRev)
	_, err = c.Get(ctx, "")
	is("get: ErrEmptyKey", err, rpctypes.ErrEmptyKey)
	_, err = c.Put(ctx, "", "1")
	is("put: ErrEmptyKey", err, rpctypes.ErrEmptyKey)
	_, err = c.Put(ctx, "e/b", "1", clientv3.WithLease(12345))
	is("put: ErrLeaseNotFound", err, rpctypes.ErrLeaseNotFound)
	_, err = c.Put(ctx, "e/none", "", clientv3.WithIgnoreValue())
	is("put: ErrKeyNotFound", err, rpctypes.ErrKeyNotFound)
	_, err = c.Compact(ctx, now.Header.Revision)
	is("compact: ErrCompacted", err, rpctypes.ErrCompacted)
	_, err = c.Txn(ctx).Then(clientv3.OpPut("e/c", "1"), clientv3.OpPut("e/c", "2")).Commit()
	is("txn: ErrDuplicateKey", err, rpctypes.ErrDuplicateKey)
	gets := make([]clientv3.Op, 129)
	for i := range gets {
		gets[i] = clientv3.OpGet("e/a")
	}
	_, err = c.Txn(ctx).Then(gets...).Commit()
	is("txn: ErrTooManyOps", err, rpctypes.ErrTooManyOps)
	_, err = c.Revoke(ctx, 12345)
	is("revoke: ErrLeaseNotFound", err, rpctypes.ErrLeaseNotFound)
	_, err = c.KeepAliveOnce(ctx, 12345)
	is("keep-alive: ErrLeaseNotFound", err, rpctypes.ErrLeaseNotFound)
	_, err = c.Grant(ctx, 1<<40)
	is("grant: ErrLeaseTTLTooLarge", err, rpctypes.ErrLeaseTTLTooLarge)
	_, err = c.MemberRemove(ctx, 12345)
	is("member remove: ErrMemberNotFound", err, rpctypes.ErrMemberNotFound)
	_, err = c.MemberPromote(ctx, 12345)
	is("member promote: ErrMemberNotFound", err, rpctypes.ErrMemberNotFound)
	_, err = c.Put(ctx, "e/large", string(make([]byte, 1600*1024)))
	is("put: ErrRequestTooLarge", err, rpctypes.ErrRequestTooLarge)
	return lines
}

func watch(endpoint string) (lines []string) {
	ctx, cancel := bounded()
	defer cancel()
	c := client(endpoint)
	put, err := c.Put(ctx, "w/a", "1")
	must(err)
	first := put.Header.Revision
	for _, value := range []string{"2", "3"} {
		_, err = c.Put(ctx, "w/a", value)
		must(err)
	}
	_, err = c.Delete(ctx, "w/a")
	must(err)
	events := c.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithPrevKV())
	for seen := 0; seen < 4; {
		answer := <-events
		must(answer.Err())
		for _, event := range answer.Events {
			seen++
			previous := "none"
			if event.PrevKv != nil {
				previous = string(event.PrevKv.Value)
			}
			lines = append(lines, line("watch: %s %s = %q, before %s", event.Type, event.Kv.Key, event.Kv.Value, previous))
		}
	}
	_, err = c.Compact(ctx, first+2)
	must(err)
	for answer := range c.Watch(ctx, "w/a", clientv3.WithRev(first)) {
		refused := answer.Err()
		lines = append(lines, line("watch: ErrCompacted: %v, at the compacted revision: %v",
			errors.Is(refused, rpctypes.ErrCompacted), answer.CompactRevision == first+2))
	}
	return lines
}

func lease(endpoint string) (lines []string) {
	ctx, cancel := bounded()
	defer cancel()
	c := client(endpoint)
	granted, err := c.Grant(ctx, 60)
	must(err)
	_, err = c.Put(ctx, "l/a", "1", clientv3.WithLease(granted.ID))
	must(err)
	alive, err := c.KeepAlive(ctx, granted.ID)
	must(err)
	lines = append(lines, line("keep-alive: %d s", (<-alive).TTL))
	left, err := c.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	must(err)
	lines = append(lines, line("time to live: granted %d s, keys %s", left.GrantedTTL, left.Keys))
	_, err = c.Revoke(ctx, granted.ID)
	must(err)
	get, err := c.Get(ctx, "l/a")
	must(err)
	return append(lines, line("after revoke: %d keys", get.Count))
}

// One endpoint of two is dead: every request is answered by the other.
func retry(endpoint string) (lines []string) {
	ctx, cancel := bounded()
	defer cancel()
	c := dial(clientv3.Config{Endpoints: []string{"127.0.0.1:1", endpoint}})
	defer c.Close()
	failed := 0
	for range 20 {
		if _, err := c.Get(ctx, "r/a"); err != nil {
			failed++
			lines = append(lines, err.Error())
		}
	}
	return append(lines, line("with a dead endpoint: %d of 20 fail", failed))
}
