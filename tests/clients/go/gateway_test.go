package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"

	headgatev1 "headgate.dev/clients/gen/headgate/v1"
)

// gateway starts a grpc-gateway in front of the server, as docs/clients.md shows it.
func gateway(t *testing.T) string {
	t.Helper()
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			MarshalOptions: protojson.MarshalOptions{UseProtoNames: true},
		}),
		runtime.WithIncomingHeaderMatcher(func(name string) (string, bool) {
			switch strings.ToLower(name) {
			case "x-api-key", "idempotency-key", "x-request-id":
				return strings.ToLower(name), true
			}
			return runtime.DefaultHeaderMatcher(name)
		}),
	)
	connection := connect(t, os.Getenv("HEADGATE_GRPC"))
	register := []func(context.Context, *runtime.ServeMux) error{}
	register = append(register,
		func(ctx context.Context, mux *runtime.ServeMux) error {
			return headgatev1.RegisterIngestServiceHandler(ctx, mux, connection)
		},
		func(ctx context.Context, mux *runtime.ServeMux) error {
			return headgatev1.RegisterEventServiceHandler(ctx, mux, connection)
		},
		func(ctx context.Context, mux *runtime.ServeMux) error {
			return headgatev1.RegisterLedgerServiceHandler(ctx, mux, connection)
		},
		func(ctx context.Context, mux *runtime.ServeMux) error {
			return headgatev1.RegisterDestinationServiceHandler(ctx, mux, connection)
		},
		func(ctx context.Context, mux *runtime.ServeMux) error {
			return headgatev1.RegisterWorkspaceServiceHandler(ctx, mux, connection)
		},
		func(ctx context.Context, mux *runtime.ServeMux) error {
			return headgatev1.RegisterRejectionServiceHandler(ctx, mux, connection)
		},
	)
	for _, one := range register {
		if err := one(t.Context(), mux); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

type call struct{ method, path, body, key string }

const nobody = "0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42"

// Each call may name the id of the first stored event, {id}. The keys are "", "admin", "reader" and "wrong".
var calls = []call{
	{"POST", "/v1/events/batch", `{"events": [
		{"type": "order.completed", "source": "shop", "idempotency_key": "k1", "data": {"amount": 49.99, "lines": ["é", null, true]}},
		{"type": "order.completed", "source": "shop", "idempotency_key": "k1", "data": {"amount": 49.99, "lines": ["é", null, true]}},
		{"type": "order.completed", "source": "shop", "idempotency_key": "k1", "data": {"amount": 5}},
		{"source": "shop"},
		{"type": "order.cancelled", "subject": "user_1", "occurred_at": "2026-11-30T09:00:00.123456Z"}]}`, "admin"},
	{"POST", "/v1/events/batch", `{"events": [{"type": "a"}, {"source": "b"}], "atomic": true}`, "admin"},
	{"POST", "/v1/events/batch", `{"events": [{"type": "a"}], "validate_only": true}`, "admin"},
	{"POST", "/v1/events/batch", `{"events": []}`, "admin"},
	{"POST", "/v1/events/batch", `{"events": [{"type": "a"}]}`, "wrong"},
	{"POST", "/v1/events/batch", `{"events": [{"type": "a"}]}`, "reader"},
	{"POST", "/v1/events/batch", `{"events": [{"type": "a"}]}`, ""},
	{"POST", "/v1/events", `{"type": "one", "idempotency_key": "one"}`, "admin"},
	{"POST", "/v1/events", `{"type": "one", "idempotency_key": "one"}`, "admin"},
	{"POST", "/v1/events", `{"type": "two", "idempotency_key": "one"}`, "admin"},
	{"POST", "/v1/events", `{"source": "no type"}`, "admin"},
	{"POST", "/v1/events?validate_only=true", `{"type": "three"}`, "admin"},
	{"GET", "/v1/events/{id}", "", "admin"},
	{"GET", "/v1/events/{id}?view=FULL", "", "reader"},
	{"GET", "/v1/events/" + nobody, "", "admin"},
	{"GET", "/v1/events/no-uuid", "", "admin"},
	{"GET", "/v1/events", "", "reader"},
	{"GET", "/v1/events?type=order.*&page_size=1&newest_first=true", "", "admin"},
	{"GET", "/v1/events?source=shop&idempotency_key=k1", "", "admin"},
	{"GET", "/v1/events?from=2026-01-01T00:00:00Z&to=2100-01-01T00:00:00Z", "", "admin"},
	{"GET", "/v1/events?page_token=x", "", "admin"},
	{"GET", "/v1/events", "", ""},
	{"GET", "/v1/ledger/head", "", "admin"},
	{"GET", "/v1/ledger/verify", "", "admin"},
	{"GET", "/v1/ledger/verify?expected_sequence=99", "", "admin"},
	{"GET", "/v1/usage", "", "admin"},
	{"GET", "/v1/rejections?reason=ABORTED", "", "admin"},
	{"GET", "/v1/rejections/" + nobody, "", "admin"},
	{"POST", "/v1/rejections/" + nobody + ":replay", "{}", "admin"},
	{"POST", "/v1/rejections/" + nobody + ":replay", `{"event": {"type": "a"}}`, "reader"},
	{"GET", "/v1/destinations", "", "admin"},
	{"GET", "/v1/destinations", "", "reader"},
	{"GET", "/v1/destinations/" + nobody, "", "admin"},
	{"POST", "/v1/destinations/" + nobody + ":pause", "{}", "admin"},
	{"DELETE", "/v1/destinations/" + nobody, "", "admin"},
}

// TestGatewayAnswersAsEnvoy sends the same calls to a grpc-gateway and to Envoy, each with keys of its own workspace.
func TestGatewayAnswersAsEnvoy(t *testing.T) {
	sides := []*side{
		{name: "envoy", url: "http://" + os.Getenv("HEADGATE_REST"), keys: keys(t, "HEADGATE_ENVOY_KEYS")},
		{name: "gateway", url: gateway(t), keys: keys(t, "HEADGATE_GATEWAY_KEYS")},
	}
	compared := 0
	for number, one := range calls {
		t.Run(fmt.Sprintf("%d %s %s %s", number, one.method, one.path, one.key), func(t *testing.T) {
			envoyStatus, envoy := sides[0].do(t, one)
			gatewayStatus, gateway := sides[1].do(t, one)
			if envoy != nil {
				compared++
			}
			if envoyStatus != gatewayStatus {
				t.Errorf("Envoy answers %d, the gateway %d", envoyStatus, gatewayStatus)
			}
			if !reflect.DeepEqual(envoy, gateway) {
				t.Errorf("Envoy answers\n%s\nthe gateway\n%s", shown(envoy), shown(gateway))
			}
		})
	}
	// The lists of destinations and of rejections are empty.
	if compared < len(calls)-2 {
		t.Errorf("only %d of %d answers have content", compared, len(calls))
	}
}

func keys(t *testing.T, variable string) map[string]string {
	t.Helper()
	names := map[string]string{}
	if err := json.Unmarshal([]byte(os.Getenv(variable)), &names); err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return names
}

type side struct {
	name, url, id string
	keys          map[string]string
}

func (s *side) do(t *testing.T, one call) (int, any) {
	t.Helper()
	request, err := http.NewRequestWithContext(
		t.Context(), one.method, s.url+strings.ReplaceAll(one.path, "{id}", s.id), bytes.NewBufferString(one.body))
	if err != nil {
		t.Fatal(err)
	}
	if key := s.keys[one.key]; key != "" {
		request.Header.Set("authorization", "Bearer "+key)
	}
	request.Header.Set("content-type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s answers %d %q", s.name, response.StatusCode, text)
	}
	if s.id == "" {
		s.id = answer.(map[string]any)["results"].([]any)[0].(map[string]any)["id"].(string)
	}
	return response.StatusCode, alike("", answer)
}

