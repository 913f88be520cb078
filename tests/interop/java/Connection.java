import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.protobuf.ByteString;
import io.etcd.jetcd.api.KVGrpc;
import io.etcd.jetcd.api.LeaseGrantRequest;
import io.etcd.jetcd.api.LeaseGrpc;
import io.etcd.jetcd.api.LeaseKeepAliveRequest;
import io.etcd.jetcd.api.LeaseKeepAliveResponse;
import io.etcd.jetcd.api.PutRequest;
import io.etcd.jetcd.api.RangeRequest;
import io.etcd.jetcd.api.WatchCreateRequest;
import io.etcd.jetcd.api.WatchGrpc;
import io.etcd.jetcd.api.WatchRequest;
import io.etcd.jetcd.api.WatchResponse;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.grpc.stub.MetadataUtils;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** What one connection carries. Each part returns the lines that the table has of it. */
final class Connection {
  private static final int MANY_STREAMS = 4200;
  private static final int ABANDONED_STREAMS = 1000;

  private final ManagedChannel channel;
  private final List<String> lines = new ArrayList<>();

  private Connection(ManagedChannel channel) {
    this.channel = channel;
  }

  static List<String> run(String name, String endpoint) throws Exception {
    Connection connection = new Connection(Driver.channel(endpoint));
    switch (name) {
      case "many streams" -> connection.many();
      case "abandoned streams" -> connection.abandoned();
      case "large metadata" -> connection.largeMetadata();
      default -> throw new IllegalArgumentException(name);
    }
    return connection.lines;
  }

  /** A stream: its answers, and null when it ends. */
  private static final class Answers<Q, A> implements ClientResponseObserver<Q, A> {
    final BlockingQueue<Object> answers = new LinkedBlockingQueue<>();
    ClientCallStreamObserver<Q> call;

    @Override
    public void beforeStart(ClientCallStreamObserver<Q> started) {
      call = started;
    }

    @Override
    public void onNext(A answer) {
      answers.add(answer);
    }

    @Override
    public void onError(Throwable error) {
      answers.add(Status.fromThrowable(error));
    }

    @Override
    public void onCompleted() {
      answers.add(Status.OK);
    }

    /** Waits for an answer; throws where the stream ends instead. */
    void next() throws Exception {
      Object received = answers.poll(Driver.WAIT_S, TimeUnit.SECONDS);
      if (received == null) {
        throw new IllegalStateException("nothing came");
      }
      if (received instanceof Status ended) {
        throw new IllegalStateException(ended.getCode() + ", " + ended.getDescription());
      }
    }
  }

  private Answers<WatchRequest, WatchResponse> watch(String key) {
    Answers<WatchRequest, WatchResponse> received = new Answers<>();
    WatchGrpc.newStub(channel).watch(received);
    WatchCreateRequest create = WatchCreateRequest.newBuilder().setKey(bytes(key)).build();
    received.call.onNext(WatchRequest.newBuilder().setCreateRequest(create).build());
    return received;
  }

  private static ByteString bytes(String text) {
    return ByteString.copyFrom(text, UTF_8);
  }

  private interface Part {
    void run() throws Exception;
  }

  private void outcome(String name, Part part) {
    try {
      part.run();
      lines.add(name + ": OK");
    } catch (Exception error) {
      lines.add(name + ": " + error);
    }
  }

  /** A put, a read, and a keep-alive of a new lease. */
  private void ordinary(String key, long lease) {
    var kv = KVGrpc.newBlockingStub(channel);
    var leases = LeaseGrpc.newBlockingStub(channel);
    PutRequest put = PutRequest.newBuilder().setKey(bytes(key)).setValue(bytes("1")).build();
    outcome("put", () -> kv.withDeadlineAfter(Driver.WAIT_S, TimeUnit.SECONDS).put(put));
    RangeRequest get = RangeRequest.newBuilder().setKey(bytes(key)).build();
    outcome("get", () -> kv.withDeadlineAfter(Driver.WAIT_S, TimeUnit.SECONDS).range(get));
    outcome(
        "keep-alive",
        () -> {
          LeaseGrantRequest grant = LeaseGrantRequest.newBuilder().setID(lease).setTTL(60).build();
          leases.withDeadlineAfter(Driver.WAIT_S, TimeUnit.SECONDS).leaseGrant(grant);
          Answers<LeaseKeepAliveRequest, LeaseKeepAliveResponse> alive = new Answers<>();
          LeaseGrpc.newStub(channel).leaseKeepAlive(alive);
          alive.call.onNext(LeaseKeepAliveRequest.newBuilder().setID(lease).build());
          alive.next();
          alive.call.cancel("the step has ended", null);
        });
  }

  private void many() {
    List<Answers<WatchRequest, WatchResponse>> streams = new ArrayList<>();
    for (int i = 0; i < MANY_STREAMS; i++) {
      streams.add(watch("m/a"));
    }
    succeeded(streams);
    ordinary("m/a", 71);
    lines.add("watches that see the put: " + succeeded(streams));
    streams.forEach(stream -> stream.call.cancel("the step has ended", null));
  }

  /** How many of them have a next answer. Once one has none, the others are not waited for. */
  private static int succeeded(List<Answers<WatchRequest, WatchResponse>> streams) {
    int count = 0;
    boolean late = false;
    for (var stream : streams) {
      if (late && stream.answers.isEmpty()) {
        continue;
      }
      try {
        stream.next();
        count++;
      } catch (Exception error) {
        late = true;
      }
    }
    return count;
  }

  private void abandoned() throws Exception {
    var lives = watch("m/b");
    lives.next();
    for (int i = 0; i < ABANDONED_STREAMS; i++) {
      watch("m/b").call.cancel("abandoned", null);
    }
    ordinary("m/b", 72);
    outcome("the watch that lives", lives::next);
    lives.call.cancel("the step has ended", null);
  }

  private void largeMetadata() {
    Metadata large = new Metadata();
    large.put(Metadata.Key.of("x-large", Metadata.ASCII_STRING_MARSHALLER), "x".repeat(200_000));
    var kv =
        KVGrpc.newBlockingStub(channel)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(large));
    RangeRequest get = RangeRequest.newBuilder().setKey(bytes("a")).build();
    outcome(
        "200 kB of metadata",
        () -> kv.withDeadlineAfter(Driver.WAIT_S, TimeUnit.SECONDS).range(get));
  }
}
