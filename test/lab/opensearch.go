package lab

import (
	"archive/zip"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// nobody is the user of OpenSearch, which refuses to run as root.
const nobody = 65534

// ErrNoOpenSearch says that what a search needs is not installed; match with errors.Is.
var ErrNoOpenSearch = errors.New("no OpenSearch here: run scripts/deps.sh search")

// OpenSearch is a real one, a single node with a directory of its own, on loopback.
type OpenSearch struct {
	URL     string
	Version string
	dir     string
	env     []string
	cmd     *exec.Cmd
}

const searchDir, ownerFile = "twsearch", "owner"

// sweepOpenSearch removes what processes left behind that were killed; their servers went with them.
func sweepOpenSearch() {
	owners, _ := filepath.Glob(filepath.Join(os.TempDir(), searchDir+"*", ownerFile))
	for _, path := range owners {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if pid, err := strconv.Atoi(string(b)); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}
}

// StartOpenSearch unpacks and starts one and waits until it answers, which takes about 15 s. Close ends it and removes all of it. It is
// one of version 2, or of the major version that TAPWALL_OPENSEARCH names.
func StartOpenSearch() (_ *OpenSearch, err error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return nil, err
	}
	major := cmp.Or(os.Getenv("TAPWALL_OPENSEARCH"), "2")
	root := filepath.Dir(strings.TrimSpace(string(out)))
	zips, err := filepath.Glob(filepath.Join(root, ".cache", "opensearch", "opensearch-"+major+".*.zip"))
	if err != nil || len(zips) == 0 {
		return nil, ErrNoOpenSearch
	}
	java, err := exec.Command(filepath.Join(root, "scripts", "java.sh"), major).Output()
	if err != nil {
		return nil, ErrNoOpenSearch
	}
	o := &OpenSearch{}
	sweepOpenSearch()
	if o.dir, err = os.MkdirTemp("", searchDir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	if err := os.Chmod(o.dir, 0o755); err != nil { //nolint:gosec // the other user goes through
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(o.dir, ownerFile), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return nil, err
	}
	if err := unzip(zips[0], o.dir); err != nil {
		return nil, err
	}
	homes, err := filepath.Glob(filepath.Join(o.dir, "opensearch-*"))
	if err != nil || len(homes) != 1 {
		return nil, fmt.Errorf("%s holds %d directories", zips[0], len(homes))
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	o.Version = strings.TrimPrefix(filepath.Base(homes[0]), "opensearch-")
	o.URL = fmt.Sprintf("http://127.0.0.1:%d", port)
	config := fmt.Sprintf(`cluster.name: lab
node.name: lab
network.host: 127.0.0.1
http.port: %d
transport.port: 0
discovery.type: single-node
bootstrap.memory_lock: false
cluster.routing.allocation.disk.threshold_enabled: false
path.data: %s/data
path.logs: %s/logs
`, port, o.dir, o.dir)
	if err := os.WriteFile(filepath.Join(homes[0], "config", "opensearch.yml"), []byte(config), 0o644); err != nil { //nolint:gosec // likewise
		return nil, err
	}
	if err := filepath.Walk(o.dir, func(path string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Chown(path, nobody, nobody))
	}); err != nil {
		return nil, err
	}
	o.env = append(os.Environ(), "OPENSEARCH_JAVA_HOME="+strings.TrimSpace(string(java)),
		"OPENSEARCH_JAVA_OPTS=-Xms512m -Xmx512m", "OPENSEARCH_HOME="+homes[0], "HOME="+o.dir)
	return o, o.Start()
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:forcetypeassert // it is one
}

// Start starts it (again) with the data that it had.
func (o *OpenSearch) Start() error {
	home := ""
	for _, e := range o.env {
		if s, ok := strings.CutPrefix(e, "OPENSEARCH_HOME="); ok {
			home = s
		}
	}
	log, err := os.OpenFile(filepath.Join(o.dir, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // the lab's
	if err != nil {
		return err
	}
	defer log.Close()
	o.cmd = exec.Command(filepath.Join(home, "bin", "opensearch"))
	o.cmd.Dir, o.cmd.Env, o.cmd.Stdout, o.cmd.Stderr = o.dir, o.env, log, log
	o.cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Setpgid: true, Pdeathsig: syscall.SIGKILL,
	}
	if err := o.cmd.Start(); err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func(cmd *exec.Cmd) { gone <- cmd.Wait() }(o.cmd)
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		status, _, err := o.Do(http.MethodGet, "/_cluster/health?wait_for_status=yellow&timeout=1s", "")
		if err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case err := <-gone:
			b, _ := os.ReadFile(log.Name())
			return fmt.Errorf("OpenSearch ended: %w\n%s", err, b[max(0, len(b)-3000):])
		default:
		}
		if time.Now().After(end) {
			return errors.New("OpenSearch does not come up")
		}
	}
}