// What differs from one workspace and moment to another.
var own = regexp.MustCompile(`^(id|event_id|created_at|event_hash|head_hash|hash|request_id|next_page_token|sequence_hash)$`)
var whole = regexp.MustCompile(`^-?[0-9]+$`)

// alike returns an answer in the form in which both must be the same. protojson writes 64-bit numbers as text and leaves out
// zeros, empty texts and empty lists; Headgate's REST writes numbers, and zeros where they mean something.
func alike(name string, value any) any {
	switch value := value.(type) {
	case map[string]any:
		members := map[string]any{}
		for name, inner := range value {
			if found := alike(name, inner); found != nil {
				members[name] = found
			}
		}
		if len(members) == 0 {
			return nil
		}
		return members
	case []any:
		var items []any
		for _, inner := range value {
			items = append(items, alike("", inner))
		}
		if items == nil {
			return nil
		}
		return items
	case string:
		if value == "" {
			return nil
		}
		if own.MatchString(name) {
			return "<" + name + ">"
		}
		if whole.MatchString(value) {
			var number float64
			if json.Unmarshal([]byte(value), &number) == nil && number != 0 {
				return number
			}
			return nil
		}
		return value
	case float64:
		if value == 0 {
			return nil
		}
		return value
	case bool:
		if !value {
			return nil
		}
		return value
	}
	return value
}

func shown(value any) string {
	text, _ := json.MarshalIndent(value, "", "  ")
	return string(text)
}
