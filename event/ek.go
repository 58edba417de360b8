package event

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// AppendEK appends e as the two lines that tshark -T ek prints of a packet, for dashboards that were made for those: the fields that an
// event has, under the names that tshark gives them, from the sender of the packet. There is no _type, which OpenSearch refuses, and no
// key twice. ok is false of what is no packet, such as the end of a connection.
func AppendEK(b []byte, e *Event) (out []byte, ok bool) {
	if e.Source == nil || e.Destination == nil || e.Network == nil || e.Tapwall.Ended != nil {
		return b, false
	}
	src, dst := e.Source, e.Destination
	if e.Tapwall.CT != nil && slices.Contains(e.Tapwall.CT.State, "rpl") {
		src, dst = dst, src
	}
	layers := map[string]map[string]any{}
	put := func(layer, field, value string) {
		if value == "" || value == "0" && strings.HasSuffix(field, "port") {
			return
		}
		if layers[layer] == nil {
			layers[layer] = map[string]any{}
		}
		layers[layer][layer+"_"+layer+"_"+field] = value
	}
	t := e.Timestamp.UTC()
	put("frame", "time_epoch", fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()))
	put("frame", "len", strconv.FormatInt(e.Network.Bytes, 10))
	put("eth", "src", ekMAC(src.MAC))
	put("eth", "dst", ekMAC(dst.MAC))
	if v := e.Network.VLAN; v != nil {
		put("vlan", "id", v.ID)
	}
	ip, number := "ip", "proto"
	if e.Network.Type == "ipv6" {
		ip, number = "ipv6", "nxt"
	}
	put(ip, "src", src.IP)
	put(ip, "dst", dst.IP)
	put(ip, number, e.Network.IANANumber)
	switch transport := e.Network.Transport; transport {
	case "tcp", "udp", "sctp":
		put(transport, "srcport", strconv.Itoa(src.Port))
		put(transport, "dstport", strconv.Itoa(dst.Port))
	}
	if tcp := e.Tapwall.TCP; tcp != nil && layers["tcp"] != nil {
		for flag, name := range map[string]string{"FIN": "fin", "SYN": "syn", "RST": "reset", "PSH": "push", "ACK": "ack", "URG": "urg"} {
			layers["tcp"]["tcp_tcp_flags_"+name] = slices.Contains(tcp.Flags, flag)
		}
	}
	if i := e.Tapwall.ICMP; i != nil {
		icmp := "icmp"
		if ip == "ipv6" {
			icmp = "icmpv6"
		}
		put(icmp, "type", strconv.Itoa(i.Type))
		put(icmp, "code", strconv.Itoa(i.Code))
	}
	if d := e.DNS; d != nil {
		put("dns", "id", d.ID)
		if d.Question != nil {
			put("dns", "qry_name", d.Question.Name)
		}
	}
	if e.TLS != nil && e.TLS.Client != nil {
		put("tls", "handshake_extensions_server_name", e.TLS.Client.ServerName)
	}
	if h := e.HTTP; h != nil && h.Request != nil {
		put("http", "request_method", h.Request.Method)
	}
	if h := e.HTTP; h != nil && h.Response != nil {
		put("http", "response_code", strconv.Itoa(h.Response.StatusCode))
	}
	if u := e.URL; u != nil {
		put("http", "host", u.Domain)
		put("http", "request_uri", u.Path)
	}
	doc, err := json.Marshal(struct {
		Timestamp string                    `json:"timestamp"`
		Layers    map[string]map[string]any `json:"layers"`
	}{strconv.FormatInt(t.UnixMilli(), 10), layers})
	if err != nil {
		return b, false // there is nothing in it that JSON cannot hold
	}
	b = fmt.Appendf(b, "{\"index\":{\"_index\":\"packets-%s\"}}\n", t.Format("2006-01-02"))
	return append(append(b, doc...), '\n'), true
}

func ekMAC(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", ":")) }