// Kill ends it with SIGKILL.
func (o *OpenSearch) Kill() {
	if o.cmd == nil || o.cmd.Process == nil {
		return
	}
	_ = syscall.Kill(-o.cmd.Process.Pid, syscall.SIGKILL)
	for syscall.Kill(o.cmd.Process.Pid, 0) == nil {
		time.Sleep(5 * time.Millisecond)
	}
}

// Close ends it and removes what it had.
func (o *OpenSearch) Close() {
	o.Kill()
	_ = os.RemoveAll(o.dir)
}

// Do sends a request and returns the answer, whatever its status.
func (o *OpenSearch) Do(method, path, body string) (int, []byte, error) {
	req, err := http.NewRequest(method, o.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: 30 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

// JSON is Do for answers that must be a success, decoded into v (nil = not).
func (o *OpenSearch) JSON(method, path, body string, v any) error {
	status, b, err := o.Do(method, path, body)
	if err != nil {
		return err
	}
	if status >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %d %s", method, path, status, b)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(b, v)
}

// Count is how many documents of the indices a query finds, all of them up to now; "" = all.
func (o *OpenSearch) Count(indices, query string) (n int, err error) {
	if err := o.JSON(http.MethodPost, "/"+indices+"/_refresh?ignore_unavailable=true", "", nil); err != nil {
		return 0, err
	}
	if query != "" {
		query = `{"query":` + query + `}`
	}
	var a struct {
		Count int `json:"count"`
	}
	err = o.JSON(http.MethodPost, "/"+indices+"/_count?ignore_unavailable=true", query, &a)
	return a.Count, err
}

// Distinct counts the values of a keyword exactly, page by page.
func (o *OpenSearch) Distinct(indices, field string) (n int, err error) {
	after := ""
	for {
		var a struct {
			Aggregations struct {
				Values struct {
					After   json.RawMessage   `json:"after_key"`
					Buckets []json.RawMessage `json:"buckets"`
				} `json:"values"`
			} `json:"aggregations"`
		}
		body := fmt.Sprintf(`{"size":0,"aggs":{"values":{"composite":{"size":10000%s,"sources":[{"v":{"terms":{"field":%q}}}]}}}}`, after, field)
		if err := o.JSON(http.MethodPost, "/"+indices+"/_search?ignore_unavailable=true", body, &a); err != nil {
			return 0, err
		}
		n += len(a.Aggregations.Values.Buckets)
		if len(a.Aggregations.Values.After) == 0 {
			return n, nil
		}
		after = `,"after":` + string(a.Aggregations.Values.After)
	}
}

func unzip(path, dir string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		to := filepath.Join(dir, filepath.FromSlash(f.Name)) //nolint:gosec // checked below
		if !strings.HasPrefix(to, dir+string(filepath.Separator)) {
			return fmt.Errorf("%s climbs out", f.Name)
		}
		if f.FileInfo().IsDir() {
			if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // the other user reads
				return err
			}
			continue
		}
		if err := extract(f, to); err != nil {
			return err
		}
	}
	return nil
}

func extract(f *zip.File, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // the other user reads
		return err
	}
	src, err := f.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, f.Mode().Perm()|0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src) //nolint:gosec // a distribution that was asked for
	return errors.Join(err, dst.Close())
}
