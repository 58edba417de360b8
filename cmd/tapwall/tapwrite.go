package main

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// tapped is where the copies are read that -w writes: a port of their own.
func tapped() policy.MirrorTarget {
	return policy.MirrorTarget{Port: &policy.PortTarget{Name: "cap-" + strings.ToLower(rand.Text()[:8]), Create: true}}
}

// record makes a mirror, writes what it copies until its time is over or somebody has enough, and deletes it.
func (x *tapping) record(c *cobra.Command, cl *client.Client, name string, document []byte) (err error) {
	ctx, cancel := x.write.whileRead(c.Context())
	defer cancel(nil)
	k := kinds()[3]
	// Whatever happens from here on the mirror may be there, also if the answer is lost.
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.wait.timeout+time.Second)
		defer cancel()
		if gone := cl.Delete(ctx, policy.KindMirror, name, client.WriteOptions{Wait: x.wait.timeout}); !errors.Is(gone, client.ErrNotFound) {
			err = errors.Join(err, named(gone, k, name))
		}
	}()
	d, err := cl.Put(ctx, policy.KindMirror, name, document, client.WriteOptions{Wait: x.wait.timeout})
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return named(err, k, name)
	}
	from, err := cl.Packets(ctx, client.CaptureQuery{Mirror: name, Follow: true, Packets: int(x.packets)})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer from.Close()
	w, closed, err := x.write.stream()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closed()) }()
	// Only now: from here on no packet is missed.
	printf(c.ErrOrStderr(), "mirror/%s made, for as long as this runs (%s)\n", name, phase(d.Status))
	printWarnings(c.ErrOrStderr(), d.Status.Warnings)
	n, err := follow(ctx, w, from)
	if err != nil {
		return brokenOff(err)
	}
	return n.tell(c.ErrOrStderr(), x.write.where())
}
