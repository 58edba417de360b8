package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// benchCapture has tapwall and tcpdump write the same copies into files at the same time: two targets of one mirror.
func benchCapture(rounds int) (out []line, err error) {
	if quick {
		rounds = 3
	}
	var tw *lab.Tapwall
	c, err := newContender(func(l *lab.Lab) error {
		if err := guardByNormal(l); err != nil {
			return err
		}
		var err error
		if tw, err = l.StartTapwall("--bridge", "br0=guest", "--log-level", "warn"); err != nil {
			return err
		}
		body, err := json.Marshal(mirrorDoc("m", "vm1", map[string]any{"targets": []any{
			map[string]any{"pcap": map[string]any{"file": "m"}}, map[string]any{"port": map[string]any{"name": sink, "create": true}}}}))
		if err != nil {
			return err
		}
		_, err = newAPI(l).send("POST", "/v1/apply?wait=installed&timeout=30s", body, "application/json")
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()

	dump, said, err := tcpdump(c.lab, sink)
	if err != nil {
		return nil, err
	}
	// What tapwall does at rest, such as reading counters, is no capture.
	const pause = 3 * time.Second
	rest, err := threadTime(tw.Pid())
	if err != nil {
		return nil, err
	}
	time.Sleep(pause)
	later, err := threadTime(tw.Pid())
	if err != nil {
		return nil, err
	}
	rest = later - rest
	var ratios []float64
	var our, their []time.Duration
	total := 0
	start := time.Now()
	for n := -1; n < rounds; n++ { // the first one fills the caches
		var before, after [2]time.Duration
		for i, pid := range []int{tw.Pid(), dump.Process.Pid} {
			if before[i], err = threadTime(pid); err != nil {
				return nil, err
			}
		}
		began := time.Now()
		packets, err := c.load.echo(scale(50_000))
		if err != nil {
			return nil, err
		}
		time.Sleep(100 * time.Millisecond) // both write what they have
		atRest := time.Duration(float64(rest) * time.Since(began).Seconds() / pause.Seconds())
		total += packets
		for i, pid := range []int{tw.Pid(), dump.Process.Pid} {
			if after[i], err = threadTime(pid); err != nil {
				return nil, err
			}
		}
		if n < 0 {
			continue
		}
		a, b := (after[0]-before[0]-atRest)/time.Duration(packets), (after[1]-before[1])/time.Duration(packets)
		ratios = append(ratios, float64(a)/float64(b))
		our, their = append(our, a), append(their, b)
	}
	rate := float64(total) / time.Since(start).Seconds()
	time.Sleep(1500 * time.Millisecond)
	kept, lost, err := captured(c.lab)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(dump.Process.Signal(os.Interrupt), dump.Wait()); err != nil {
		return nil, err
	}
	theirs, dropped, err := said()
	if err != nil {
		return nil, err
	}
	m, low, high := medianInterval(ratios)
	return []line{
		{what: "CPU of a packet written to a file, tapwall / tcpdump", figure: fmt.Sprintf(
			"%.2f, 90 %% in %.2f-%.2f (%v / %v, %d rounds; at rest tapwall takes %v a second, not counted)",
			m, low, high, median(our), median(their), rounds, (rest / time.Duration(pause.Seconds())).Round(10*time.Microsecond)),
			budget: "<= 0.80 within the interval", ok: low <= 0.8},
		{what: fmt.Sprintf("packets written of %d, at %.0f/s", total, rate), figure: fmt.Sprintf("tapwall %d (%d lost), tcpdump %d (%d lost)",
			kept, lost, theirs, dropped), budget: "all", ok: lost == 0 && kept >= total},
	}, nil
}

// tcpdump writes what a device gets into files that are rotated as tapwall's are. When it has been interrupted, said tells how many
// packets it got, and how many the kernel had no room for.
func tcpdump(l *lab.Lab, device string) (cmd *exec.Cmd, said func() (got, dropped int, err error), err error) {
	text := filepath.Join(l.Dir, "tcpdump.txt")
	stderr, err := os.Create(text)
	if err != nil {
		return nil, nil, err
	}
	defer stderr.Close()
	cmd = exec.Command("tcpdump", "-i", device, "-n", "-B", "4096", "-C", "100", "-W", "10", "-Z", "root",
		"-w", filepath.Join(l.Dir, "theirs.pcap"))
	cmd.Stderr = stderr
	if err := l.Switch.Do(cmd.Start); err != nil {
		return nil, nil, err
	}
	time.Sleep(time.Second)
	return cmd, func() (got, dropped int, err error) {
		b, err := os.ReadFile(text)
		if err != nil {
			return 0, 0, err
		}
		number := func(what string) (n int) {
			f := regexp.MustCompile(`(\d+) packets? ` + what).FindSubmatch(b)
			if f == nil {
				err = errors.Join(err, fmt.Errorf("tcpdump did not tell of packets %s: %s", what, b))
				return 0
			}
			n, _ = strconv.Atoi(string(f[1]))
			return n
		}
		return number("captured"), number("dropped by kernel"), err
	}, nil
}

// captured is what the mirror's file has, by its status.
func captured(l *lab.Lab) (packets, lost int, err error) {
	body, err := newAPI(l).send("GET", "/v1/mirrors/m", nil, "")
	if err != nil {
		return 0, 0, err
	}
	var doc struct {
		Status struct {
			Hosts []struct {
				Targets []map[string]string `json:"targets"`
			} `json:"hosts"`
		} `json:"status"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return 0, 0, err
	}
	for _, h := range doc.Status.Hosts {
		for _, t := range h.Targets {
			if t["file"] == "" {
				continue
			}
			packets, _ = strconv.Atoi(t["packets"])
			for _, key := range []string{"dropped", "lost"} {
				n, _ := strconv.Atoi(t[key])
				lost += n
			}
			return packets, lost, nil
		}
	}
	return 0, 0, fmt.Errorf("no file in %s", body)
}
