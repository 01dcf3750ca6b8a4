// Package clients has what Go programs do with Headgate: generated stubs, and a grpc-gateway in front of the server.
package clients

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	headgatev1 "headgate.dev/clients/gen/headgate/v1"
)

// The two ports that take gRPC: the server's own, and Envoy's.
var addresses = map[string]string{"server": os.Getenv("HEADGATE_GRPC"), "envoy": os.Getenv("HEADGATE_REST")}

func connect(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

func withKey(t *testing.T, key string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
}

func statuses(answer *headgatev1.BatchIngestResponse) []string {
	var found []string
	for _, result := range answer.GetResults() {
		found = append(found, result.GetStatus())
	}
	return found
}

func event(t *testing.T, type_, key string, amount float64) *headgatev1.Event {
	t.Helper()
	data, err := structpb.NewStruct(map[string]any{"amount": amount})
	if err != nil {
		t.Fatal(err)
	}
	return &headgatev1.Event{
		Type: type_, Source: "go", IdempotencyKey: &key, Payload: &headgatev1.Event_Data{Data: data},
	}
}

func TestBatch(t *testing.T) {
	for name, address := range addresses {
		t.Run(name, func(t *testing.T) {
			ctx := withKey(t, os.Getenv("HEADGATE_KEY"))
			connection := connect(t, address)
			ingest := headgatev1.NewIngestServiceClient(connection)
			events := []*headgatev1.Event{event(t, "order.completed", name, 49.99), {Source: "go"}, event(t, "order.completed", name, 5)}
			answer, err := ingest.BatchIngest(ctx, &headgatev1.BatchIngestRequest{Events: events})
			if err != nil {
				t.Fatal(err)
			}
			if got := statuses(answer); !slices.Equal(got, []string{"accepted", "rejected", "conflict"}) {
				t.Fatalf("the first answer is %v", got)
			}
			if answer.SuccessCount != 1 || answer.ErrorCount != 2 || answer.Results[1].GetError().GetReason() != "MISSING_FIELD" {
				t.Fatalf("the answer is %v", answer)
			}
			if got := answer.Results[2].GetError().GetDifferingFields(); !slices.Equal(got, []string{"/data/amount"}) {
				t.Fatalf("the conflict differs at %v", got)
			}
			again, err := ingest.BatchIngest(ctx, &headgatev1.BatchIngestRequest{Events: events[:1]})
			if err != nil || again.Results[0].Status != "duplicate" || again.Results[0].Id != answer.Results[0].Id {
				t.Fatalf("sent again it is %v, %v", again, err)
			}
			read, err := headgatev1.NewEventServiceClient(connection).GetEvent(ctx, &headgatev1.GetEventRequest{Id: answer.Results[0].Id})
			if err != nil || read.Event.GetData().AsMap()["amount"] != 49.99 {
				t.Fatalf("read back it is %v, %v", read, err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for name, address := range addresses {
		t.Run(name, func(t *testing.T) {
			ingest := headgatev1.NewIngestServiceClient(connect(t, address))
			_, err := ingest.Ingest(withKey(t, os.Getenv("HEADGATE_KEY")), &headgatev1.IngestRequest{Event: &headgatev1.Event{Source: "go"}})
			refusal := status.Convert(err)
			if refusal.Code() != codes.InvalidArgument || refusal.Message() != "The type field is required." {
				t.Fatalf("the error is %v", refusal)
			}
			info, ok := refusal.Details()[0].(*errdetails.ErrorInfo)
			if !ok || info.Reason != "MISSING_FIELD" || info.Domain != "headgate" {
				t.Fatalf("the details are %v", refusal.Details())
			}
			_, err = ingest.Ingest(withKey(t, "hg_nobody"), &headgatev1.IngestRequest{Event: &headgatev1.Event{Type: "t"}})
			if status.Code(err) != codes.Unauthenticated {
				t.Fatalf("without a valid key the error is %v", err)
			}
		})
	}
}

func TestSubscribe(t *testing.T) {
	for name, address := range addresses {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(withKey(t, os.Getenv("HEADGATE_KEY")))
			defer cancel()
			connection := connect(t, address)
			ingest := headgatev1.NewIngestServiceClient(connection)
			source, start := "subscribe "+name, int64(0)
			stream, err := headgatev1.NewEventServiceClient(connection).Subscribe(
				ctx, &headgatev1.SubscribeRequest{AfterSequence: &start, Source: source})
			if err != nil {
				t.Fatal(err)
			}
			for {
				message, err := stream.Recv()
				switch {
				case errors.Is(err, io.EOF) || err != nil:
					t.Fatal(err)
				case message.GetCaughtUp() != nil:
					if _, err := ingest.Ingest(ctx, &headgatev1.IngestRequest{Event: &headgatev1.Event{Type: "new", Source: source}}); err != nil {
						t.Fatal(err)
					}
				case message.GetEvent().GetType() == "new":
					return
				}
			}
		})
	}
}
