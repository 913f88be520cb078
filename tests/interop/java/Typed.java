import static java.nio.charset.StandardCharsets.UTF_8;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.common.exception.EtcdException;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.lease.LeaseTimeToLiveResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The parts that use jetcd as an application does. Each returns the lines that the table has of it. */
final class Typed {
  private final Client client;
  private final List<String> lines = new ArrayList<>();

  private Typed(Client client) {
    this.client = client;
  }

  static List<String> run(String name, String endpoint) throws Exception {
    try (Client client = Client.builder().endpoints("http://" + endpoint).build()) {
      Typed typed = new Typed(client);
      switch (name) {
        case "kv" -> typed.kv();
        case "errors" -> typed.errors();
        case "watch" -> typed.watch();
        case "lease" -> typed.lease();
        default -> {
          return Connection.run(name, endpoint);
        }
      }
      return typed.lines;
    }
  }

  private void line(String format, Object... values) {
    lines.add(String.format(format, values));
  }

  private static ByteSequence bytes(String text) {
    return ByteSequence.from(text, UTF_8);
  }

  private static <T> T get(CompletableFuture<T> future) throws Exception {
    return future.get(Driver.WAIT_S, TimeUnit.SECONDS);
  }

  private long put(String key, String value) throws Exception {
    return get(client.getKVClient().put(bytes(key), bytes(value))).getHeader().getRevision();
  }

  private void kv() throws Exception {
    line("put: revision %d", put("t/a", "1"));
    put("t/b", "2");
    GetOption descending =
        GetOption.builder().isPrefix(true).withSortOrder(GetOption.SortOrder.DESCEND).build();
    for (KeyValue one : get(client.getKVClient().get(bytes("t/"), descending)).getKvs()) {
      line("get: %s = %s, version %d", one.getKey(), one.getValue(), one.getVersion());
    }
    TxnResponse txn =
        get(
            client
                .getKVClient()
                .txn()
                .If(new Cmp(bytes("t/a"), Cmp.Op.EQUAL, CmpTarget.value(bytes("1"))))
                .Then(
                    Op.put(bytes("t/c"), bytes("3"), PutOption.DEFAULT),
                    Op.get(bytes("t/c"), GetOption.DEFAULT))
                .commit());
    line("txn: %s, %s", txn.isSucceeded(), txn.getGetResponses().get(0).getKvs().get(0).getValue());
    DeleteOption prefix = DeleteOption.builder().isPrefix(true).build();
    line("delete: %d", get(client.getKVClient().delete(bytes("t/"), prefix)).getDeleted());
  }

  private void refused(String name, CompletableFuture<?> future) throws Exception {
    try {
      get(future);
      line("%s: OK", name);
    } catch (ExecutionException failed) {
      Throwable cause = failed.getCause();
      if (cause instanceof EtcdException error) {
        line("%s: %s, %s", name, error.getErrorCode(), error.getMessage());
      } else {
        line("%s: %s", name, cause);
      }
    }
  }

  private void errors() throws Exception {
    put("e/a", "1");
    put("e/a", "2");
    long now = put("e/a", "3");
    get(client.getKVClient().compact(now));
    refused("get, compacted", client.getKVClient().get(bytes("e/a"), at(now - 1)));
    refused("get, future revision", client.getKVClient().get(bytes("e/a"), at(now + 1000)));
    refused("get, empty key", client.getKVClient().get(bytes("")));
    refused("put, empty key", client.getKVClient().put(bytes(""), bytes("1")));
    PutOption leased = PutOption.builder().withLeaseId(12345).build();
    refused("put, no such lease", client.getKVClient().put(bytes("e/b"), bytes("1"), leased));
    refused("compact, compacted", client.getKVClient().compact(now));
    Op op = Op.put(bytes("e/c"), bytes("1"), PutOption.DEFAULT);
    refused("txn, duplicate key", client.getKVClient().txn().Then(op, op).commit());
    refused("revoke, no such lease", client.getLeaseClient().revoke(12345));
    refused("grant, TTL too large", client.getLeaseClient().grant(1L << 40));
    refused("member remove, no such member", client.getClusterClient().removeMember(12345));
  }

  private static GetOption at(long revision) {
    return GetOption.builder().withRevision(revision).build();
  }

  private void watch() throws Exception {
    long first = put("w/a", "1");
    put("w/a", "2");
    get(client.getKVClient().delete(bytes("w/a")));
    LinkedBlockingQueue<WatchEvent> events = new LinkedBlockingQueue<>();
    WatchOption past = WatchOption.builder().withRevision(first).withPrevKV(true).build();
    try (Watch.Watcher watcher =
        client
            .getWatchClient()
            .watch(bytes("w/a"), past, Watch.listener(answer -> events.addAll(answer.getEvents())))) {
      for (int i = 0; i < 3; i++) {
        WatchEvent event = events.poll(Driver.WAIT_S, TimeUnit.SECONDS);
        line(
            "watch: %s %s = '%s', before '%s'",
            event.getEventType(), event.getKeyValue().getKey(), event.getKeyValue().getValue(), event.getPrevKV().getValue());
      }
    }
    get(client.getKVClient().compact(first + 1));
    LinkedBlockingQueue<Throwable> errors = new LinkedBlockingQueue<>();
    try (Watch.Watcher watcher =
        client
            .getWatchClient()
            .watch(bytes("w/a"), past, Watch.listener(answer -> {}, errors::add))) {
      Throwable error = errors.poll(Driver.WAIT_S, TimeUnit.SECONDS);
      line("watch, compacted: %s", error == null ? "no error" : error.getMessage());
    }
  }

  private void lease() throws Exception {
    long id = get(client.getLeaseClient().grant(60)).getID();
    PutOption leased = PutOption.builder().withLeaseId(id).build();
    get(client.getKVClient().put(bytes("l/a"), bytes("1"), leased));
    line("keep-alive: %d s", get(client.getLeaseClient().keepAliveOnce(id)).getTTL());
    LeaseOption keys = LeaseOption.builder().withAttachedKeys().build();
    LeaseTimeToLiveResponse left = get(client.getLeaseClient().timeToLive(id, keys));
    line("time to live: granted %d s, keys %s", left.getGrantedTTL(), left.getKeys());
    get(client.getLeaseClient().revoke(id));
    line("after revoke: %d keys", get(client.getKVClient().get(bytes("l/a"))).getCount());
  }
}
