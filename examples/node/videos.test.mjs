import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import { newSandbox, startKiegate } from "./kiegate.mjs";
import { Videos } from "./videos.mjs";

let kiegate, sandbox, videos;

before(async () => {
  kiegate = await startKiegate();
});
after(() => kiegate.stop());
beforeEach(async () => {
  sandbox = await newSandbox(kiegate.url);
  videos = new Videos(sandbox.url, sandbox.token);
});

test("a video is ready when its callback comes", async () => {
  const task = await videos.create("A paper boat", sandbox.inbox("done"));
  assert.equal(await videos.url(task), null); // the clock stands still, however slow the test is
  await sandbox.advance("60s");
  const [callback] = await sandbox.arrivals("done");
  assert.equal(callback.signature_valid, true);
  assert.equal(callback.body.data.task_id, task);
  assert.equal(callback.body.data.video_url, await videos.url(task));
});

test("a video that fails is told", async () => {
  const task = await videos.create("A paper boat [[mock:fail:content_policy]]", sandbox.inbox("done"));
  await sandbox.advance();
  await assert.rejects(videos.url(task), /Inappropriate content detected/);
  const [callback] = await sandbox.arrivals("done");
  assert.equal(callback.body.code, 400);
});

test("tests do not see each other", async () => {
  const make = async (count) => {
    const own = await newSandbox(kiegate.url);
    for (let made = 0; made < count; made++) await new Videos(own.url, own.token).create("A paper boat");
    return (await own.control("GET", "tasks")).total;
  };
  assert.deepEqual(await Promise.all([1, 2, 3, 4].map(make)), [1, 2, 3, 4]);
});
