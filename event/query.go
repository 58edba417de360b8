package event

import "time"

// Filter selects events. Several values of one field are alternatives, several fields must all match; zero fields match all.
type Filter struct {
	Verdict  []string // FORWARDED, DROPPED, …
	Action   []string // policy-verdict, events-lost
	Bridge   []string
	Policy   []string
	Rule     []string // rule name or rule id ("policy/direction/rule")
	Protocol []string // network.transport
	IP       []string // either side; address or CIDR
	FromIP   []string
	ToIP     []string
	Port     []int // either side
	FromPort []int
	ToPort   []int
	Endpoint []string // name or port name, either side
	FromName []string
	ToName   []string
	Since    time.Time
	Until    time.Time
	After    string // event id, exclusive
	Limit    int    // 0 = 20
	First    bool   // the oldest Limit instead of the newest
}

// Page is the answer to a query.
type Page struct {
	Items []*Event `json:"items"`
	// Oldest is the time of the oldest event still kept; what is older is not covered by the answer.
	Oldest time.Time `json:"oldest,omitzero"`
	// Next is the id to continue after, "" at the end.
	Next string `json:"next,omitempty"`
}

// Counters are the figures of the record since start. Observed = Accepted + sum of Lost over stages before acceptance.
type Counters struct {
	Observed     int64            `json:"observed"`
	Accepted     int64            `json:"accepted"`
	Lost         map[string]int64 `json:"lost"` // by stage
	PacketIns    int64            `json:"packetIns"`
	DecodeErrors map[string]int64 `json:"decodeErrors,omitempty"` // by layer
	RingEntries  int              `json:"ringEntries"`
	RingCapacity int              `json:"ringCapacity"`
	Clients      int              `json:"streamClients"`
	File         string           `json:"file,omitempty"`
	FileBytes    int64            `json:"fileBytes"`
	FileError    string           `json:"fileError,omitempty"`
}
