// The code under test, in place of yours: it makes videos with an API whose address and key it is told.

export class Videos {
  constructor(baseUrl, key) {
    this.baseUrl = baseUrl;
    this.key = key;
  }

  /** Starts a video; gives its id. */
  async create(prompt, callBackUrl = "") {
    const video = { prompt, duration: 5, quality: "720p", aspectRatio: "16:9", callBackUrl };
    return (await this.#call("/api/v1/runway/generate", { method: "POST", body: JSON.stringify(video) })).taskId;
  }

  /** Where the video is; null as long as it is not ready. */
  async url(task) {
    const record = await this.#call(`/api/v1/runway/record-detail?taskId=${task}`);
    if (record.state === "fail") throw new Error(record.failMsg);
    return record.state === "success" ? record.videoInfo.videoUrl : null;
  }

  async #call(path, request = {}) {
    const headers = { Authorization: `Bearer ${this.key}`, "Content-Type": "application/json" };
    const answer = await (await fetch(this.baseUrl + path, { ...request, headers })).json();
    if (answer.code !== 200) throw new Error(answer.msg); // the HTTP status is 200 all the same
    return answer.data;
  }
}
