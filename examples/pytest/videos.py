"""The code under test, in place of yours: it makes videos with an API whose address and key it is told."""

import json
import urllib.request


class VideoFailed(Exception):
    """The API refused a video, or failed to make it."""


class Videos:
    def __init__(self, base_url, key):
        self.base_url = base_url
        self.key = key

    def create(self, prompt, callback_url=""):
        """Starts a video; gives its id."""
        video = {"prompt": prompt, "duration": 5, "quality": "720p", "aspectRatio": "16:9", "callBackUrl": callback_url}
        return self._call("/api/v1/runway/generate", video)["taskId"]

    def url(self, task):
        """Where the video is; None as long as it is not ready."""
        record = self._call(f"/api/v1/runway/record-detail?taskId={task}")
        if record["state"] == "fail":
            raise VideoFailed(record["failMsg"])
        return record["videoInfo"]["videoUrl"] if record["state"] == "success" else None

    def _call(self, path, body=None):
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.base_url + path, data, headers)) as answer:
            answer = json.load(answer)
        if answer["code"] != 200:  # the HTTP status is 200 all the same
            raise VideoFailed(answer["msg"])
        return answer["data"]
