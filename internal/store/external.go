package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
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
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("store: CA: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("store: CA: %s holds no certificate in PEM form", o.CAFile)
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
