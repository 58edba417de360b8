package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// readyTarget makes the device of an internal port that a mirror delivers to fit for its job: up, because a port that is down drops
// every copy, and silent, because ovs-vswitchd logs a warning for each frame that such a port sends (neighbour discovery starts by
// itself). Repeating it is harmless. A device that does not exist in this network namespace, as on a test datapath, is no error.
func readyTarget(name string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6"), []byte("1"), 0o644)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("port %s: switch IPv6 off: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("port %s: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return nil
		}
		return fmt.Errorf("port %s: read its flags: %w", name, err)
	}
	const want = unix.IFF_UP | unix.IFF_NOARP
	if flags := req.Uint16(); flags&want != want {
		req.SetUint16(flags | want)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
			return fmt.Errorf("port %s: bring it up: %w", name, err)
		}
	}
	return nil
}
