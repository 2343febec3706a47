// Clients and a broker of the relay, with Go's libraries.
//
//	clients gorilla|coder|net URL PROTOCOL REQUEST   reads a channel, prints each message
//	clients send URI IDENTITY                        sends each line of the standard input
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	coder "github.com/coder/websocket"
	"github.com/go-zeromq/zmq4"
	gorilla "github.com/gorilla/websocket"
	network "golang.org/x/net/websocket"
)

func main() {
	var err error
	arguments := os.Args[2:]
	switch os.Args[1] {
	case "gorilla":
		err = readGorilla(arguments[0], arguments[1], arguments[2])
	case "coder":
		err = readCoder(arguments[0], arguments[1], arguments[2])
	case "net":
		err = readNetwork(arguments[0], arguments[1], arguments[2])
	case "send":
		err = send(arguments[0], arguments[1])
	default:
		err = errors.New("unknown client")
	}
	if err != nil {
		log.Fatal(err)
	}
}

// isLast prints a message, and returns whether the client closes after it.
func isLast(text string) bool {
	fmt.Println(text)
	return strings.Contains(text, `"type":"finished"`)
}

func offered(protocol string) []string {
	if protocol == "" {
		return nil
	}
	return []string{protocol}
}

func readGorilla(url, protocol, request string) error {
	dialer := gorilla.Dialer{Subprotocols: offered(protocol)}
	socket, _, err := dialer.Dial(url, nil)
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := socket.WriteMessage(gorilla.TextMessage, []byte(request)); err != nil {
		return err
	}
	for {
		_, text, err := socket.ReadMessage()
		if gorilla.IsCloseError(err, gorilla.CloseNormalClosure) {
			return nil
		}
		if err != nil {
			return err
		}
		if isLast(string(text)) {
			return nil
		}
	}
}

func readCoder(url, protocol, request string) error {
	ctx := context.Background()
	socket, _, err := coder.Dial(ctx, url, &coder.DialOptions{Subprotocols: offered(protocol)})
	if err != nil {
		return err
	}
	defer socket.CloseNow()
	if err := socket.Write(ctx, coder.MessageText, []byte(request)); err != nil {
		return err
	}
	for {
		_, text, err := socket.Read(ctx)
		if coder.CloseStatus(err) == coder.StatusNormalClosure {
			return nil
		}
		if err != nil {
			return err
		}
		if isLast(string(text)) {
			return socket.Close(coder.StatusNormalClosure, "")
		}
	}
}

func readNetwork(url, protocol, request string) error {
	// It always sends an Origin.
	socket, err := network.Dial(url, protocol, "http://localhost/")
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := network.Message.Send(socket, request); err != nil {
		return err
	}
	for {
		var text string
		err := network.Message.Receive(socket, &text)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if isLast(text) {
			return nil
		}
	}
}

func send(uri, identity string) error {
	var options []zmq4.Option
	if identity != "" {
		options = append(options, zmq4.WithID(zmq4.SocketIdentity(identity)))
	}
	socket := zmq4.NewDealer(context.Background(), options...)
	defer socket.Close()
	if err := socket.Dial(uri); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var message zmq4.Msg
		for _, frame := range strings.Split(lines.Text(), "\t") {
			message.Frames = append(message.Frames, []byte(frame))
		}
		if err := socket.SendMulti(message); err != nil {
			return err
		}
	}
	return lines.Err()
}
