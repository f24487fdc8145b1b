from concurrent.futures import ThreadPoolExecutor

import pytest
from videos import VideoFailed, Videos


@pytest.fixture
def videos(kiegate):
    return Videos(kiegate.url, kiegate.token)


def test_a_video_is_ready_when_its_callback_comes(kiegate, videos):
    task = videos.create("A paper boat", kiegate.inbox("done"))
    assert videos.url(task) is None  # the clock stands still, however slow the test is
    kiegate.advance("60s")
    (callback,) = kiegate.arrivals("done")
    assert callback["signature_valid"]
    assert callback["body"]["data"]["task_id"] == task
    assert callback["body"]["data"]["video_url"] == videos.url(task)


def test_a_video_that_fails_is_told(kiegate, videos):
    task = videos.create("A paper boat [[mock:fail:content_policy]]", kiegate.inbox("done"))
    kiegate.advance()
    with pytest.raises(VideoFailed, match="Inappropriate content detected"):
        videos.url(task)
    (callback,) = kiegate.arrivals("done")
    assert callback["body"]["code"] == 400


def test_without_credits_there_is_no_video(kiegate, videos):
    kiegate.control("PUT", "credits", {"credits": 3})
    with pytest.raises(VideoFailed, match="Credits insufficient"):
        videos.create("A paper boat")


def test_a_refusal_is_passed_on_and_nothing_is_sent_again(kiegate, videos):
    kiegate.rule({"operation": "runway.generate", "prompt": "/boat/i"}, {"outcome": "reject:429"}, times=1)
    with pytest.raises(VideoFailed):
        videos.create("A paper boat")
    kiegate.verify({"operation": "runway.generate", "prompt": "boat"}, count=1)
    with pytest.raises(AssertionError, match="expected exactly 2"):
        kiegate.verify({"operation": "runway.*"}, count=2)


def test_the_verdict_knows_how_the_code_behaved(kiegate, videos):
    task = videos.create("A paper boat")
    kiegate.advance("60s")
    videos.url(task)
    assert [finding["check"] for finding in kiegate.findings()] == ["never_fetched"]
    assert kiegate.findings("never_fetched") == []


def test_tests_do_not_see_each_other(new_kiegate):
    def make(count):
        sandbox = new_kiegate()
        videos = Videos(sandbox.url, sandbox.token)
        for _ in range(count):
            videos.create("A paper boat")
        return sandbox.control("GET", "tasks")["total"]

    counts = [1, 2, 3, 4, 5, 6, 7, 8]
    with ThreadPoolExecutor(len(counts)) as threads:
        assert list(threads.map(make, counts)) == counts
