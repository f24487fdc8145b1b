// kiegate for tests on Node 18 or later: copy this file to your tests. It needs no packages.

import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** Takes the simulator at KIEGATE_URL, or starts one on a free port; `stop` ends it. */
export async function startKiegate() {
  if (process.env.KIEGATE_URL) return { url: process.env.KIEGATE_URL.replace(/\/$/, ""), stop: async () => {} };
  // Settings of the shell are none of the tests'.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("KIEGATE_")));
  const server = spawn(
    process.env.KIEGATE_BIN || "kiegate",
    // Port 0: the system chooses a free one, and the first line tells which.
    ["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"],
    { env: { ...env, KIEGATE_LOG__LEVEL: "warn" }, stdio: ["ignore", "pipe", "inherit"] },
  );
  const ended = new Promise((resolve) => {
    server.once("error", (error) => resolve(`${error.message}; set KIEGATE_BIN to the binary`));
    server.once("exit", (code, signal) => resolve(`it ended with ${code ?? signal}`));
  });
  const kill = () => server.kill();
  process.once("exit", kill);
  const [line] = await Promise.race([once(createInterface(server.stdout), "line"), ended.then((why) => [why])]);
  const url = /http:\/\/\S+/.exec(line)?.[0];
  if (!url) throw new Error(`kiegate did not start: ${line}`);
  const stop = async () => {
    process.off("exit", kill);
    kill();
    await ended;
  };
  return { url, stop };
}

/** A world of the test's own at the simulator `url`, whose clock stands still. Tests can run in parallel. */
export async function newSandbox(url) {
  const token = `test-${randomUUID()}`;
  /** Any call of the control API. */
  const control = async (method, what, body) => {
    const answer = await fetch(`${url}/_mock/${what}`, {
      method,
      headers: { Authorization: `Bearer ${token}` },
      body: body && JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${method} /_mock/${what}: ${answer.status}: ${await answer.text()}`);
    return answer.json();
  };
  await control("PUT", "clock", { rate: 0 });
  const inboxes = (await control("GET", "inbox")).url;
  return {
    /** What your code gets in place of the API's address and key. */
    url,
    token,
    control,
    /** Moves the clock by "90s", or until nothing is left to happen; gives what happened. Callbacks are delivered. */
    advance: async (by) => (await control("POST", "clock/advance", by ? { by } : { until: "idle" })).events,
    /** An address to send as `callBackUrl`. */
    inbox: (name) => `${inboxes}/${name}`,
    /** The callbacks that came to the inbox `name`, of which there must be `count` within `wait`. */
    arrivals: async (name, count = 1, wait = "5s") => {
      const { received, complete } = await control("GET", `inbox/${name}?count=${count}&wait=${wait}`);
      if (!complete) throw new Error(`${count} callbacks were awaited in ${name}, not ${JSON.stringify(received)}`);
      return received;
    },
  };
}
