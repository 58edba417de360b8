package ovsdb

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// checkSchema returns a *SchemaError when the server's schema does not fit. The library refuses it too, but stops at the first column of
// each table.
func checkSchema(schema *ovsdb.DatabaseSchema) error {
	e := &SchemaError{Version: schema.Version}
	for table, row := range rowTypes() {
		have := schema.Table(table)
		if have == nil {
			e.Missing = append(e.Missing, table)
			continue
		}
		t := reflect.TypeOf(row).Elem()
		for i := range t.NumField() {
			name := t.Field(i).Tag.Get("ovsdb")
			column := have.Column(name)
			if column == nil {
				e.Missing = append(e.Missing, table+"."+name)
				continue
			}
			if is, want := ovsdb.NativeType(column), t.Field(i).Type; is != want {
				e.Other = append(e.Other, fmt.Sprintf("%s.%s: want %s, have %s", table, name, want, is))
			}
		}
	}
	if len(e.Missing) == 0 && len(e.Other) == 0 {
		return nil
	}
	slices.Sort(e.Missing)
	slices.Sort(e.Other)
	return e
}

// dialAddress connects. For ssl it has the TLS handshake behind it when it returns.
func dialAddress(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	network, addr, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(address, "ssl:") {
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, addr)
	}
	return (&net.Dialer{}).DialContext(ctx, network, addr)
}
