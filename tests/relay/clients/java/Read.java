import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/** Reads a channel with Java's own client and prints each message; arguments: URL PROTOCOL REQUEST. */
class Read implements WebSocket.Listener {
  private final CompletableFuture<Void> over = new CompletableFuture<>();
  private final StringBuilder text = new StringBuilder();

  @Override
  public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean last) {
    text.append(part);
    if (last) {
      System.out.println(text);
      boolean finished = text.indexOf("\"type\":\"finished\"") >= 0;
      text.setLength(0);
      if (finished) {
        return socket.sendClose(WebSocket.NORMAL_CLOSURE, "").thenRun(() -> over.complete(null));
      }
    }
    socket.request(1);
    return null;
  }

  @Override
  public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
    over.complete(null);
    return null;
  }

  @Override
  public void onError(WebSocket socket, Throwable error) {
    over.completeExceptionally(error);
  }

  public static void main(String[] arguments) throws Exception {
    Read reader = new Read();
    WebSocket.Builder builder = HttpClient.newHttpClient().newWebSocketBuilder();
    if (!arguments[1].isEmpty()) {
      builder.subprotocols(arguments[1]);
    }
    WebSocket socket = builder.buildAsync(URI.create(arguments[0]), reader).get();
    socket.sendText(arguments[2], true).get();
    reader.over.get();
    System.exit(0);
  }
}
