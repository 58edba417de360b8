package client

import (
	"context"
	"io"
	"net/url"
	"strconv"
	"time"
)

const capturesPath = "/v1/captures"

// CaptureQuery asks for packets of a mirror.
type CaptureQuery struct {
	Mirror string
	Host   string // where several have packets of the mirror
	// Since and Until bound what a buffer holds: RFC 3339, or a duration before now by the clock of the server. "" = unbounded.
	Since, Until string
	// Follow asks for packets as they come, from now or, with Since, from then; at most so many and for so long, 0 = unbounded.
	Follow   bool
	Packets  int
	Duration time.Duration
}

// Captures lists whose packets can be had; mirror "" = of all.
func (c *Client) Captures(ctx context.Context, mirror string) ([]Capture, error) {
	q := url.Values{}
	if mirror != "" {
		q.Set("mirror", mirror)
	}
	return pages[Capture](ctx, c, capturesPath, q)
}

// Packets returns a stream of pcapng, which the caller closes. One that breaks off ends with io.ErrUnexpectedEOF.
func (c *Client) Packets(ctx context.Context, q CaptureQuery) (io.ReadCloser, error) {
	v := url.Values{}
	for name, value := range map[string]string{"host": q.Host, "since": q.Since, "until": q.Until} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	if q.Packets > 0 {
		v.Set("packets", strconv.Itoa(q.Packets))
	}
	if q.Duration > 0 {
		v.Set("duration", q.Duration.String())
	}
	return c.stream(ctx, capturesPath+"/"+url.PathEscape(q.Mirror), v)
}

// CaptureFile returns a file of a mirror, which the caller closes; ErrNotFound. host may be "" where only one has a file of the name.
func (c *Client) CaptureFile(ctx context.Context, mirror, host, file string) (io.ReadCloser, error) {
	q := url.Values{}
	if host != "" {
		q.Set("host", host)
	}
	return c.stream(ctx, capturesPath+"/"+url.PathEscape(mirror)+"/files/"+url.PathEscape(file), q)
}

func (c *Client) stream(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	resp, err := c.send(ctx, request{method: "GET", path: path, query: q})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
