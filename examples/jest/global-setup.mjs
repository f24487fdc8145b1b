// One simulator for all test files; `process.env.KIEGATE_URL` in a test is its address.

import { startKiegate } from "./kiegate.mjs";

export default async function setup() {
  const { url, stop } = await startKiegate();
  process.env.KIEGATE_URL = url;
  globalThis.stopKiegate = stop;
}
