package clients

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

type results struct {
	Results []struct {
		Status   string
		Warnings []string
		Error    struct{ Reason string }
	}
}

func cloudEvent(t *testing.T, id string, data map[string]any) cloudevents.Event {
	t.Helper()
	made := cloudevents.NewEvent()
	made.SetID(id)
	made.SetSource("https://example.com/go")
	made.SetType("com.example.order")
	made.SetExtension("tenant", "acme")
	if err := made.SetData(cloudevents.ApplicationJSON, data); err != nil {
		t.Fatal(err)
	}
	return made
}

func send(t *testing.T, request *http.Request) results {
	t.Helper()
	request.Header.Set("authorization", "Bearer "+os.Getenv("HEADGATE_KEY"))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer results
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("the answer is %d, %v", response.StatusCode, err)
	}
	return answer
}

func cloudEventsURL() string { return "http://" + os.Getenv("HEADGATE_REST") + "/v1/cloudevents" }

// TestCloudEventsBatch sends the SDK's own batches: each event has its own result.
func TestCloudEventsBatch(t *testing.T) {
	batch := []cloudevents.Event{
		cloudEvent(t, "batch-1", map[string]any{"amount": 49.99}),
		cloudEvent(t, "batch-2", map[string]any{"amount": 5}),
		cloudEvent(t, "batch-1", map[string]any{"amount": 49.99}),
		cloudEvent(t, "batch-2", map[string]any{"amount": 6}),
	}
	for _, want := range [][]string{
		{"accepted", "accepted", "duplicate", "conflict"},
		{"duplicate", "duplicate", "duplicate", "conflict"},
	} {
		request, err := cehttp.NewHTTPRequestFromEvents(t.Context(), cloudEventsURL(), batch)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, result := range send(t, request).Results {
			got = append(got, result.Status)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("the results are %v, not %v", got, want)
		}
	}
}

// TestCloudEventsSentAgain sends through the SDK's client, which fills in the time anew at each attempt.
func TestCloudEventsSentAgain(t *testing.T) {
	protocol, err := cloudevents.NewHTTP(
		cloudevents.WithTarget(cloudEventsURL()), cehttp.WithHeader("authorization", "Bearer "+os.Getenv("HEADGATE_KEY")))
	if err != nil {
		t.Fatal(err)
	}
	client, err := cloudevents.NewClient(protocol, cloudevents.WithTimeNow())
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"binary", "structured"} {
		ctx := cloudevents.WithEncodingBinary(t.Context())
		if mode == "structured" {
			ctx = cloudevents.WithEncodingStructured(t.Context())
		}
		for attempt := range 2 {
			if result := client.Send(ctx, cloudEvent(t, "again-"+mode, map[string]any{"n": 1})); !cloudevents.IsACK(result) {
				t.Fatalf("%s, attempt %d: %v", mode, attempt, result)
			}
		}
		changed := client.Send(ctx, cloudEvent(t, "again-"+mode, map[string]any{"n": 2}))
		var refused *cehttp.Result
		if !cloudevents.ResultAs(changed, &refused) || refused.StatusCode != http.StatusConflict {
			t.Fatalf("%s: with other data it is %v", mode, changed)
		}
	}
}
