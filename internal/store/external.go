package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/tapwall/tapwall/internal/pki"
)

// connect makes the client of an external cluster. It does not wait for the cluster; Open's probe does.
func (s *Store) connect(ctx context.Context, o Options) error {
	secure := false
	for _, e := range o.External {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Path != "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("store: %q is not an endpoint of etcd such as https://host:2379", e)
		}
		secure = secure || u.Scheme == "https"
	}
	cfg := clientv3.Config{
		Endpoints:            o.External,
		Username:             o.Username,
		Password:             o.Password,
		MaxCallSendMsgSize:   embeddedRequestBytes, // the cluster says what is too large
		DialTimeout:          min(5*time.Second, o.StartTimeout),
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		AutoSyncInterval:     0, // members may advertise addresses that only they can reach
		Logger:               zap.New(&slogCore{log: o.Logger}),
		Context:              context.WithoutCancel(ctx),
	}
	if secure {
		t, err := clientTLS(o)
		if err != nil {
			return err
		}
		cfg.TLS = t
	} else if o.CertFile != "" || o.CAFile != "" {
		return fmt.Errorf("store: certificates are given but no endpoint is https")
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return &unavailable{text: "the etcd cluster cannot be used", cause: err}
	}
	s.kind, s.client = "external", c
	s.maxOps, s.maxBytes = externalTxnOps, externalRequestBytes
	return nil
}

func clientTLS(o Options) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		var err error
		if t.RootCAs, err = pki.Roots(o.CAFile); err != nil {
			return nil, fmt.Errorf("store: CA: %w", err)
		}
	}
	if o.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("store: client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}

// explainConnect asks the endpoints what is wrong: etcd's client only says that it got no answer in time.
func explainConnect(o Options, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for _, e := range o.External {
		u, perr := url.Parse(e)
		if perr != nil {
			continue
		}
		if why := diagnose(u, o); why != nil {
			return &unavailable{text: "etcd at " + e, cause: why}
		}
	}
	return err
}

// diagnose connects as the client does and returns what fails, nil if nothing does.
func diagnose(u *url.URL, o Options) error {
	const limit = 2 * time.Second
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "2379")
	}
	conn, err := net.DialTimeout("tcp", host, limit)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(limit))
	if u.Scheme == "http" {
		if tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).Handshake() == nil { // nothing is sent over it
			return errors.New("the endpoint speaks TLS: write https://")
		}
		return nil
	}
	t, err := clientTLS(o)
	if err != nil {
		return err
	}
	t.ServerName, t.NextProtos = u.Hostname(), []string{"h2"}
	c := tls.Client(conn, t)
	if err := c.Handshake(); err != nil {
		return err
	}
	// In TLS 1.3 the server refuses the client's certificate after the handshake; else it speaks first, with HTTP/2 settings, or waits.
	_, err = c.Read(make([]byte, 1))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil
	}
	return err
}
