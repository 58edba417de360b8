package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// withCaller notes, for all requests of a connection, who is at its other end: the user of a process on this machine, or whoever has the
// token.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	w := policy.Writer{By: "the holder of the token", From: c.RemoteAddr().String()}
	if local, ok := c.(*net.UnixConn); ok {
		w = policy.Writer{By: "somebody", From: "unix socket"}
		if cred, err := credentials(local); err == nil {
			w = policy.Writer{By: userName(cred.Uid), From: fmt.Sprintf("unix socket, process %d", cred.Pid)}
		}
	}
	return context.WithValue(ctx, callerKey, w)
}

// caller is who sent the request; the zero value: nobody knows, as no request is behind it.
func caller(ctx context.Context) policy.Writer {
	w, _ := ctx.Value(callerKey).(policy.Writer)
	return w
}

// sign notes in resources that are to be written who wants that.
func sign(ctx context.Context, changes []backend.Change) {
	for i := range changes {
		if r := changes[i].Resource; r != nil {
			r.GetMeta().Writer = caller(ctx)
		}
	}
}

// credentials are those of the process that connected (SO_PEERCRED in unix(7)).
func credentials(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, failed)
}

// userName is a user as /etc/passwd calls it. No other directory is asked: it might not answer, and nothing may wait for that.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return "uid " + id
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Split(lines.Text(), ":"); len(fields) > 2 && fields[2] == id {
			return fields[0] + " (uid " + id + ")"
		}
	}
	return "uid " + id
}
