// Verifies a webhook as a receiver in JavaScript does. Reads {"secret", "headers", "body"} from standard input and
// writes {"payload"}, or {"error"} with the library's message.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const { secret, headers, body } = JSON.parse(readFileSync(0, "utf8"));
let answer;
try {
  answer = { payload: new Webhook(secret).verify(body, headers) };
} catch (error) {
  answer = { error: error.message };
}
process.stdout.write(JSON.stringify(answer));
