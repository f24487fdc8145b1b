package videos

import (
	"fmt"
	"strings"
	"testing"
)

func TestAVideoIsReadyWhenItsCallbackComes(t *testing.T) {
	t.Parallel()
	sandbox := newSandbox(t)
	videos := Videos{sandbox.URL, sandbox.Token}
	task, err := videos.Create("A paper boat", sandbox.Inbox("done"))
	if err != nil {
		t.Fatal(err)
	}
	// The clock stands still, however slow the test is.
	if url, err := videos.URL(task); url != "" || err != nil {
		t.Fatalf("not ready was expected, not %q, %v", url, err)
	}
	sandbox.Advance("60s")
	callback := sandbox.Arrivals("done", 1)[0]
	if callback.SignatureValid == nil || !*callback.SignatureValid {
		t.Error("the callback's signature is not valid")
	}
	url, err := videos.URL(task)
	if told := callback.Body["data"].(map[string]any)["video_url"]; told != url || err != nil {
		t.Errorf("the callback tells of %v, the record of %v, %v", told, url, err)
	}
}

func TestAVideoThatFailsIsTold(t *testing.T) {
	t.Parallel()
	sandbox := newSandbox(t)
	videos := Videos{sandbox.URL, sandbox.Token}
	task, err := videos.Create("A paper boat [[mock:fail:content_policy]]", "")
	if err != nil {
		t.Fatal(err)
	}
	sandbox.Advance("")
	if _, err := videos.URL(task); err == nil || !strings.Contains(err.Error(), "Inappropriate content detected") {
		t.Fatalf("a failure was expected, not %v", err)
	}
}

func TestTestsDoNotSeeEachOther(t *testing.T) {
	for count := 1; count <= 4; count++ {
		count := count
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			t.Parallel()
			sandbox := newSandbox(t)
			for made := 0; made < count; made++ {
				if _, err := (Videos{sandbox.URL, sandbox.Token}).Create("A paper boat", ""); err != nil {
					t.Fatal(err)
				}
			}
			var tasks struct{ Total int }
			if sandbox.Control("GET", "tasks", nil, &tasks); tasks.Total != count {
				t.Fatalf("%d tasks were expected, not %d", count, tasks.Total)
			}
		})
	}
}
