// kiegate for Go: copy this file to your package. It needs the standard library alone.

package videos

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// kiegateURL is the address of the simulator that all tests of the package share.
var kiegateURL string

func TestMain(m *testing.M) {
	url, stop, err := startKiegate()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kiegate did not start:", err)
		os.Exit(1)
	}
	kiegateURL = url
	code := m.Run()
	stop()
	os.Exit(code)
}

// startKiegate takes the simulator at KIEGATE_URL, or starts one on a free port.
func startKiegate() (url string, stop func(), err error) {
	if url := os.Getenv("KIEGATE_URL"); url != "" {
		return strings.TrimSuffix(url, "/"), func() {}, nil
	}
	binary := os.Getenv("KIEGATE_BIN")
	if binary == "" {
		binary = "kiegate"
	}
	// Port 0: the system chooses a free one, and the first line tells which.
	server := exec.Command(binary, "serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0")
	server.Env = []string{"KIEGATE_LOG__LEVEL=warn"}
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "KIEGATE_") { // settings of the shell are none of the tests'
			server.Env = append(server.Env, variable)
		}
	}
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := server.Start(); err != nil {
		return "", nil, err
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if url = regexp.MustCompile(`http://\S+`).FindString(line); url == "" {
		return "", nil, fmt.Errorf("%q: %v", line, server.Wait())
	}
	return url, func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
	}, nil
}

// Sandbox is a world of a test's own: the code under test gets URL and Token in place of the API's address and key.
type Sandbox struct {
	URL, Token string
	t          *testing.T
}

// Arrival is a callback that came to an inbox.
type Arrival struct {
	Body           map[string]any
	SignatureValid *bool `json:"signature_valid"`
}

// newSandbox makes one whose clock stands still. Tests can run in parallel.
func newSandbox(t *testing.T) *Sandbox {
	t.Helper()
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	sandbox := &Sandbox{kiegateURL, fmt.Sprintf("test-%x", random), t}
	sandbox.Control("PUT", "clock", map[string]any{"rate": 0}, nil)
	return sandbox
}

// Advance moves the clock by "90s", or with "" until nothing is left to happen. Callbacks are delivered.
func (s *Sandbox) Advance(by string) {
	s.t.Helper()
	move := map[string]string{"by": by}
	if by == "" {
		move = map[string]string{"until": "idle"}
	}
	s.Control("POST", "clock/advance", move, nil)
}

// Inbox gives an address to send as callBackUrl.
func (s *Sandbox) Inbox(name string) string {
	s.t.Helper()
	var inbox struct{ URL string }
	s.Control("GET", "inbox", nil, &inbox)
	return inbox.URL + "/" + name
}

// Arrivals gives the callbacks that came to the inbox name, of which there must be count within five seconds.
func (s *Sandbox) Arrivals(name string, count int) []Arrival {
	s.t.Helper()
	var arrived struct {
		Received []Arrival
		Complete bool
	}
	s.Control("GET", fmt.Sprintf("inbox/%s?count=%d&wait=5s", name, count), nil, &arrived)
	if !arrived.Complete {
		s.t.Fatalf("%d callbacks were awaited in %s, not %v", count, name, arrived.Received)
	}
	return arrived.Received
}

// Control makes any call of the control API and reads the answer into answer, if that is not nil.
func (s *Sandbox) Control(method, what string, body, answer any) {
	s.t.Helper()
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		sent = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, s.URL+"/_mock/"+what, sent)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.Token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 300 {
		s.t.Fatalf("%s /_mock/%s: %s: %s (%v)", method, what, response.Status, text, err)
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			s.t.Fatalf("%s /_mock/%s: %s: %v", method, what, text, err)
		}
	}
}
