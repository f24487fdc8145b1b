// Package videos is the code under test, in place of yours: it makes videos with an API whose address and key it is told.
package videos

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
)

// Videos makes videos.
type Videos struct{ BaseURL, Key string }

// Create starts a video and gives its id.
func (v Videos) Create(prompt, callbackURL string) (string, error) {
	var created struct{ TaskID string }
	err := v.call("POST", "/api/v1/runway/generate", map[string]any{
		"prompt": prompt, "duration": 5, "quality": "720p", "aspectRatio": "16:9", "callBackUrl": callbackURL,
	}, &created)
	return created.TaskID, err
}

// URL tells where the video is; "" as long as it is not ready.
func (v Videos) URL(task string) (string, error) {
	var record struct {
		State, FailMsg string
		VideoInfo      struct{ VideoURL string }
	}
	err := v.call("GET", "/api/v1/runway/record-detail?taskId="+task, nil, &record)
	if err == nil && record.State == "fail" {
		err = errors.New(record.FailMsg)
	}
	return record.VideoInfo.VideoURL, err
}

func (v Videos) call(method, path string, body, data any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, v.BaseURL+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+v.Key)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Code int
		Msg  string
		Data any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Code != 200 { // the HTTP status is 200 all the same
		return errors.New(answer.Msg)
	}
	return nil
}
