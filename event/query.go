package event

import "time"

// Filter selects events. Several values of one field are alternatives, several fields must all match; zero fields match all. Params says
// what the values of each are.
type Filter struct {
	Verdict, Type, Action, DropReason     []string
	Policy, Rule, Mirror                  []string
	Direction                             []string
	Endpoint, FromName, ToName            []string // of a pair or three, the first is about either side
	Label, FromLabel, ToLabel             []string
	IP, FromIP, ToIP                      []string
	Port, FromPort, ToPort                []string
	MAC, FromMAC, ToMAC                   []string
	Protocol, IPVersion, TCPFlags         []string
	Bridge, Interface, Node, VLAN, Cookie []string
	CTState, CommunityID, EventID         []string
	User, Resource                        []string
	FQDN, FromFQDN, ToFQDN                []string
	DNSQuery, DNSRcode, SNI               []string
	HTTPMethod, HTTPHost                  []string
	HTTPPath, HTTPStatus                  []string
	// Not holds what must not match: none of the values of any of its fields. Of its other fields nothing is asked.
	Not *Filter

	Since time.Time
	Until time.Time
	After string // event id, exclusive; reads on from there, as First does
	Limit int    // 0 = DefaultLimit, at most MaxLimit
	First bool   // the oldest Limit instead of the newest
}

// Page is the answer to a query.
type Page struct {
	Items []*Event `json:"items"`
	// Oldest is the time of the oldest event still kept; what is older is not covered by the answer.
	Oldest time.Time `json:"oldest,omitzero"`
	// Coverage says where the answer was looked for, and since when there are events.
	Coverage []Coverage `json:"coverage,omitempty"`
	// Next is the id to continue after, "" at the end, and always "" when the newest were asked for.
	Next string `json:"next,omitempty"`
	// At is the id of the newest event when the answer was made, whether or not it was chosen: who follows from there misses nothing.
	At string `json:"at,omitempty"`
}

// Coverage is one place where events are looked for.
type Coverage struct {
	Source string    `json:"source"` // memory | spool | opensearch
	Since  time.Time `json:"since"`  // of the oldest event there
	// Error says why not all of it could be looked at.
	Error string `json:"error,omitempty"`
}

// Values of Coverage.Source.
const (
	SourceMemory = "memory"
	SourceSpool  = "spool"
)

// Counters are the figures of the record since start, from one consistent reading. Every packet-in is counted once in PacketIns and
// then either in Unknown (no verdict of ours, makes no event) or through its events in Observed. An event is a verdict,
// or a loss that was told. What the switch dropped before it reached tapwall is added to Observed as far as it is known.
//
//	Observed = Accepted + Pending + Lost of the stages before acceptance (Stage.BeforeAcceptance)
//
// holds at any time. Accepted means written to the spool or, if there is none, kept in the ring. The other stages of Lost count copies of
// accepted events.
type Counters struct {
	Observed     int64            `json:"observed"`
	Accepted     int64            `json:"accepted"`
	Pending      int64            `json:"pending"`
	Lost         map[string]int64 `json:"lost"` // by stage
	PacketIns    int64            `json:"packetIns"`
	Unknown      int64            `json:"unknownPacketIns"`
	DecodeErrors map[string]int64 `json:"decodeErrors,omitempty"` // packets that could not be read whole, by layer
	RingEntries  int              `json:"ringEntries"`
	RingCapacity int              `json:"ringCapacity"`
	Open         int              `json:"openConnections"`     // that were recorded, and whose end has not been told
	RingOldest   time.Time        `json:"ringOldest,omitzero"` // when the first of them was made
	Rate         float64          `json:"eventsPerSecond"`     // accepted, over the last 10 s
	Clients      int              `json:"streamClients"`
	StreamGaps   int64            `json:"streamGaps"`
	Spool        *SpoolStatus     `json:"spool,omitempty"` // absent = events are kept in memory only
	Sinks        []SinkStatus     `json:"sinks,omitempty"` // in the order of configuration
}

// SinkStatus is the health of a sink: what became of the events of the spool since it was first configured, over restarts.
// Appended = Written + LostIO + Pending, in one consistent reading.
type SinkStatus struct {
	Name     string       `json:"name"`
	Target   string       `json:"target"`   // where it writes to: a path, a URL
	Bytes    int64        `json:"bytes"`    // of the file that is written; 0 of a server
	Appended int64        `json:"appended"` // events that it was to have
	Written  int64        `json:"written"`  // of them at the target
	LostIO   int64        `json:"lostIO"`   // of them that never will be
	Pending  int64        `json:"pending"`  // of them that wait in the spool, or are being written
	Error    string       `json:"error,omitempty"`
	Export   ExportStatus `json:"export"`
}

// ExportStatus is more of it: Written = Created + Duplicates, LostIO = DeadLetters + Expired + Corrupt.
type ExportStatus struct {
	Created     int64 `json:"created"`
	Duplicates  int64 `json:"duplicates"`  // were there already, from before a crash or an answer that was lost
	DeadLetters int64 `json:"deadLetters"` // refused for good, and kept in a file
	Expired     int64 `json:"expired"`     // fell to the bounds of the spool, or to the retention, before they were delivered
	Corrupt     int64 `json:"corrupt"`     // could not be read back from the spool

	InFlight         int       `json:"inFlight"` // requests
	Retries          int64     `json:"retries"`  // since start
	Lag              float64   `json:"lagSeconds"`
	LettersKept      int64     `json:"lettersKept"`
	LetterBytes      int64     `json:"letterBytes"`
	LettersDiscarded int64     `json:"lettersDiscarded"`     // since start: fell to the bound of their file
	LastSuccess      time.Time `json:"lastSuccess,omitzero"` // when it last took events, or would have
	FailingSince     time.Time `json:"failingSince,omitzero"`
}

// ExportTest is what a server said when it was tried.
type ExportTest struct {
	Sink         string `json:"sink"`
	Target       string `json:"target"`
	Distribution string `json:"distribution,omitempty"` // opensearch
	Version      string `json:"version"`
	Cluster      string `json:"cluster,omitempty"`
	Health       string `json:"health,omitempty"` // green, yellow, red; absent = it may not be asked
	// Took is how long an event took from its making until the server had it, in seconds.
	Took float64 `json:"tookSeconds"`
}

// ExportReplay is what became of dead letters that were sent again.
type ExportReplay struct {
	Taken   int64 `json:"taken"`
	Refused int64 `json:"refused"` // they are dead letters again
}

// SpoolStatus is the state of the record on disk. Appended = Written + Lost + Pending, in one consistent reading.
type SpoolStatus struct {
	Dir      string    `json:"dir"`
	Bytes    int64     `json:"bytes"`    // on disk
	MaxBytes int64     `json:"maxBytes"` // at most
	Segments int       `json:"segments"`
	Events   int64     `json:"events"`           // that can be read back
	Oldest   time.Time `json:"oldest,omitzero"`  // of them
	Appended int64     `json:"appended"`         // since start, as all below
	Written  int64     `json:"written"`          // of them on disk, but for what fell to the bounds since
	Lost     int64     `json:"lost"`             // of them not written
	Pending  int64     `json:"pending"`          // of them not written yet
	Spoilt   int64     `json:"spoilt,omitempty"` // that were kept once and cannot be read any more
	Syncs    int64     `json:"syncs"`            // how often the disk was told to keep what it has
	SyncTime float64   `json:"syncSeconds"`      // how long that took together
	Error    string    `json:"error,omitempty"`  // why nothing, or not all, is written now
}
