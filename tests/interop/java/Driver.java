import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Status;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import io.vertx.core.json.JsonArray;
import io.vertx.core.json.JsonObject;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Sends the calls of a plan through grpc-java and prints every answer: one line of JSON a step. */
final class Driver {
  /** The longest time that an answer, or the end of a stream, may take. */
  static final int WAIT_S = 10;

  private static final HexFormat HEX = HexFormat.of();
  private static final Map<String, ManagedChannel> CHANNELS = new HashMap<>();

  /** The answers of one call; without a status where the client ended the stream. */
  private record Answers(List<byte[]> messages, Status status) {}

  /** The messages are bytes already. */
  private static final class Raw implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] message) {
      return new ByteArrayInputStream(message);
    }

    @Override
    public byte[] parse(InputStream stream) {
      try {
        return stream.readAllBytes();
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
  }

  /** Puts what it receives into a queue: a message, or the status. */
  private static final class Listener extends ClientCall.Listener<byte[]> {
    final LinkedBlockingQueue<Object> received = new LinkedBlockingQueue<>();
    private final ClientCall<byte[], byte[]> call;

    Listener(ClientCall<byte[], byte[]> call) {
      this.call = call;
    }

    @Override
    public void onMessage(byte[] message) {
      received.add(message);
      call.request(1);
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      received.add(status);
    }
  }

  static ManagedChannel channel(String endpoint) {
    return CHANNELS.computeIfAbsent(
        endpoint,
        target ->
            NettyChannelBuilder.forTarget(target)
                .usePlaintext()
                .maxInboundMessageSize(Integer.MAX_VALUE)
                .build());
  }

  private static MethodDescriptor<byte[], byte[]> method(String path, MethodType type) {
    return MethodDescriptor.<byte[], byte[]>newBuilder()
        .setType(type)
        .setFullMethodName(path.substring(1))
        .setRequestMarshaller(new Raw())
        .setResponseMarshaller(new Raw())
        .build();
  }

  private static CallOptions options(JsonObject step) {
    CallOptions made =
        CallOptions.DEFAULT.withDeadlineAfter(step.getLong("timeout_ms"), TimeUnit.MILLISECONDS);
    return step.getBoolean("gzip") ? made.withCompression("gzip") : made;
  }

  private static Metadata metadata(JsonObject step) {
    Metadata made = new Metadata();
    for (Map.Entry<String, Object> one : step.getJsonObject("metadata")) {
      made.put(
          Metadata.Key.of(one.getKey(), Metadata.ASCII_STRING_MARSHALLER), (String) one.getValue());
    }
    return made;
  }

  /** Any kind of call: one request, or what the actions say; any number of answers. */
  private static Answers call(JsonObject step) throws InterruptedException {
    boolean unary = step.getString("kind").equals("unary");
    boolean bidi = step.getString("kind").equals("bidi");
    MethodType type =
        unary ? MethodType.UNARY : bidi ? MethodType.BIDI_STREAMING : MethodType.SERVER_STREAMING;
    ManagedChannel channel = channel(step.getString("endpoint"));
    ClientCall<byte[], byte[]> call =
        channel.newCall(method(step.getString("method"), type), options(step));
    Listener listener = new Listener(call);
    call.start(listener, metadata(step));
    call.request(unary ? 2 : 1);
    call.setMessageCompression(step.getBoolean("gzip"));
    if (!bidi) {
      call.sendMessage(HEX.parseHex(step.getString("request")));
      call.halfClose();
    }
    List<byte[]> messages = new ArrayList<>();
    Status status = null;
    boolean more = true;
    for (Object one : step.getJsonArray("actions", new JsonArray())) {
      JsonObject action = (JsonObject) one;
      if (action.containsKey("send")) {
        call.sendMessage(HEX.parseHex(action.getString("send")));
      } else if (action.containsKey("call")) {
        ClientCalls.blockingUnaryCall(
            channel,
            method(action.getString("call"), MethodType.UNARY),
            CallOptions.DEFAULT.withDeadlineAfter(WAIT_S, TimeUnit.SECONDS),
            HEX.parseHex(action.getString("message")));
      } else if (action.containsKey("close")) {
        call.halfClose();
      } else if (action.containsKey("await")) {
        int expected = messages.size() + action.getInteger("await");
        status = take(listener, messages, action.getInteger("await"));
        more = messages.size() == expected;
      } else {
        more = false;
      }
      if (!more) {
        break;
      }
    }
    if (more) {
      status = take(listener, messages, Integer.MAX_VALUE);
    }
    call.cancel("the step has ended", null);
    return new Answers(messages, status);
  }

  /** Collects so many answers; the status if the stream ends before, null if it does not. */
  private static Status take(Listener listener, List<byte[]> messages, int count)
      throws InterruptedException {
    for (int i = 0; i < count; i++) {
      Object received = listener.received.poll(WAIT_S, TimeUnit.SECONDS);
      if (received instanceof Status status) {
        return status;
      }
      if (received == null) {
        return null;
      }
      messages.add((byte[]) received);
    }
    return null;
  }

  private static JsonObject run(JsonObject step) throws Exception {
    JsonObject result = new JsonObject().put("step", step.getString("step"));
    if (step.getString("kind").equals("typed")) {
      return result.put("lines", new JsonArray(Typed.run(step.getString("typed"), step.getString("endpoint"))));
    }
    Answers answers = call(step);
    JsonArray messages = new JsonArray();
    answers.messages.forEach(message -> messages.add(HEX.formatHex(message)));
    Status status = answers.status;
    String text = status == null || status.getDescription() == null ? "" : status.getDescription();
    return result.put("messages", messages)
        .put("code", status == null ? null : status.getCode().value())
        .put("text", text);
  }

  /** As in "1.2.3": that of the library's jar. */
  private static String version(Class<?> of) {
    String jar = Path.of(of.getProtectionDomain().getCodeSource().getLocation().getPath()).getFileName().toString();
    return jar.replaceAll(".*-([0-9][0-9.]*)\\.jar", "$1");
  }

  public static void main(String[] arguments) throws Exception {
    for (String line : Files.readAllLines(Path.of(arguments[0]))) {
      JsonObject step = new JsonObject(line);
      if (step.getString("kind").equals("version")) {
        String versions =
            "jetcd " + version(io.etcd.jetcd.Client.class) + ", grpc-java " + version(NettyChannelBuilder.class);
        System.out.println(new JsonObject().put("version", versions).encode());
      } else {
        System.out.println(run(step).encode());
      }
    }
    System.exit(0);
  }
}
