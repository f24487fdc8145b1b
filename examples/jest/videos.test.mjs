import { newSandbox } from "./kiegate.mjs";
import { Videos } from "./videos.mjs";

let sandbox, videos;

beforeEach(async () => {
  sandbox = await newSandbox(process.env.KIEGATE_URL);
  videos = new Videos(sandbox.url, sandbox.token);
});

test("a video is ready when its callback comes", async () => {
  const task = await videos.create("A paper boat", sandbox.inbox("done"));
  expect(await videos.url(task)).toBeNull(); // the clock stands still, however slow the test is
  await sandbox.advance("60s");
  const [callback] = await sandbox.arrivals("done");
  expect(callback).toMatchObject({ signature_valid: true, body: { data: { task_id: task } } });
  expect(await videos.url(task)).toBe(callback.body.data.video_url);
});

test("a video that fails is told", async () => {
  const task = await videos.create("A paper boat [[mock:fail:content_policy]]");
  await sandbox.advance();
  await expect(videos.url(task)).rejects.toThrow("Inappropriate content detected");
});
