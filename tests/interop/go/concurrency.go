package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func init() {
	typed["locks"] = locks
	typed["elections"] = elections
	typed["software transactional memory"] = stm
}

// Two sessions of one client.
func sessions(c *clientv3.Client) (one, other *concurrency.Session) {
	one, err := concurrency.NewSession(c, concurrency.WithTTL(30))
	must(err)
	other, err = concurrency.NewSession(c, concurrency.WithTTL(30))
	must(err)
	return one, other
}

func locks(endpoint string) (lines []string) {
	ctx, cancel := bounded()
	defer cancel()
	one, other := sessions(client(endpoint))
	first, second := concurrency.NewMutex(one, "lock"), concurrency.NewMutex(other, "lock")
	must(first.Lock(ctx))
	lines = append(lines, line("locked: %v", errors.Is(second.TryLock(ctx), concurrency.ErrLocked)))
	brief, abandon := context.WithTimeout(ctx, 200*time.Millisecond)
	defer abandon()
	lines = append(lines, line("waits: %v", errors.Is(second.Lock(brief), context.DeadlineExceeded)))
	locked := make(chan error, 1)
	go func() { locked <- second.Lock(ctx) }()
	must(first.Unlock(ctx))
	lines = append(lines, outcome("locked after the other unlocks", <-locked))
	// A session that ends gives its locks back.
	go func() { locked <- first.Lock(ctx) }()
	must(other.Close())
	lines = append(lines, outcome("locked after the other's session ends", <-locked))
	must(one.Close())
	return lines
}

func elections(endpoint string) (lines []string) {
	ctx, cancel := bounded()
	defer cancel()
	one, other := sessions(client(endpoint))
	first, second := concurrency.NewElection(one, "election"), concurrency.NewElection(other, "election")
	_, err := first.Leader(ctx)
	lines = append(lines, line("no leader: %v", errors.Is(err, concurrency.ErrElectionNoLeader)))
	must(first.Campaign(ctx, "first"))
	observed := second.Observe(ctx)
	see := func() { lines = append(lines, line("observed: %s", (<-observed).Kvs[0].Value)) }
	see()
	must(first.Proclaim(ctx, "still first"))
	see()
	elected := make(chan error, 1)
	go func() { elected <- second.Campaign(ctx, "second") }()
	must(first.Resign(ctx))
	must(<-elected)
	see()
	must(one.Close())
	must(other.Close())
	return lines
}

func stm(endpoint string) []string {
	c := client(endpoint)
	done := make(chan error)
	const adders = 8
	for range adders {
		go func() {
			_, err := concurrency.NewSTM(c, func(memory concurrency.STM) error {
				memory.Put("stm", memory.Get("stm")+"x")
				return nil
			})
			done <- err
		}()
	}
	for range adders {
		must(<-done)
	}
	ctx, cancel := bounded()
	defer cancel()
	get, err := c.Get(ctx, "stm")
	must(err)
	return []string{line("after %d transactions: %s, version %d", adders, get.Kvs[0].Value, get.Kvs[0].Version)}
}
