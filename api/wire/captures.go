package wire

import "time"

// Capture is a target of a mirror whose packets tapwall can hand out, on one host.
type Capture struct {
	Mirror string `json:"mirror"`
	Host   string `json:"host"`
	// Kind is pcap, buffer, events, or port: one that the mirror made, which tapwall reads for who follows it and not otherwise.
	Kind string `json:"kind"`
	// Port is where copies arrive, and can be followed while Live.
	Port string `json:"port"`
	Live bool   `json:"live"`
	// Reading: the port is there and is being read. Problem is why not, or why packets cannot be kept.
	Reading bool   `json:"reading"`
	Problem string `json:"problem,omitempty"`
	// Packets and Bytes (on the wire) were read since the capture began. Dropped is how many packets the kernel had no room for, Lost how
	// many of those that were read could not be kept.
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Dropped uint64 `json:"dropped"`
	Lost    uint64 `json:"lost"`
	// Of a buffer: what it holds, in packets and bytes of memory, and how many packets went because of its bounds.
	HeldPackets uint64     `json:"heldPackets,omitempty"`
	HeldBytes   uint64     `json:"heldBytes,omitempty"`
	Evicted     uint64     `json:"evicted,omitempty"`
	Oldest      *time.Time `json:"oldest,omitempty"`
	Newest      *time.Time `json:"newest,omitempty"` // of a buffer and of files: the last packet that was read
	// Of pcap: the files that there are, the oldest first, also of a mirror that has ended.
	Files []CaptureFile `json:"files,omitempty"`
}

// CaptureFile is a pcapng file of a mirror.
type CaptureFile struct {
	Name  string     `json:"name"`
	Bytes int64      `json:"bytes"`
	From  *time.Time `json:"from,omitempty"` // when it was begun, to the second
	Until time.Time  `json:"until"`          // when it was written to last
}
