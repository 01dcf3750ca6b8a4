// A sender that uses the CloudEvents SDK for JavaScript, in the structured and the binary mode.
import assert from "node:assert/strict";
import { test } from "node:test";
import { CloudEvent, HTTP, type Message } from "cloudevents";

interface Result {
  status: string;
  id: string;
  warnings?: string[];
}

async function send(message: Message): Promise<[number, Result]> {
  const response = await fetch(`http://${process.env.HEADGATE_REST}/v1/cloudevents`, {
    method: "POST",
    headers: { ...(message.headers as Record<string, string>), authorization: `Bearer ${process.env.HEADGATE_KEY}` },
    body: message.body as string,
  });
  return [response.status, (await response.json()) as Result];
}

for (const [mode, encode] of Object.entries({ structured: HTTP.structured, binary: HTTP.binary })) {
  test(`an event in the ${mode} mode`, async () => {
    const subject = mode === "structured" ? "München/1" : "Munich/1";
    const event = new CloudEvent({
      id: `node-${mode}`,
      source: "/typescript",
      type: "com.example.order",
      subject,
      tenant: "acme",
      data: { amount: 49.99, lines: ["a", "é", null] },
    });
    const [status, stored] = await send(encode(event));
    assert.deepEqual([status, stored.status], [200, "accepted"]);
    assert.deepEqual(await send(encode(event)).then(([, result]) => [result.status, result.id]), ["duplicate", stored.id]);

    // Made again for a retry, it has another time.
    const [, again] = await send(encode(event.cloneWith({ time: "2026-11-30T09:00:00.000Z" })));
    assert.deepEqual([again.status, again.id], ["duplicate", stored.id]);
    assert.match(again.warnings!.join(), /time/);

    const [conflict] = await send(encode(event.cloneWith({ data: { amount: 5 } })));
    assert.equal(conflict, 409);

    const response = await fetch(`http://${process.env.HEADGATE_REST}/v1/events/${stored.id}`, {
      headers: { authorization: `Bearer ${process.env.HEADGATE_KEY}` },
    });
    const read = (await response.json()) as { type: string; subject: string; data: unknown };
    assert.deepEqual([read.type, read.subject, read.data], ["com.example.order", subject, event.data]);
  });
}

test("an attribute that the SDK does not encode is refused, not stored as something else", async () => {
  const event = new CloudEvent({ id: "node-latin-1", source: "/typescript", type: "t", subject: "München/1" });
  const [status] = await send(HTTP.binary(event)); // as a header in Latin-1, where the specification has percent-encoding
  assert.equal(status, 400);
});
