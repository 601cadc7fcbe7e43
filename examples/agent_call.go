// An agent in Go sends one invocation and waits for its result. In a folder with a copy of this file:
//
//	go mod init example && go get github.com/rabbitmq/amqp091-go && go build agent_call.go
//	AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f \
//	    ./agent_call get_user '{"user_id": "jane@example.com"}' --connection sandbox
//
// The same as agent_call.py, with the same arguments: direct reply-to, a deadline, the interactive lane. Exits with the
// same codes: 0 if the invocation succeeded, 1 if it failed, 2 for wrong arguments, and 3 without a result (no broker,
// no answer in time, or a message that RabbitMQ refused).
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const usage = `usage: agent_call SUBTOOL ARGUMENTS [--connection NAME] [--seconds N]`

const help = usage + `

  SUBTOOL            such as get_user; see "okta-worker catalog"
  ARGUMENTS          a JSON object
  --connection NAME  the worker's name for the Okta org (default: prod)
  --seconds N        how long to wait (default: 30)`

const (
	// The worker finishes an invocation that has begun before its deadline; the result takes its time.
	grace      = 5 * time.Second
	secondsMax = 86400

	directReplyTo = "amq.rabbitmq.reply-to"
)

// The command line.
type options struct {
	subtool    string
	arguments  json.RawMessage
	connection string
	wait       time.Duration
}

func main() {
	chosen, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println(help)
		return
	}
	if err != nil {
		wrong(err)
	}
	address := os.Getenv("AMQP_URL")
	if address == "" {
		address = "amqp://guest:guest@127.0.0.1:5672/%2f"
	}
	broker, err := amqp.ParseURI(address)
	if err != nil { // its text may show the password
		wrong(errors.New("AMQP_URL is not a URL such as amqp://user:password@host:5672/vhost"))
	}
	result, err := call(address, broker, chosen)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	var indented bytes.Buffer
	var outcome struct {
		Status string `json:"status"`
	}
	if json.Indent(&indented, result, "", "  ") != nil || json.Unmarshal(result, &outcome) != nil {
		fmt.Fprintln(os.Stderr, "the answer is not JSON")
		os.Exit(3)
	}
	fmt.Println(indented.String())
	// `planned` is the success of a dry run.
	if outcome.Status != "succeeded" && outcome.Status != "planned" {
		os.Exit(1)
	}
}

// wrong ends the program because of its arguments.
func wrong(err error) {
	fmt.Fprintf(os.Stderr, "%s\nagent_call: error: %v\n", usage, err)
	os.Exit(2)
}

// parse reads the command line; options may stand before, between and after the positional arguments.
func parse(args []string) (options, error) {
	flags := flag.NewFlagSet("agent_call", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error and the usage
	connection := flags.String("connection", "prod", "")
	seconds := flags.Float64("seconds", 30, "")
	var positional []string
	for rest := args; ; rest = flags.Args()[1:] {
		if err := flags.Parse(rest); err != nil {
			return options{}, err
		}
		if flags.NArg() == 0 {
			break
		}
		positional = append(positional, flags.Arg(0))
	}
	if len(positional) != 2 {
		return options{}, errors.New("give a subtool and its arguments as JSON")
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(positional[1]), &object); err != nil || object == nil {
		return options{}, errors.New("ARGUMENTS: not a JSON object")
	}
	if !(*seconds > 0 && *seconds <= secondsMax) {
		return options{}, fmt.Errorf("--seconds: not a number between 0 and %d: %v", secondsMax, *seconds)
	}
	wait := time.Duration(*seconds * float64(time.Second))
	return options{positional[0], json.RawMessage(positional[1]), *connection, wait}, nil
}

// call connects, sends one invocation and returns the body of its result. Its errors are lines for the user.
func call(address string, broker amqp.URI, chosen options) ([]byte, error) {
	connection, err := amqp.Dial(address)
	if err != nil {
		return nil, fmt.Errorf("failed to connect to RabbitMQ at %s:%d as user `%s` (%v):"+
			" start RabbitMQ there, or correct AMQP_URL",
			broker.Host, broker.Port, broker.Username, err)
	}
	defer connection.Close()
	result, err := exchange(connection, broker.Username, chosen)
	switch {
	case err == nil:
		return result, nil
	case errors.Is(err, context.DeadlineExceeded):
		return nil, errors.New("no answer in time: is a worker running?")
	case connection.IsClosed():
		return nil, fmt.Errorf("lost RabbitMQ at %s:%d (%v): the invocation may still run", broker.Host, broker.Port, err)
	default:
		// RabbitMQ closes the channel if the exchange does not exist, or if the user may not publish there.
		return nil, fmt.Errorf("RabbitMQ refused the invocation (%v): is a worker running,"+
			" and may user `%s` publish for connection `%s`?",
			err, broker.Username, chosen.connection)
	}
}

// exchange sends one invocation over a new channel and returns the body of its result.
func exchange(connection *amqp.Connection, user string, chosen options) ([]byte, error) {
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	// With confirms, RabbitMQ says if it has the message.
	if err := channel.Confirm(false); err != nil {
		return nil, err
	}
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 1))
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	// The consumer of the replies and the publisher must be the same channel, without acknowledgements.
	replies, err := channel.Consume(directReplyTo, "", true, false, false, false, nil)
	if err != nil {
		return nil, err
	}

	id, err := newID()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{
		"subtool":   chosen.subtool,
		"arguments": chosen.arguments,
		// Nobody waits any longer than that, so the worker need not begin later. It answers `rate_limited` at once
		// if Okta's limits do not allow it in time.
		"options": map[string]any{"deadline": time.Now().Add(chosen.wait).UTC().Format(time.RFC3339Nano)},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), chosen.wait+grace)
	defer cancel()
	// The connection alone as the routing key means its interactive lane.
	err = channel.PublishWithContext(ctx, "okta.invocations", chosen.connection, false, false, amqp.Publishing{
		MessageId:     id,
		CorrelationId: id,
		ReplyTo:       directReplyTo,
		Timestamp:     time.Now(),
		UserId:        user, // the caller; RabbitMQ refuses the message if it is not the user of this connection
		ContentType:   "application/json",
		DeliveryMode:  amqp.Persistent,
		Body:          body,
	})
	if err != nil {
		return nil, err
	}
	for {
		select {
		case reply, open := <-replies:
			if !open {
				replies = nil // the reason comes from `closed`
			} else if reply.CorrelationId == id {
				return reply.Body, nil
			}
		case confirm, open := <-confirms:
			if open && !confirm.Ack {
				return nil, errors.New("it did not take the message")
			}
			confirms = nil
		case reason := <-closed:
			if reason == nil {
				return nil, errors.New("the channel was closed")
			}
			return nil, fmt.Errorf("%d %s", reason.Code, reason.Reason)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// newID returns a random id.
func newID() (string, error) {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", id), nil
}
