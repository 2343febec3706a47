import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import org.zeromq.SocketType;
import org.zeromq.ZContext;
import org.zeromq.ZMQ;
import org.zeromq.ZMsg;

/** A broker with JeroMQ: sends each line of the standard input; arguments: URI IDENTITY. */
class Send {
  public static void main(String[] arguments) throws Exception {
    BufferedReader lines =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    try (ZContext context = new ZContext()) {
      context.setLinger(10_000);
      ZMQ.Socket socket = context.createSocket(SocketType.DEALER);
      if (!arguments[1].isEmpty()) {
        socket.setIdentity(arguments[1].getBytes(StandardCharsets.UTF_8));
      }
      socket.connect(arguments[0]);
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        ZMsg message = new ZMsg();
        for (String frame : line.split("\t", -1)) {
          message.add(frame.getBytes(StandardCharsets.UTF_8));
        }
        message.send(socket);
      }
    }
  }
}
