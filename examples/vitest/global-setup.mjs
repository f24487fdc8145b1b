// One simulator for all test files; `inject("kiegate")` in a test gives its address.

import { startKiegate } from "./kiegate.mjs";

export default async function setup(project) {
  const { url, stop } = await startKiegate();
  project.provide("kiegate", url);
  return stop;
}
