// A service in TypeScript: stubs of Connect, generated from what the server's reflection says, over gRPC.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { EventSchema } from "../gen/headgate/v1/event_pb.js";
import { EventService } from "../gen/headgate/v1/event_service_pb.js";
import { IngestService } from "../gen/headgate/v1/ingest_service_pb.js";

const key = process.env.HEADGATE_KEY!;
const sessions: Http2SessionManager[] = [];
const withKey = (sent: string): Interceptor => (next) => (request) => {
  request.header.set("authorization", `Bearer ${sent}`);
  return next(request);
};

function clients(address: string, sent = key): { ingest: Client<typeof IngestService>; events: Client<typeof EventService> } {
  const baseUrl = `http://${address}`;
  const sessionManager = new Http2SessionManager(baseUrl);
  sessions.push(sessionManager);
  const transport = createGrpcTransport({ baseUrl, sessionManager, interceptors: [withKey(sent)] });
  return { ingest: createClient(IngestService, transport), events: createClient(EventService, transport) };
}

after(() => sessions.forEach((session) => session.abort()));

const ports = { "the server": process.env.HEADGATE_GRPC!, Envoy: process.env.HEADGATE_REST! };
for (const [name, address] of Object.entries(ports)) {
  test(`a batch through ${name}`, async () => {
    const { ingest, events } = clients(address);
    const one = create(EventSchema, {
      type: "order.completed",
      source: "typescript",
      idempotencyKey: `order-${name}`,
      payload: { case: "data", value: { amount: 49.99, lines: ["a", "é"] } },
    });
    const batch = [one, create(EventSchema, { source: "typescript" }), { ...one, type: "order.cancelled" }];
    const answer = await ingest.batchIngest({ events: batch });
    assert.deepEqual(answer.results.map((result) => result.status), ["accepted", "rejected", "conflict"]);
    assert.deepEqual([answer.total, answer.successCount, answer.errorCount], [3, 1, 2]);
    assert.equal(answer.results[1].error?.reason, "MISSING_FIELD");
    assert.deepEqual(answer.results[2].error?.differingFields, ["/type"]);
    assert.equal(typeof answer.results[0].sequence, "bigint");

    const again = await ingest.batchIngest({ events: [one] });
    assert.equal(again.results[0].status, "duplicate");
    assert.equal(again.results[0].id, answer.results[0].id);

    const { event } = await events.getEvent({ id: answer.results[0].id });
    assert.deepEqual(event?.payload, { case: "data", value: { amount: 49.99, lines: ["a", "é"] } });
  });

  test(`an error through ${name}`, async () => {
    const { ingest } = clients(address);
    const refusal = await ingest.ingest({ event: { source: "typescript" } }).catch(ConnectError.from);
    assert(refusal instanceof ConnectError);
    assert.equal(refusal.code, Code.InvalidArgument);
    assert.equal(refusal.rawMessage, "The type field is required.");
    assert.deepEqual(refusal.details.map((detail) => "type" in detail && detail.type), ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]);
    const stranger = await clients(address, "hg_nobody").ingest.ingest({ event: { type: "t" } }).catch(ConnectError.from);
    assert(stranger instanceof ConnectError);
    assert.equal(stranger.code, Code.Unauthenticated);
  });

  test(`a subscription through ${name}`, async () => {
    const { ingest, events } = clients(address);
    const source = `subscription ${name}`;
    const stored = await ingest.batchIngest({ events: [1, 2, 3].map((n) => ({ type: `t.${n}`, source })) });
    const seen: string[] = [];
    for await (const message of events.subscribe({ afterSequence: 0n, source })) {
      if (message.content.case === "event") seen.push(message.content.value.id);
      if (message.content.case === "caughtUp") break;
    }
    assert.deepEqual(seen, stored.results.map((result) => result.id));
  });
}

test("REST with fetch: one event a line", async () => {
  const lines = [{ type: "t", source: "lines" }, { source: "lines" }].map((event) => JSON.stringify(event)).join("\n\n");
  const response = await fetch(`http://${process.env.HEADGATE_REST}/v1/events/batch`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/x-ndjson; charset=utf-8" },
    body: lines,
  });
  assert.equal(response.status, 200);
  const answer = (await response.json()) as { results: { status: string; line: number }[] };
  assert.deepEqual(answer.results.map(({ status, line }) => [status, line]), [["accepted", 1], ["rejected", 3]]);
});
